"""HTTP servers of a test, in the namespace of a node: an upstream with a pace and faults, and a door to what grows."""

from __future__ import annotations

import asyncio
import socket
import struct
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field

from speil.oci import byte_range
from speil.oci.digest import Digest
from speil.oci.endpoint import Content
from speil.oci.image_builder import BuiltImage
from speil.sources.base import BrokeOffError, ContentRequest
from speil.sources.growing import Growing
from speil.testing.outlets import StreamOutlet
from speil.wire.sink import ClientGoneError, Sink
from speil.wire.turns import Wire
from tests.system.lab.namespaces import Namespace, inside

CHUNK_BYTES = 256 << 10
HEAD_BYTES_MAX = 16 << 10


@dataclass(frozen=True, slots=True)
class Asked:
    """A request for content: `reference` is a digest or a tag."""

    method: str
    kind: str
    reference: str
    range_header: str
    client: str


Answer = Callable[[Asked, asyncio.StreamReader, asyncio.StreamWriter], Awaitable[bool]]


@asynccontextmanager
async def door(namespace: Namespace, answer: Answer) -> AsyncIterator[str]:
    """Serve on a free port of the namespace; its URL. `answer` returns whether the connection stays open."""
    with inside(namespace):
        listener = socket.create_server((namespace.address, 0))
    serving: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        serving.add(task)
        try:
            # cancelled at the end of the test: asyncio reports a connection's task that ends so
            with suppress(ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
                while await answer(await _asked(reader, writer), reader, writer):
                    pass
        finally:
            serving.discard(task)
            writer.close()

    server = await asyncio.start_server(serve, sock=listener, limit=HEAD_BYTES_MAX)
    try:
        yield f"http://{namespace.address}:{listener.getsockname()[1]}"
    finally:
        server.close()
        for task in list(serving):
            task.cancel()
        await asyncio.gather(*serving, return_exceptions=True)


async def _asked(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> Asked:
    head = (await reader.readuntil(b"\r\n\r\n")).decode()
    line, *rest = head.split("\r\n")
    method, target, _ = line.split(" ")
    headers = {name.lower(): value for name, _, value in (one.partition(": ") for one in rest)}
    _, kind, reference = target.partition("?")[0].rsplit("/", 2)
    return Asked(method, kind, reference, headers.get("range", ""), writer.get_extra_info("peername")[0])


def head(status: str, length: int, *more: str) -> bytes:
    """A response's head."""
    return "\r\n".join((f"HTTP/1.1 {status}", f"Content-Length: {length}", *more, "", "")).encode()


def miss(writer: asyncio.StreamWriter) -> bool:
    """404."""
    writer.write(head("404 Not Found", 0))
    return True


@dataclass(slots=True)
class Upstream:
    """A registry with one image under any name and tag. Faults are for its largest layer.

    `reset_at` and `stall_at` happen once: the next request is served.
    """

    image: BuiltImage
    bytes_per_second: float
    corrupt: bool = False
    reset_at: int | None = None  # RST after so many bytes of the blob
    stall_at: int | None = None  # nothing more after so many bytes of the blob until `goes_on`
    goes_on: asyncio.Event = field(default_factory=asyncio.Event)
    sent: dict[tuple[str, str], int] = field(default_factory=dict)  # body bytes, by client and digest

    @property
    def layer(self) -> Digest:
        """The largest layer."""
        return max(self.image.blobs, key=lambda digest: len(self.image.blobs[digest]))

    def sent_of_layer(self, client: str) -> int:
        """Bytes of the largest layer that went to a node."""
        return self.sent.get((client, str(self.layer)), 0)

    async def answer(self, asked: Asked, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """See Answer."""
        digest = Digest.parse(asked.reference) if ":" in asked.reference else self.image.index.digest
        if (data := self.image.blobs.get(digest)) is None:
            return miss(writer)
        kind = f"Content-Type: {self.image.media_types[digest]}"
        part = byte_range.parse(asked.range_header, len(data))
        start, stop = (part.start, part.stop) if part else (0, len(data))
        more = (f"Content-Range: {part.content_range}",) if part else ()
        status = "206 Partial Content" if part else "200 OK"
        writer.write(head(status, stop - start, kind, f"Docker-Content-Digest: {digest}", *more))
        if asked.method == "GET":
            await self._send(digest, data, start, stop, asked.client, writer)
        return True

    async def _send(
        self, digest: Digest, data: bytes, start: int, stop: int, client: str, writer: asyncio.StreamWriter
    ) -> None:
        is_layer, at, began = digest == self.layer, start, time.monotonic()
        while at < stop:
            if is_layer and self.reset_at is not None and at >= self.reset_at:
                self.reset_at = None
                await writer.drain()
                connection = writer.get_extra_info("socket")
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                writer.transport.abort()
                raise ConnectionResetError
            if is_layer and self.stall_at is not None and at >= self.stall_at:
                self.stall_at = None
                await self.goes_on.wait()
            piece = data[at : min(at + CHUNK_BYTES, stop)]
            if is_layer and self.corrupt:
                piece = bytes(len(piece))
            writer.write(piece)
            await writer.drain()
            at += len(piece)
            self.sent[client, str(digest)] = self.sent.get((client, str(digest)), 0) + len(piece)
            if is_layer:
                await asyncio.sleep(max(0.0, began + (at - start) / self.bytes_per_second - time.monotonic()))


@dataclass(slots=True)
class GrowingDoor:
    """Serves what a node's runtime is downloading, and nothing else."""

    growing: Growing
    wire: Wire
    followed: list[Asked] = field(default_factory=list)
    broke_off: list[str] = field(default_factory=list)
    sent: int = 0

    async def answer(self, asked: Asked, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """See Answer."""
        if asked.kind != "blobs" or asked.method != "GET":
            return miss(writer)
        content = Content("blobs", "reg.test", "lab/app", Digest.parse(asked.reference))
        opened = await self.growing.open(ContentRequest(content, "GET", asked.range_header))
        if opened is None:
            return miss(writer)
        self.followed.append(asked)
        async with opened:
            more = (f"Content-Range: {opened.part.content_range}",) if opened.part else ()
            status = "206 Partial Content" if opened.part else "200 OK"
            writer.write(head(status, opened.length, f"Content-Type: {opened.media_type}", *more))
            sink = Sink(self.wire, StreamOutlet(writer), self._count)
            try:
                await opened.send(sink)
            except BrokeOffError as error:
                self.broke_off.append(str(error))
                return False
            except ClientGoneError:
                return False
            finally:
                sink.close()
        return True

    def _count(self, size: int) -> None:
        self.sent += size
