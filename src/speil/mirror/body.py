"""Bodies on their way out: by sendfile from an open file, or moved piece by piece from a peer into a sink.

The head goes through aiohttp's transport. Then, where the connection is a plain socket, a pump writes to a duplicate of
its descriptor: the transport's own buffer is empty and stays so, since nobody writes to it until the body's end. Over
TLS, or where zero-copy is off, the bytes go through the transport too.

A body that can't be finished ends with FIN, never RST: containerd repairs the one and fails the pull on the other. A
client that hangs up is nobody's failure.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from aiohttp import web
from aiohttp.abc import AbstractStreamWriter

from speil.mirror.progress import Progress
from speil.mirror.pump import CLIENT_STALL_SECONDS_MAX, PIECE_BYTES_MAX, ClientGoneError
from speil.mirror.sendfile import SendFile
from speil.mirror.wire import Wire
from speil.store.base import OpenContent

__all__ = ["BodyResponse", "BodySink", "ClientGoneError"]

COPY_BYTES = 128 << 10  # in user space for each body that is copied


class BodySink:
    """The client's end of one response, while its body is moved; `sent` counts what has reached its socket."""

    def __init__(
        self,
        wire: Wire,
        transport: asyncio.Transport,
        writer: AbstractStreamWriter,
        count: Callable[[int], None],
    ) -> None:
        self.wire = wire
        self.fd = -1
        self.sent = 0
        self._transport, self._writer, self._count = transport, writer, count

    @property
    def is_gone(self) -> bool:
        """Whether the connection is closed or closing."""
        return self._transport.is_closing()

    async def write(self, data: bytes) -> None:
        """Pass bytes on through the transport. Raises ClientGoneError."""
        async with self._patience():
            await self._writer.write(data)
        self.moved(len(data))

    def moved(self, size: int) -> None:
        """A pump has passed bytes on."""
        self.sent += size
        self._count(size)

    async def claim(self) -> bool:
        """Whether a pump may write to `fd`; the transport has then nothing left to send. Raises ClientGoneError."""
        if self.fd < 0 and self._is_plain():
            self._transport.set_write_buffer_limits(high=0)  # drain then means: the buffer is empty
            async with self._patience():
                await self._writer.drain()
            if self.is_gone:
                raise ClientGoneError
            try:
                # a duplicate, because the loop lets nobody wait on a transport's own descriptor
                self.fd = os.dup(self._transport.get_extra_info("socket").fileno())
            except OSError:  # no descriptor left: the copy path needs none
                self._transport.set_write_buffer_limits()
        return self.fd >= 0

    def hang_up(self) -> None:
        """End the connection: whatever was written to it now would be taken for the body."""
        if self._transport.get_write_buffer_size():
            self._transport.abort()  # a client that takes nothing would keep the buffer for ever
        else:
            self._transport.close()

    def close(self) -> None:
        """Let go of the descriptor; the transport goes on as it was."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1
            self._transport.set_write_buffer_limits()

    def _is_plain(self) -> bool:
        plain = self._transport.get_extra_info("ssl_object") is None
        return self.wire.zero_copy and plain and self._transport.get_extra_info("socket") is not None

    @asynccontextmanager
    async def _patience(self) -> AsyncIterator[None]:
        try:
            async with asyncio.timeout(CLIENT_STALL_SECONDS_MAX):
                yield
        except (ConnectionError, TimeoutError) as error:
            raise ClientGoneError from error


class BodyResponse(web.StreamResponse):
    """A response with a known length whose body is moved by `send_file` or into `open_sink`."""

    def __init__(self, status: int, headers: dict[str, str], length: int) -> None:
        super().__init__(status=status, headers=headers)
        self.content_length = length
        self.sent = 0  # of the body, into its sink
        self._broken = False

    @asynccontextmanager
    async def open_sink(
        self,
        request: web.BaseRequest,
        wire: Wire,
        count: Callable[[int], None],
        too_slow: Callable[[], None] | None = None,
    ) -> AsyncIterator[BodySink]:
        """The body is what is moved into the sink; `count` hears of each piece. Raises ClientGoneError.

        With `too_slow` a client that takes next to nothing is hung up on (`progress`), and it is told.
        """
        await self._begin(request)
        transport, writer = request.transport, self._payload_writer
        if transport is None or writer is None:
            raise ClientGoneError

        def moved(size: int) -> None:
            self.sent += size
            count(size)

        sink = BodySink(wire, transport, writer, moved)
        progress = Progress(transport, lambda: self.sent, too_slow) if too_slow else None
        try:
            yield sink
        except ClientGoneError:
            sink.hang_up()
            raise
        except BaseException:
            self.break_off()
            raise
        finally:
            if progress:
                progress.close()
            sink.close()
        await self._end()

    async def send_nothing(self, request: web.BaseRequest) -> None:
        """The head alone: the answer to HEAD."""
        await self._begin(request)
        await self._end()

    def break_off(self) -> None:
        """End with FIN what can't be finished."""
        self._broken = True
        self.force_close()

    async def write_eof(self, data: bytes = b"") -> None:
        """aiohttp calls this at the end; a broken body has none."""
        if not self._broken:
            await super().write_eof(data)

    async def _begin(self, request: web.BaseRequest) -> None:
        try:
            await self.prepare(request)
        except ConnectionError as error:
            raise ClientGoneError from error

    async def _end(self) -> None:
        try:
            await self.write_eof()
        except ConnectionError as error:
            raise ClientGoneError from error


class FileBody:
    """A file on its way into a sink: `left` bytes from `offset` on."""

    def __init__(self, content: OpenContent, offset: int, size: int) -> None:
        self._content, self._offset, self.left = content, offset, size
        self._pump: SendFile | None = None

    async def move(self, sink: BodySink, size_max: int = PIECE_BYTES_MAX) -> int:
        """Send the next piece; its size. Raises ClientGoneError, OSError when the disk fails."""
        if self._pump is None and await sink.claim():
            self._pump = SendFile(sink.wire, sink, self._content.fd, self._offset, self.left)
        if self._pump is not None:
            size = await self._pump.piece(size_max)
            sink.moved(size)
        else:
            await sink.wire.copies.enter()
            data = os.pread(self._content.fd, min(self.left, size_max, COPY_BYTES), self._offset)
            if not data:
                raise OSError("the file is shorter than it was")
            await sink.write(data)
            size = len(data)
        self._offset += size
        self.left -= size
        return size
