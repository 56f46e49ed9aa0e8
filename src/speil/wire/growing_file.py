"""A body from a file that is still being written: sent up to what is there, then the news of more is waited for.

The last bytes are sent as soon as they are there. They could be held back until the writer has verified the file. That
would not save the client: it has the wrong bytes before them already, and its download fails at its own verification.
It would delay every client by the writer's fsync, once for each node of a chain.
"""

from __future__ import annotations

import asyncio
import math
import os
from collections.abc import Callable
from typing import Protocol

from speil.wire.file_body import COPY_BYTES
from speil.wire.pump import PIECE_BYTES_MAX, ClientEnd, ClientGoneError, Pump, Wait
from speil.wire.sendfile import send
from speil.wire.sink import Sink
from speil.wire.splice import SourceBrokeOffError, SourceStalledError
from speil.wire.turns import Wire

# Nothing is written while the file stands still: a client that has left is looked for. Mostly the server tells it at
# once, but not where it reads no further from this client.
CLIENT_LOOK_SECONDS = 1.0


class Growth(Protocol):
    """A file that grows. The receiver of a body owns it and keeps it open."""

    @property
    def fd(self) -> int:
        """The open file."""

    @property
    def size(self) -> int:
        """Bytes that are there now."""

    @property
    def grew_at(self) -> float:
        """When it grew last, as loop time."""

    @property
    def broken(self) -> Exception | None:
        """Why there will be no more than `size` bytes; None while there may be."""

    def watch(self, callback: Callable[[], None], /) -> None:
        """Call `callback` at each change, until `unwatch`."""

    def unwatch(self, callback: Callable[[], None], /) -> None:
        """End a `watch`."""


class SendGrowing(Pump):
    """Sends `size` bytes of a growing file from `offset` on. A client that sends FIN has left: peers do not half-close.

    A piece raises SourceBrokeOffError where the file ends before, and SourceStalledError where it does not grow for
    `stall_seconds` and the client has all of it. The caller may change `stall_seconds` between pieces.
    """

    def __init__(self, wire: Wire, client: ClientEnd, file: Growth, offset: int, size: int) -> None:
        super().__init__(wire, client)
        self._file, self._offset, self._stop = file, offset, offset + size
        self.stall_seconds = math.inf

    def _turn(self, size_max: int) -> Wait:
        ready = min(self._file.size, self._stop) - self._offset
        if ready <= 0:
            if error := self._file.broken:
                raise SourceBrokeOffError(str(error)) from error
            return Wait.SOURCE
        size = min(ready, size_max)
        _check_hole(self._wire, self._file.fd, self._offset, size)
        count, is_full = send(self._client.fd, self._file.fd, self._offset, size)
        if not count and not is_full:
            raise SourceBrokeOffError("the file is shorter than it was")
        self._offset += count
        self.moved += count
        if self._offset == self._stop:
            return Wait.NOTHING
        return Wait.CLIENT if count < ready else Wait.SOURCE

    def _tick(self) -> None:
        if self._ended is not None and not self._ended.done() and self._client.has_ended:
            self._end(ClientGoneError())
        else:
            super()._tick()

    def _watch_source(self) -> None:
        self._file.watch(self._is_ready)

    def _unwatch_source(self) -> None:
        self._file.unwatch(self._is_ready)

    def _source_deadline(self) -> float:
        return self._file.grew_at + self.stall_seconds  # its writer does not wait for the client

    def _source_stalled(self) -> Exception:
        return SourceStalledError(f"it did not grow for {self.stall_seconds:g} s")


class GrowingBody:
    """`left` bytes of a growing file from `offset` on. The caller owns the file."""

    def __init__(self, file: Growth, offset: int, size: int, stall_seconds: Callable[[], float]) -> None:
        """`stall_seconds` is called before each wait: how long the file may not grow."""
        self._file, self._offset, self.left, self._stall_seconds = file, offset, size, stall_seconds
        self._pump: SendGrowing | None = None

    async def send(self, sink: Sink) -> None:
        """Send all that is left, as it comes. Raises what `move` raises."""
        while self.left:
            # a turn is taken for bytes that are there: a slow file would keep the upload limit from other bodies
            ready = await self._ready(sink)
            granted = await sink.turn(min(ready if sink.is_paced else self.left, PIECE_BYTES_MAX))
            sink.give_back(granted - await self.move(sink, granted))

    async def move(self, sink: Sink, size_max: int = PIECE_BYTES_MAX) -> int:
        """Send the next piece; its size.

        Raises SourceBrokeOffError, SourceStalledError, ClientGoneError, OSError when the disk fails.
        """
        if self._pump is None and await sink.claim():
            self._pump = SendGrowing(sink.wire, sink, self._file, self._offset, self.left)
        if self._pump is not None:
            self._pump.stall_seconds = self._stall_seconds()
            size = await self._pump.piece(size_max)
            sink.moved(size)
        else:
            size = await self._copy(sink, size_max)
        self._offset += size
        self.left -= size
        return size

    async def _copy(self, sink: Sink, size_max: int) -> int:
        ready = await self._ready(sink)
        await sink.wire.copies.enter()
        wanted = min(ready, size_max, COPY_BYTES)
        _check_hole(sink.wire, self._file.fd, self._offset, wanted)
        data = os.pread(self._file.fd, wanted, self._offset)
        if not data:
            raise SourceBrokeOffError("the file is shorter than it was")
        await sink.write(data)
        return len(data)

    async def _ready(self, sink: Sink) -> int:
        """How many bytes can be sent now, at least one. Raises what `move` raises."""
        changed = asyncio.Event()
        self._file.watch(changed.set)
        try:
            while (ready := min(self._file.size - self._offset, self.left)) <= 0:
                if error := self._file.broken:
                    raise SourceBrokeOffError(str(error)) from error
                if sink.has_ended:
                    raise ClientGoneError
                changed.clear()
                stall_seconds = self._stall_seconds()
                now, stalls_at = asyncio.get_running_loop().time(), self._file.grew_at + stall_seconds
                if now >= stalls_at:
                    raise SourceStalledError(f"it did not grow for {stall_seconds:g} s")
                try:
                    async with asyncio.timeout_at(min(stalls_at, now + CLIENT_LOOK_SECONDS)):
                        await changed.wait()
                except TimeoutError:
                    continue
        finally:
            self._file.unwatch(changed.set)
        return ready


def _check_hole(wire: Wire, fd: int, offset: int, size: int) -> None:
    """Raises SourceBrokeOffError."""
    if wire.holes.between(fd, offset, offset + size):
        raise SourceBrokeOffError("the file was truncated while it was written")
