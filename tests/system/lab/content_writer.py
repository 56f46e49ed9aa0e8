"""Writes content into a containerd by its content service, as a client with its own pace."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.empty_pb2 import Empty
from grpclib.client import Channel, StreamStreamMethod, UnaryUnaryMethod
from grpclib.const import Status
from grpclib.exceptions import GRPCError, ProtocolError, StreamTerminatedError
from h2.exceptions import H2Error

from speil.oci.digest import Digest
from speil.testing.eventually import eventually

_SERVICE = "/containerd.services.content.v1.Content/"
_METADATA = {"containerd-namespace": "k8s.io"}
_WRITE, _COMMIT = 1, 2
_ENDED = (GRPCError, StreamTerminatedError, ProtocolError, H2Error)  # of a stream that the server has ended
_FIELDS = {  # the part of containerd's api/services/content/v1/content.proto that this uses
    "WriteContentRequest": (
        ("action", 1, "int32"),
        ("ref", 2, "string"),
        ("total", 3, "int64"),
        ("expected", 4, "string"),
        ("offset", 5, "int64"),
        ("data", 6, "bytes"),
    ),
    "WriteContentResponse": (("action", 1, "int32"), ("offset", 4, "int64"), ("total", 5, "int64")),
    "AbortRequest": (("ref", 1, "string"),),
    "DeleteContentRequest": (("digest", 1, "string"),),
}


def _messages() -> dict[str, Any]:
    file = descriptor_pb2.FileDescriptorProto(name="lab_content.proto", package="lab", syntax="proto3")
    for name, fields in _FIELDS.items():
        message = file.message_type.add(name=name)
        for field, number, kind in fields:
            type_number = getattr(descriptor_pb2.FieldDescriptorProto, f"TYPE_{kind.upper()}")
            message.field.add(name=field, number=number, type=type_number, label=1)
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return {name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"lab.{name}")) for name in _FIELDS}


MESSAGES = _messages()


class ContentWriter:
    """One write stream. The ingest is there after `begin`; it stays when the stream is closed."""

    def __init__(self, channel: Channel, digest: Digest, total: int | None, prefix: str) -> None:
        """`prefix` and the digest are the name of the download."""
        self._channel, self._digest, self._total = channel, digest, total or 0
        self._ref, self._offset = f"{prefix}-{digest}", 0
        self._stream: Any = None

    async def begin(self) -> None:
        """Open the stream; the ingest is made by the first message."""
        await self._open()
        await self._ask(_WRITE)

    async def write(self, data: bytes) -> None:
        """Append bytes."""
        await self._ask(_WRITE, data)

    async def commit(self) -> None:
        """Verify and commit; a wrong digest leaves the ingest there."""
        with suppress(*_ENDED):
            await self._ask(_COMMIT)
        await self._close()

    async def abort(self) -> None:
        """Delete the ingest; one that is not there is ignored."""
        await self._close()
        await eventually(self._is_aborted, what="containerd releases the ingest")

    async def _is_aborted(self) -> bool:
        method = UnaryUnaryMethod(self._channel, _SERVICE + "Abort", MESSAGES["AbortRequest"], Empty)
        try:
            await method(MESSAGES["AbortRequest"](ref=self._ref), metadata=_METADATA)
        except GRPCError as error:
            return error.status is Status.NOT_FOUND  # else the stream holds it still
        return True

    async def rewind(self) -> None:
        """Begin again at the first byte: containerd truncates the file at offset 0."""
        self._offset = 0
        await self._ask(_WRITE)

    async def _open(self) -> None:
        method = StreamStreamMethod(
            self._channel, _SERVICE + "Write", MESSAGES["WriteContentRequest"], MESSAGES["WriteContentResponse"]
        )
        self._stream = method.open(metadata=_METADATA)
        await self._stream.__aenter__()

    async def _close(self) -> None:
        stream, self._stream = self._stream, None
        if stream is not None:
            # the server has ended it after a commit
            with suppress(*_ENDED):
                await stream.end()
            with suppress(*_ENDED):
                await stream.__aexit__(None, None, None)

    async def _ask(self, action: int, data: bytes = b"") -> None:
        assert self._stream is not None
        request = MESSAGES["WriteContentRequest"](
            action=action, ref=self._ref, total=self._total, offset=self._offset, data=data
        )
        if action == _COMMIT:
            request.expected = str(self._digest)
        await self._stream.send_message(request)
        if await self._stream.recv_message() is None:
            await self._stream.recv_trailing_metadata()  # raises GRPCError
        self._offset += len(data)


async def delete(channel: Channel, digest: Digest) -> None:
    """Delete content; what is not there is ignored. containerd removes the file a moment later."""
    method = UnaryUnaryMethod(channel, _SERVICE + "Delete", MESSAGES["DeleteContentRequest"], Empty)
    with suppress(GRPCError):
        await method(MESSAGES["DeleteContentRequest"](digest=str(digest)), metadata=_METADATA)
