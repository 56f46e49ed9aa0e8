"""One stream: a byte pipe to a peer that can be half-closed, and messages with a length in front on top of it.

Reading credits the peer's window, so a peer can send a message larger than a window while we wait for the whole of
it. Writing waits for the window and for the connection's own buffer, so neither side can fill the other's memory.
"""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import TYPE_CHECKING

from speil.libp2p.error import PeerMisbehavedError, StreamResetError
from speil.libp2p.yamux import FRAME_PAYLOAD_BYTES_MAX
from speil.multiformats import varint
from speil.multiformats.error import FormatError
from speil.multiformats.peer_id import PeerId

if TYPE_CHECKING:
    from speil.libp2p.connection import Connection

READ_BYTES = 64 * 1024


class Stream:
    """A stream of a connection; made by `Host.open_stream` or handed to a handler."""

    __slots__ = ("_buffer", "_connection", "_error", "_finished", "_readable", "_writable", "protocol", "stream_id")

    def __init__(self, connection: Connection, stream_id: int) -> None:
        self._connection, self.stream_id, self.protocol = connection, stream_id, ""
        self._buffer = bytearray()
        self._finished = False
        self._error: Exception | None = None
        self._readable: asyncio.Future[None] | None = None
        self._writable: asyncio.Future[None] | None = None

    @property
    def peer_id(self) -> PeerId:
        """Who is at the other end."""
        return self._connection.peer_id

    @property
    def connection(self) -> Connection:
        """The connection it runs on."""
        return self._connection

    async def read(self, size_max: int = READ_BYTES) -> bytes:
        """What is there, at least one byte; empty at the peer's end of the stream.

        Raises StreamResetError, ConnectionClosedError.
        """
        while not self._buffer:
            if self._error:
                raise self._error
            if self._finished:
                return b""
            await self._wait_readable()
        data = bytes(self._buffer[:size_max])
        del self._buffer[:size_max]
        self._connection.credit(self.stream_id, len(data))
        return data

    async def read_exactly(self, size: int) -> bytes:
        """`size` bytes. Raises StreamResetError where the stream ends before them."""
        parts, left = [], size
        while left:
            if not (part := await self.read(left)):
                raise StreamResetError(f"the stream ended {left} bytes early")
            parts.append(part)
            left -= len(part)
        return b"".join(parts)

    async def read_message(self, size_bytes_max: int) -> bytes | None:
        """The next message with a varint length in front; None at a clean end. Raises PeerMisbehavedError."""
        head = b""
        while True:
            if not (byte := await self.read(1)):
                if head:
                    raise StreamResetError("the stream ended within a length")
                return None
            head += byte
            try:
                found = varint.decode(head)
            except FormatError as error:
                raise PeerMisbehavedError("bad_message", str(error)) from error
            if found:
                break
        if found[0] > size_bytes_max:
            raise PeerMisbehavedError("oversized_message", f"a message of {found[0]} bytes")
        return await self.read_exactly(found[0])

    async def write(self, data: bytes) -> None:
        """Send all of `data`. Raises StreamResetError, ConnectionClosedError."""
        offset = 0
        while offset < len(data):
            if self._error:
                raise self._error
            room = min(self._connection.send_window(self.stream_id), FRAME_PAYLOAD_BYTES_MAX)
            if room == 0:
                await self._wait_writable()
                continue
            await self._connection.send(self.stream_id, data[offset : offset + room])
            offset += room

    async def write_message(self, data: bytes) -> None:
        """Send a message with its length in front."""
        await self.write(varint.encode(len(data)) + data)

    def close_write(self) -> None:
        """Half-close: the peer reads to the end; we may go on reading."""
        self._connection.finish(self.stream_id)

    def reset(self) -> None:
        """Give it up, both ways."""
        self._connection.reset(self.stream_id)
        self.fail(StreamResetError("reset by us"))

    async def __aenter__(self) -> Stream:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None and self._finished:
            self.close_write()
        else:
            self.reset()

    # --- called by the connection, as frames come in ----------------------------------------------------

    def feed(self, data: bytes) -> None:
        """Bytes came."""
        self._buffer += data
        _wake(self._readable)

    def finish(self) -> None:
        """The peer will send no more."""
        self._finished = True
        _wake(self._readable)

    def fail(self, error: Exception) -> None:
        """Nothing will work any more."""
        if self._error is None:
            self._error = error
        _wake(self._readable)
        _wake(self._writable)

    def window_grown(self) -> None:
        """The peer took bytes."""
        _wake(self._writable)

    async def _wait_readable(self) -> None:
        self._readable = asyncio.get_running_loop().create_future()
        try:
            await self._readable
        finally:
            self._readable = None

    async def _wait_writable(self) -> None:
        self._writable = asyncio.get_running_loop().create_future()
        try:
            await self._writable
        finally:
            self._writable = None


def _wake(waiter: asyncio.Future[None] | None) -> None:
    if waiter and not waiter.done():
        waiter.set_result(None)
