"""What all bodies of a node share: the pipes, whether the kernel may move them, and the turns.

Everything else on the event loop waits while a body has its turn: a probe, a lookup, a manifest. So turns are short,
and after some milliseconds of them the event loop goes round once before the next turn. The time of bodies that are
copied and of requests that begin can't be bounded like that; they are counted. While requests wait to begin, bodies
get less time: a client notices a late first byte, and not a late thousandth.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

from speil.observe.logs import get_log
from speil.wire.pipes import PipePool
from speil.wire.turnstile import Turnstile

ROUND_SECONDS_MAX = 0.005  # of turns in a row; a probe takes four or five rounds from its connection to its answer
TURN_BYTES_MAX = 256 << 10  # a fraction of a millisecond; larger turns save little CPU and make manifests wait

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
        self.copies = Turnstile(COPIES_PER_ROUND)
        self.starts = Turnstile(STARTS_PER_ROUND)
        self._line: deque[Callable[[], None]] = deque()
        self._round_began = 0.0

    @property
    def waiting_count(self) -> int:
        """How many bodies wait for a turn."""
        return len(self._line)

    def ready(self, turn: Callable[[], None]) -> None:
        """Call `turn` now or, where this round's time is used up, in a later round of the event loop."""
        loop = asyncio.get_running_loop()
        if not self._line and loop.time() - self._round_began < self._round_seconds_max:
            self._take(turn)
            return
        if not self._line:
            loop.call_soon(self._round)
        self._line.append(turn)

    def close(self) -> None:
        """Close the idle pipes."""
        self.pipes.close()

    @property
    def _round_seconds_max(self) -> float:
        return SHORT_ROUND_SECONDS_MAX if self.starts.has_line else ROUND_SECONDS_MAX

    def _round(self) -> None:
        loop = asyncio.get_running_loop()
        self._round_began = loop.time()
        while self._line and loop.time() - self._round_began < self._round_seconds_max:
            self._take(self._line.popleft())
        if self._line:
            loop.call_soon(self._round)

    def _take(self, turn: Callable[[], None]) -> None:
        """Run one turn; an error in it does not end the round for the others."""
        try:
            turn()
        except Exception as error:
            log.exception("a turn of a body failed", error)
