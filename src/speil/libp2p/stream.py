"""One stream: a byte pipe to a peer that can be half-closed, and messages with a length in front on top of it.

Reading credits the peer's window, so a peer can send a message larger than a window while we wait for the whole of
it. What has come stays in the stream's buffer until it is taken, and counts against the connection's share of memory.
Writing waits for the window and for the connection's own buffer, so neither side can fill the other's memory.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
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

    __slots__ = (
        "_buffer",
        "_connection",
        "_credited",
        "_error",
        "_finished",
        "_readers",
        "_writers",
        "on_gone",
        "protocol",
        "stream_id",
    )

    def __init__(self, connection: Connection, stream_id: int) -> None:
        self._connection, self.stream_id, self.protocol = connection, stream_id, ""
        self.on_gone: Callable[[], None] | None = None
        self._buffer = bytearray()
        self._credited = 0  # bytes of the buffer that the peer has been given its window back for
        self._finished = False
        self._error: Exception | None = None
        self._readers: list[asyncio.Future[None]] = []
        self._writers: list[asyncio.Future[None]] = []

    @property
    def peer_id(self) -> PeerId:
        """Who is at the other end."""
        return self._connection.peer_id

    @property
    def connection(self) -> Connection:
        """The connection it runs on."""
        return self._connection

    @property
    def held_bytes(self) -> int:
        """What came and was not taken yet."""
        return len(self._buffer)

    async def has_more(self) -> bool:
        """Wait until there is a byte to read; False at the peer's end of the stream.

        Raises StreamResetError, ConnectionClosedError.
        """
        return await self._fill(1)

    async def read(self, size_max: int = READ_BYTES) -> bytes:
        """What is there, at least one byte; empty at the peer's end of the stream.

        Raises StreamResetError, ConnectionClosedError.
        """
        return self._take(size_max) if await self._fill(1) else b""

    async def read_exactly(self, size: int) -> bytes:
        """`size` bytes, small enough to be held. Raises StreamResetError where the stream ends before them."""
        if not await self._fill(size):
            raise StreamResetError(f"the stream ended {size - len(self._buffer)} bytes early")
        return self._take(size)

    async def read_message(self, size_bytes_max: int) -> bytes | None:
        """The next message with a varint length in front; None at a clean end. Raises PeerMisbehavedError."""
        while True:
            try:
                found = varint.decode(self._buffer)
            except FormatError as error:
                raise PeerMisbehavedError("bad_message", str(error)) from error
            if found:
                break
            if not await self._fill(len(self._buffer) + 1):
                if self._buffer:
                    raise StreamResetError("the stream ended within a length")
                return None
        size, head_size = found
        if size > size_bytes_max:
            raise PeerMisbehavedError("oversized_message", f"a message of {size} bytes")
        self._take(head_size)
        return await self.read_exactly(size)

    async def _fill(self, size: int) -> bool:
        """Wait until `size` bytes are there; False where the stream ends before."""
        while len(self._buffer) < size:
            if self._error:
                raise self._error
            if self._finished:
                return False
            if len(self._buffer) > self._credited:
                self._connection.credit(self.stream_id, len(self._buffer) - self._credited)
                self._credited = len(self._buffer)
            await _wait(self._readers)
        return True

    def _take(self, size_max: int) -> bytes:
        data = bytes(self._buffer[:size_max])
        del self._buffer[: len(data)]
        self._connection.taken(len(data))
        credited = min(self._credited, len(data))
        self._credited -= credited
        if len(data) > credited:
            self._connection.credit(self.stream_id, len(data) - credited)
        return data

    async def write(self, data: bytes) -> None:
        """Send all of `data`. Raises StreamResetError, ConnectionClosedError."""
        offset = 0
        while offset < len(data):
            if self._error:
                raise self._error
            room = min(self._connection.send_window(self.stream_id), FRAME_PAYLOAD_BYTES_MAX)
            if room == 0:
                await _wait(self._writers)
                continue
            await self._connection.send(self.stream_id, data[offset : offset + room])
            offset += room
        if self._error:
            raise self._error

    async def write_message(self, data: bytes) -> None:
        """Send a message with its length in front."""
        await self.write(varint.encode(len(data)) + data)

    def close_write(self) -> None:
        """Half-close: the peer reads to the end; we may go on reading."""
        self._connection.finish(self.stream_id)

    def reset(self) -> None:
        """Give it up, both ways."""
        self._connection.reset(self.stream_id)
        self.drop(StreamResetError("reset by us"))

    def drop(self, error: Exception) -> None:
        """Nobody reads it any more: what came, and what comes, is dropped."""
        self.fail(error)
        self._connection.taken(len(self._buffer))
        self._buffer, self._credited = bytearray(), 0

    async def __aenter__(self) -> Stream:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None and self._finished:
            self.close_write()
            self.drop(StreamResetError("it has ended"))
        else:
            self.reset()

    # --- called by the connection, as frames come in ----------------------------------------------------

    def feed(self, data: bytes) -> None:
        """Bytes came."""
        if self._error:
            self._connection.taken(len(data))  # nobody is going to read it
            return
        self._buffer += data
        _wake(self._readers)

    def finish(self) -> None:
        """The peer will send no more."""
        self._finished = True
        _wake(self._readers)

    def fail(self, error: Exception) -> None:
        """Nothing will work any more; what came before can still be read."""
        if self._error is None:
            self._error = error
        _wake(self._readers)
        _wake(self._writers)

    def window_grown(self) -> None:
        """The peer took bytes."""
        _wake(self._writers)

    def gone(self) -> None:
        """Neither side sends any more; what came can still be read."""
        on_gone, self.on_gone = self.on_gone, None
        if on_gone:
            on_gone()

    async def wait_for(self, event: asyncio.Event) -> None:
        """Until `event` is set. Raises StreamResetError, ConnectionClosedError where the stream fails before."""
        while not event.is_set():
            if self._error:
                raise self._error
            await _wait(self._readers)

    def look(self) -> None:
        """The event that is waited for may have been set."""
        _wake(self._readers)


async def _wait(waiters: list[asyncio.Future[None]]) -> None:
    """Until the next `_wake`. Each who waits has a future of its own: cancelling one leaves the others waiting."""
    waiter = asyncio.get_running_loop().create_future()
    waiters.append(waiter)
    try:
        await waiter
    finally:
        if waiter in waiters:
            waiters.remove(waiter)


def _wake(waiters: list[asyncio.Future[None]]) -> None:
    for waiter in waiters:
        if not waiter.done():
            waiter.set_result(None)
    waiters.clear()
