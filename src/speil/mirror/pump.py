"""Moves a body to a client's socket on the event loop, without a byte in Python.

A pump is a small machine that the loop calls when a descriptor is ready. It moves bytes until one side would block,
then waits for that side alone: while the client is slow, nothing is taken from the source, and no time is held against
it. Two clocks run, never both: the source's while there is room for its bytes and none come, the client's while there
are bytes for it and it takes none.

A body is moved in pieces, so that whoever drives it sees progress. A piece ends after some bytes or some time, but
never empty: it tells of at least one byte, or raises. What was moved before a failure is told first, and the failure is
raised by the next piece.
"""

from __future__ import annotations

import asyncio
import math
from abc import ABC, abstractmethod
from enum import Enum, auto
from typing import Protocol

from speil.mirror.wire import TURN_BYTES_MAX, Wire

PIECE_BYTES_MAX = 16 << 20  # so that what was moved is known to within this when something ends
PIECE_SECONDS_MAX = 1.0  # the same for slow transfers
CLIENT_STALL_SECONDS_MAX = 300.0  # containerd's own limit for a pull without progress (image_pull_progress_timeout)


class ClientGoneError(Exception):
    """The client closed the connection before the end, or takes nothing more: nobody's failure."""


class ClientEnd(Protocol):
    """The client's socket, as a pump sees it."""

    @property
    def fd(self) -> int:
        """A non-blocking descriptor that nobody else writes to meanwhile."""

    @property
    def is_gone(self) -> bool:
        """Whether the connection is closed or closing."""


class Wait(Enum):
    """What a turn ends with: the side to wait for, or nothing left to move."""

    SOURCE = auto()
    CLIENT = auto()
    NOTHING = auto()


class Pump(ABC):
    """The machine; a subclass knows the source. `source_fd` is what to wait on where it can block."""

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
        self.source_seconds = 0.0  # spent waiting for the source, over all pieces

    @abstractmethod
    def _turn(self, size_max: int) -> Wait:
        """Move up to about `size_max` bytes, counting in `moved`. Raises what the source failed of, ClientGoneError."""

    def _source_deadline(self) -> float:
        """When a source that sends nothing has failed, while it is waited for."""
        return math.inf

    def _source_stalled(self) -> Exception:
        """What it then failed of."""
        return TimeoutError()

    async def piece(self, size_max: int = PIECE_BYTES_MAX) -> int:
        """Move the next piece; its size. See the module for what is raised when."""
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
        """The loop says that we need not wait: take a turn, now or in line."""
        if self._in_line:
            self._watch(Wait.NOTHING)  # the line is long: no need to be told again in each round
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
        try:
            waits_for = self._turn(min(TURN_BYTES_MAX, self._piece_bytes_max - self.moved))
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
            self._run_turn()  # a last look: what is there counts, however late the loop got here
            if self._ended.done():
                return
            if now >= self._stall_deadline():
                self._end(self._stalled())
                return
        self._timer = self._loop.call_at(self._next_deadline(), self._tick)

    def _stall_deadline(self) -> float:
        """When whom we wait for has failed."""
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
        """Have the loop call us when this side is ready, and only then."""
        if waits_for is self._waits_for:
            return
        now = self._loop.time()
        if self._waits_for is Wait.SOURCE:
            self._loop.remove_reader(self._source_fd)
            self.source_seconds += now - self._waits_since
        elif self._waits_for is Wait.CLIENT:
            self._loop.remove_writer(self._client.fd)
        self._waits_for = Wait.NOTHING  # should the next line fail
        if waits_for is Wait.SOURCE:
            self._loop.add_reader(self._source_fd, self._is_ready)
        elif waits_for is Wait.CLIENT:
            self._loop.add_writer(self._client.fd, self._is_ready)
        self._waits_for, self._waits_since = waits_for, now
        if self._timer is not None and self._timer.when() > (deadline := self._stall_deadline()):
            self._timer.cancel()
            self._timer = self._loop.call_at(deadline, self._tick)
