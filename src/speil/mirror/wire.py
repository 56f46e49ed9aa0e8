"""What all requests share on their way: the pipes, whether bodies may pass without being copied, and the turns.

Everything else on the node waits while a body has its turn: a probe, a lookup, a manifest. So turns are short, and
after some milliseconds of them the event loop goes round once before the next: whoever is ready by then has to stand in
line. Bodies that are copied and requests that begin can't be measured like that; they are counted. While requests wait
to be begun, bodies get less: a client's first byte is waited for, its thousandth is not.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

from speil.mirror.pipes import PipePool
from speil.mirror.turnstile import Turnstile
from speil.observe.logs import get_log

ROUND_SECONDS_MAX = 0.005  # of turns in a row; a probe takes four or five rounds from its connection to its answer
TURN_BYTES_MAX = 256 << 10  # a fraction of a millisecond; larger turns save little CPU and make manifests wait

SHORT_ROUND_SECONDS_MAX = 0.001  # while requests wait to be begun
STARTS_PER_ROUND = 5  # requests; each costs half a millisecond, a relay two before its body moves
COPIES_PER_ROUND = 16  # of at most COPY_BYTES each: some milliseconds

log = get_log("mirror")


class Wire:
    """One for each node."""

    def __init__(self, *, zero_copy: bool = True) -> None:
        """Without `zero_copy` every body is copied, whatever the sockets and the kernel allow."""
        self.zero_copy = zero_copy
        self.splices = zero_copy  # until the kernel says that it does not
        self.pipes = PipePool()
        self.copies = Turnstile(COPIES_PER_ROUND)
        self.starts = Turnstile(STARTS_PER_ROUND)
        self._line: deque[Callable[[], None]] = deque()
        self._round_began = 0.0

    @property
    def waiting_count(self) -> int:
        """How many bodies stand in line."""
        return len(self._line)

    def ready(self, turn: Callable[[], None]) -> None:
        """Call `turn` now or, where others have had enough turns in a row, when the loop has gone round."""
        loop = asyncio.get_running_loop()
        if not self._line and loop.time() - self._round_began < self._round_seconds_max:
            self._take(turn)
            return
        if not self._line:
            loop.call_soon(self._round)
        self._line.append(turn)

    def close(self) -> None:
        """Close what is idle."""
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
        """An error is that turn's alone: the round goes on for all others."""
        try:
            turn()
        except Exception as error:
            log.exception("a body's turn failed", error)
