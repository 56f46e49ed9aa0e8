"""Moves a body to a client's socket on the event loop; the bytes stay in the kernel.

The event loop calls a pump when a descriptor is ready. It moves bytes until one side would block, then waits for that
side alone: while the client is slow, nothing is taken from the source, and that time does not count against the source.
Two clocks run, never both: the source's while there is room for its bytes and none come, the client's while there are
bytes for it and it takes none.

A body is moved in pieces, so that the caller sees progress. A piece ends after some bytes or some time, but never
empty: it moves at least one byte, or raises. If a piece fails after it has moved bytes, it returns their number, and
the next piece raises the failure.
"""

from __future__ import annotations

import asyncio
import math
from abc import ABC, abstractmethod
from enum import Enum, auto
from typing import Protocol

from speil.wire.turns import TURN_BYTES_MAX, Wire

PIECE_BYTES_MAX = 16 << 20  # so that what was moved is known to within this when something ends
PIECE_SECONDS_MAX = 1.0  # the same for slow transfers
CLIENT_STALL_SECONDS_MAX = 300.0  # containerd's own limit for a pull without progress (image_pull_progress_timeout)


class ClientGoneError(Exception):
    """The client closed the connection before the end, or takes nothing more: no error of ours, nor of a source."""


class ClientEnd(Protocol):
    """The client's socket."""

    @property
    def fd(self) -> int:
        """A non-blocking descriptor to which only the pump writes."""

    @property
    def is_gone(self) -> bool:
        """Whether the connection is closed or closing."""

    @property
    def has_ended(self) -> bool:
        """Whether the client has sent FIN: it may still read."""


class Wait(Enum):
    """How a turn ends: the side to wait for next, or nothing left to move."""

    SOURCE = auto()
    CLIENT = auto()
    NOTHING = auto()


class Pump(ABC):
    """A subclass reads from the source.

    `source_fd` is the descriptor to wait on, -1 for a source that never blocks or that is waited for in another way.
    """

    def __init__(self, wire: Wire, client: ClientEnd, *, source_fd: int = -1) -> None:
        self._wire, self._client, self._source_fd = wire, client, source_fd
        self._loop = asyncio.get_running_loop()
        self._waits_for = Wait.NOTHING
        self._waits_since = 0.0
        self._in_line = False
        self._piece_bytes_max = PIECE_BYTES_MAX
        self._piece_ends = 0.0
        self._ended: asyncio.Future[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self.moved = 0  # of this piece
        self.moved_at = self._loop.time()  # when bytes were moved last
        self.source_seconds = 0.0  # spent waiting for the source, over all pieces

    @abstractmethod
    def _turn(self, size_max: int) -> Wait:
        """Move up to about `size_max` bytes, counting in `moved`. Raises ClientGoneError, and errors of the source."""

    def _source_deadline(self) -> float:
        """When a source that sends nothing counts as failed (loop time); read while the pump waits for it."""
        return math.inf

    def _source_stalled(self) -> Exception:
        """The error to raise at that deadline."""
        return TimeoutError()

    def _watch_source(self) -> None:
        """Call `_is_ready` whenever the source may have bytes, until `_unwatch_source`."""
        self._loop.add_reader(self._source_fd, self._is_ready)

    def _unwatch_source(self) -> None:
        self._loop.remove_reader(self._source_fd)

    @property
    def waits_for_client(self) -> bool:
        """Whether a piece is under way, and bytes are there that the client does not take now."""
        return self._waits_for is Wait.CLIENT

    def interrupt(self) -> None:
        """Where the piece under way waits for the source, end it as if the source had stalled."""
        if self._ended is not None and not self._ended.done() and self._waits_for is Wait.SOURCE:
            self._end(self._source_stalled())

    async def piece(self, size_max: int = PIECE_BYTES_MAX) -> int:
        """Move the next piece, of about `size_max` bytes at most; its size. The module says when it raises."""
        self.moved, self._piece_bytes_max = 0, size_max
        self._piece_ends = self._loop.time() + PIECE_SECONDS_MAX
        self._ended = self._loop.create_future()
        try:
            self._timer = self._loop.call_at(self._piece_ends, self._tick)
            self._is_ready()
            await self._ended
        finally:
            self._ended = None
            self._watch(Wait.NOTHING)
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None
        return self.moved

    def _is_ready(self) -> None:
        """A descriptor is ready: take a turn, now or in line."""
        if self._in_line:
            self._watch(Wait.NOTHING)  # a turn is due already: the loop need not call again in each round
        else:
            self._in_line = True
            self._wire.ready(self._next_in_line)

    def _next_in_line(self) -> None:
        self._in_line = False
        self._run_turn()

    def _run_turn(self) -> None:
        if self._ended is None or self._ended.done():
            return
        if self._client.is_gone:
            self._end(ClientGoneError())
            return
        before = self.moved
        try:
            waits_for = self._turn(min(TURN_BYTES_MAX, self._piece_bytes_max - self.moved))
            if self.moved > before:
                self.moved_at = self._loop.time()
            is_whole = waits_for is Wait.NOTHING or self.moved >= self._piece_bytes_max
            if is_whole or (self.moved and self._loop.time() >= self._piece_ends):
                self._end()
            else:
                self._watch(waits_for)
        except Exception as error:  # the loop may not be able to watch a descriptor (ENOSPC): this body fails alone
            self._end(error)

    def _tick(self) -> None:
        """A deadline may have come: the piece's, the source's or the client's."""
        if self._ended is None or self._ended.done():
            return
        now = self._loop.time()
        if self.moved and now >= self._piece_ends:
            self._end()
            return
        if now >= self._stall_deadline():
            self._run_turn()  # a last look: bytes that are there count, however late the loop is
            if self._ended.done():
                return
            if now >= self._stall_deadline():
                self._end(self._stalled())
                return
        self._timer = self._loop.call_at(self._next_deadline(), self._tick)

    def _stall_deadline(self) -> float:
        """When the side that the pump waits for counts as failed."""
        match self._waits_for:
            case Wait.SOURCE:
                return self._source_deadline()
            case Wait.CLIENT:
                return self._waits_since + CLIENT_STALL_SECONDS_MAX
        return math.inf

    def _stalled(self) -> Exception:
        if self._waits_for is Wait.SOURCE:
            return self._source_stalled()
        return ClientGoneError(f"it took nothing for {CLIENT_STALL_SECONDS_MAX:g} s")

    def _next_deadline(self) -> float:
        now = self._loop.time()
        return min(self._piece_ends if self._piece_ends > now else now + PIECE_SECONDS_MAX, self._stall_deadline())

    def _end(self, error: Exception | None = None) -> None:
        assert self._ended is not None
        if error is not None and not self.moved:
            self._ended.set_exception(error)
        else:
            self._ended.set_result(None)

    def _watch(self, waits_for: Wait) -> None:
        """Have the loop call when this side is ready, and only then."""
        if waits_for is self._waits_for:
            return
        now = self._loop.time()
        if self._waits_for is Wait.SOURCE:
            self._unwatch_source()
            self.source_seconds += now - self._waits_since
        elif self._waits_for is Wait.CLIENT:
            self._loop.remove_writer(self._client.fd)
        self._waits_for = Wait.NOTHING  # should the next line fail
        if waits_for is Wait.SOURCE:
            self._watch_source()
        elif waits_for is Wait.CLIENT:
            self._loop.add_writer(self._client.fd, self._is_ready)
        self._waits_for, self._waits_since = waits_for, now
        if self._timer is not None and self._timer.when() > (deadline := self._stall_deadline()):
            self._timer.cancel()
            self._timer = self._loop.call_at(deadline, self._tick)
