"""One stream: a byte pipe to a peer that can be half-closed, and messages with a length prefix on top of it.

Reading grows the peer's window, so a peer can send a message larger than one window while the reader waits for all of
it. Received bytes stay in the stream's buffer until they are read, and count against the connection's share of memory.
Writing waits for the window and for the connection's buffer, so neither side can fill the memory of the other.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Protocol

from speil.libp2p.error import PeerMisbehavedError, StreamResetError
from speil.libp2p.remote_peer import RemotePeer
from speil.libp2p.yamux import FRAME_PAYLOAD_BYTES_MAX
from speil.multiformats import varint
from speil.multiformats.error import FormatError
from speil.multiformats.peer_id import PeerId

READ_BYTES = 64 * 1024


class StreamCarrier(Protocol):
    """A connection as its streams see it. Streams are named by their id."""

    async def send(self, stream_id: int, data: bytes) -> int:
        """Send the first part of `data`: how many bytes, 0 while the peer's window is closed.

        Waits while the connection's write buffer is full. Raises StreamResetError, ConnectionClosedError.
        """

    def release(self, stream_id: int, taken_bytes: int, credit_bytes: int) -> None:
        """`taken_bytes` are no longer held in memory; the peer's window may grow by `credit_bytes`."""

    def finish(self, stream_id: int) -> None:
        """Send no more: half-close."""

    def reset(self, stream_id: int) -> None:
        """End the stream in both directions."""


class Stream:
    """A stream of a connection. `Host.open_stream` or the handler's caller makes it; whoever gets it ends it."""

    __slots__ = (
        "_buffer",
        "_carrier",
        "_credited",
        "_error",
        "_finished",
        "_readers",
        "_writers",
        "on_gone",
        "peer",
        "protocol",
        "stream_id",
    )

    def __init__(self, carrier: StreamCarrier, stream_id: int, peer: RemotePeer) -> None:
        self._carrier, self.stream_id, self.peer, self.protocol = carrier, stream_id, peer, ""
        self.on_gone: Callable[[], None] | None = None  # called once, when neither side sends on it any more
        self._buffer = bytearray()
        self._credited = 0  # bytes of the buffer for which the peer's window has grown already
        self._finished = False
        self._error: Exception | None = None
        self._readers: list[asyncio.Future[None]] = []
        self._writers: list[asyncio.Future[None]] = []

    @property
    def peer_id(self) -> PeerId:
        """The peer at the other end."""
        return self.peer.peer_id

    @property
    def held_bytes(self) -> int:
        """Bytes that were received and not read yet."""
        return len(self._buffer)

    @property
    def is_open(self) -> bool:
        """Whether the peer may still send on it."""
        return self._error is None and not self._finished

    async def has_more(self) -> bool:
        """Wait until there is a byte to read; False at the peer's end of the stream.

        Raises StreamResetError, ConnectionClosedError.
        """
        return await self._fill(1)

    async def read(self, size_max: int = READ_BYTES) -> bytes:
        """Between one byte and `size_max`; empty at the peer's end of the stream.

        Raises StreamResetError, ConnectionClosedError.
        """
        return self._take(size_max) if await self._fill(1) else b""

    async def read_exactly(self, size: int) -> bytes:
        """Exactly `size` bytes; all of them are held in memory until the last one is there.

        Raises StreamResetError, also where the stream ends earlier, and ConnectionClosedError.
        """
        if not await self._fill(size):
            raise StreamResetError(f"the stream ended {size - len(self._buffer)} bytes early")
        return self._take(size)

    async def read_message(self, size_bytes_max: int) -> bytes | None:
        """The next message with a varint length prefix; None at a clean end of the stream.

        Raises PeerMisbehavedError for a bad length or one above `size_bytes_max`, StreamResetError,
        ConnectionClosedError.
        """
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
        """Wait until `size` bytes are in the buffer; False where the stream ends earlier."""
        while len(self._buffer) < size:
            if self._error:
                raise self._error
            if self._finished:
                return False
            if len(self._buffer) > self._credited:
                self._carrier.release(self.stream_id, 0, len(self._buffer) - self._credited)
                self._credited = len(self._buffer)
            await _wait(self._readers)
        return True

    def _take(self, size_max: int) -> bytes:
        data = bytes(self._buffer[:size_max])
        del self._buffer[: len(data)]
        credited = min(self._credited, len(data))
        self._credited -= credited
        self._carrier.release(self.stream_id, len(data), len(data) - credited)
        return data

    async def write(self, data: bytes) -> None:
        """Send all of `data`. Raises StreamResetError, ConnectionClosedError."""
        offset = 0
        while offset < len(data):
            if self._error:
                raise self._error
            sent = await self._carrier.send(self.stream_id, data[offset : offset + FRAME_PAYLOAD_BYTES_MAX])
            offset += sent
            if not sent:
                await _wait(self._writers)
        if self._error:
            raise self._error

    async def write_message(self, data: bytes) -> None:
        """Send `data` with its length in front. Raises StreamResetError, ConnectionClosedError."""
        await self.write(varint.encode(len(data)) + data)

    def close_write(self) -> None:
        """Half-close: the peer reads to the end; reading from the peer still works."""
        self._carrier.finish(self.stream_id)

    def reset(self) -> None:
        """End the stream in both directions."""
        self._carrier.reset(self.stream_id)
        self.drop(StreamResetError("reset by this node"))

    def drop(self, error: Exception) -> None:
        """Stop reading: discard what was received and what is still to come. Later reads and writes raise `error`."""
        self.fail(error)
        self._carrier.release(self.stream_id, len(self._buffer), 0)
        self._buffer, self._credited = bytearray(), 0

    async def __aenter__(self) -> Stream:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None and self._finished:
            self.close_write()
            self.drop(StreamResetError("the stream has ended"))
        else:
            self.reset()

    # --- called by the connection, as frames arrive ------------------------------------------------------

    def feed(self, data: bytes) -> None:
        """Add received bytes."""
        if self._error:
            self._carrier.release(self.stream_id, len(data), 0)  # nobody is going to read them
            return
        self._buffer += data
        _wake(self._readers)

    def finish(self) -> None:
        """The peer sends no more."""
        self._finished = True
        _wake(self._readers)

    def fail(self, error: Exception) -> None:
        """Raise `error` from now on; bytes that are in the buffer can still be read."""
        if self._error is None:
            self._error = error
        _wake(self._readers)
        _wake(self._writers)

    def window_grown(self) -> None:
        """The peer read bytes, so more can be sent."""
        _wake(self._writers)

    def gone(self) -> None:
        """Neither side sends any more; bytes that are in the buffer can still be read."""
        on_gone, self.on_gone = self.on_gone, None
        if on_gone:
            on_gone()

    async def wait_for(self, event: asyncio.Event) -> None:
        """Wait until `event` is set. Raises StreamResetError, ConnectionClosedError where the stream fails earlier.

        Whoever sets the event calls `look` afterwards.
        """
        while not event.is_set():
            if self._error:
                raise self._error
            await _wait(self._readers)

    def look(self) -> None:
        """Check again for the event of `wait_for`."""
        _wake(self._readers)


StreamHandler = Callable[[Stream], Awaitable[None]]


async def _wait(waiters: list[asyncio.Future[None]]) -> None:
    """Wait for the next `_wake`. Each caller has its own future, so cancelling one leaves the others waiting."""
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
