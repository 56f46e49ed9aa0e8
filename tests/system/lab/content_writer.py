"""Writes content into a containerd by its content service, as a client with its own pace."""

from __future__ import annotations

from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.empty_pb2 import Empty
from grpclib.client import Channel, StreamStreamMethod, UnaryUnaryMethod
from grpclib.exceptions import GRPCError

from speil.oci.digest import Digest

_SERVICE = "/containerd.services.content.v1.Content/"
_METADATA = {"containerd-namespace": "k8s.io"}
_WRITE, _COMMIT = 1, 2
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
}


def _messages() -> dict[str, Any]:
    file = descriptor_pb2.FileDescriptorProto(name="lab_content.proto", package="lab", syntax="proto3")
    for name, fields in _FIELDS.items():
        message = file.message_type.add(name=name)
        for field, number, kind in fields:
            type_number = getattr(descriptor_pb2.FieldDescriptorProto, f"TYPE_{kind.upper()}")
            message.field.add(name=field, number=number, type=type_number, label=1)
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)  # type: ignore[no-untyped-call]
    return {name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"lab.{name}")) for name in _FIELDS}


MESSAGES = _messages()


class ContentWriter:
    """One write stream. The ingest is there after `begin`; it stays when the stream is closed."""

    def __init__(self, channel: Channel, digest: Digest, total: int | None, prefix: str) -> None:
        """`prefix` and the digest are the name of the download."""
        self._channel, self._digest, self._total = channel, digest, total or 0
        self._ref, self._offset, self._stream = f"{prefix}-{digest}", 0, None

    async def begin(self) -> None:
        """Open the stream; the ingest is made by the first message."""
        await self._open()
        await self._ask(_WRITE)

    async def write(self, data: bytes) -> None:
        """Append bytes."""
        await self._ask(_WRITE, data)

    async def commit(self) -> None:
        """Verify and commit; a wrong digest leaves the ingest there."""
        try:
            await self._ask(_COMMIT)
        except GRPCError:
            pass
        await self._close()

    async def abort(self) -> None:
        """Delete the ingest; one that is not there is ignored."""
        await self._close()
        method = UnaryUnaryMethod(self._channel, _SERVICE + "Abort", MESSAGES["AbortRequest"], Empty)
        try:
            await method(MESSAGES["AbortRequest"](ref=self._ref), metadata=_METADATA)
        except GRPCError:
            pass

    async def rewind(self) -> None:
        """Begin again at the first byte, on a new stream."""
        await self._close()
        self._offset = 0
        await self._open()
        await self._ask(_WRITE, b"\0")  # a message without bytes does not truncate
        self._offset = 0

    async def _open(self) -> None:
        method = StreamStreamMethod(
            self._channel, _SERVICE + "Write", MESSAGES["WriteContentRequest"], MESSAGES["WriteContentResponse"]
        )
        self._stream = method.open(metadata=_METADATA)
        await self._stream.__aenter__()

    async def _close(self) -> None:
        stream, self._stream = self._stream, None
        if stream is None:
            return
        try:
            await stream.end()
            await stream.__aexit__(None, None, None)
        except GRPCError:
            pass

    async def _ask(self, action: int, data: bytes = b"") -> None:
        assert self._stream is not None
        request = MESSAGES["WriteContentRequest"](
            action=action, ref=self._ref, total=self._total, offset=self._offset, data=data
        )
        if action == _COMMIT:
            request.expected = str(self._digest)
        await self._stream.send_message(request)
        if await self._stream.recv_message() is None:
            raise GRPCError(*self._stream.status) if hasattr(self._stream, "status") else EOFError
        self._offset += len(data)
