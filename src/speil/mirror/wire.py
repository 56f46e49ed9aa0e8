"""What all bodies on their way share: the pipes, the turns, and whether bytes may pass without being copied.

The event loop goes round; in each round every body that can move has one turn. A turn is bounded, and so is the round
(the more bodies, the shorter their turns), because everything else on the node waits for it: a probe, a lookup, a
manifest.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from speil.mirror.pipes import PipePool

ROUND_BYTES = 16 << 20  # about 5 ms at the speed of a relay
TURN_BYTES_MAX = 1 << 20
TURN_BYTES_MIN = 64 << 10  # below it a turn costs more than its bytes


class Wire:
    """One for each node."""

    def __init__(self, *, zero_copy: bool = True) -> None:
        """Without `zero_copy` every body is copied, whatever the sockets and the kernel allow."""
        self.zero_copy = zero_copy
        self.pipes = PipePool()
        self._moving = 0

    @property
    def turn_bytes(self) -> int:
        """How much a body may move before the others have their turn."""
        return max(min(ROUND_BYTES // max(self._moving, 1), TURN_BYTES_MAX), TURN_BYTES_MIN)

    @contextmanager
    def moving(self) -> Iterator[None]:
        """A body takes part in the rounds."""
        self._moving += 1
        try:
            yield
        finally:
            self._moving -= 1

    def close(self) -> None:
        """Close what is idle."""
        self.pipes.close()
