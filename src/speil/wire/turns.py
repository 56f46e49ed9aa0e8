"""What all bodies of a node share: the pipes, whether the kernel may move them, and the turns.

Everything else on the event loop waits while a body has its turn: a probe, a lookup, a manifest. So a turn ends after
some bytes or some time, and after some milliseconds of turns the event loop goes round once before the next turn. The
time of bodies that are copied and of requests that begin can't be bounded like that; they are counted. While requests
wait to begin, bodies get less time: a client notices a late first byte, and not a late thousandth.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable

from speil.observe.logs import get_log
from speil.wire.holes import Holes
from speil.wire.pipes import PipePool
from speil.wire.turnstile import Turnstile

ROUND_SECONDS_MAX = 0.005  # of turns in a row; a probe takes four or five rounds from its connection to its answer
# A socket that was full is ready again when a third of its buffer is free: with the kernel's largest buffer some
# 1.3 MiB. One turn takes that, because each further wake-up costs as much as sending 256 KiB.
TURN_BYTES_MAX = 2 << 20
TURN_SECONDS_MAX = 0.001  # no further system call after that
CALL_BYTES_MAX = 512 << 10  # of one system call: a part of a millisecond, and what a slow disk may block the loop for

SHORT_ROUND_SECONDS_MAX = 0.001  # while requests wait to begin
STARTS_PER_ROUND = 5  # requests; each costs half a millisecond, a relay two before its body moves
COPIES_PER_ROUND = 16  # of at most file_body.COPY_BYTES each: some milliseconds

log = get_log("wire")


class Wire:
    """One for each node. Close it."""

    def __init__(self, *, zero_copy: bool = True) -> None:
        """Without `zero_copy` every body is copied."""
        self.zero_copy = zero_copy
        self.splices = zero_copy  # until the kernel refuses
        self.pipes = PipePool()
        self.holes = Holes()
        self.copies = Turnstile(COPIES_PER_ROUND)
        self.starts = Turnstile(STARTS_PER_ROUND)
        self._line: deque[Callable[[], None]] = deque()
        self._spent_seconds = 0.0  # on turns since the event loop last went round

    @property
    def waiting_count(self) -> int:
        """How many bodies wait for a turn."""
        return len(self._line)

    def ready(self, turn: Callable[[], None]) -> None:
        """Call `turn` now or, where this round's time is used up, in a later round of the event loop."""
        if not self._line and self._spent_seconds < self._round_seconds_max:
            self._take(turn)
            return
        if not self._line:
            asyncio.get_running_loop().call_soon(self._round)
        self._line.append(turn)

    def close(self) -> None:
        """Close the idle pipes."""
        self.pipes.close()

    @property
    def _round_seconds_max(self) -> float:
        return SHORT_ROUND_SECONDS_MAX if self.starts.has_line else ROUND_SECONDS_MAX

    def _round(self) -> None:
        self._spent_seconds = 0.0
        while self._line and self._spent_seconds < self._round_seconds_max:
            self._take(self._line.popleft())
        if self._line:
            asyncio.get_running_loop().call_soon(self._round)

    def _take(self, turn: Callable[[], None]) -> None:
        """Run one turn; an error in it does not end the round for the others."""
        began = time.monotonic()
        try:
            turn()
        except Exception as error:
            log.exception("a turn of a body failed", error)
        self._spent_seconds += time.monotonic() - began
