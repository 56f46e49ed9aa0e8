"""How long to wait for a peer's head before a second peer is asked as well.

A high percentile of the time to the first byte. Waits without a response count with the time they took: otherwise an
overloaded start biases the estimated delay low. A quick refusal does not count: it says nothing about the time of a
response. Two bounds keep the delay sane: the node always asks a second peer some time, and never all at once.
"""

from __future__ import annotations

from collections import deque

HEDGE_SECONDS_MIN, HEDGE_SECONDS_MAX = 0.03, 0.3
SAMPLES_MAX = 100
PERCENTILE = 0.9


class HedgeDelay:
    """An estimate from the last SAMPLES_MAX samples."""

    def __init__(self) -> None:
        self._samples: deque[float] = deque(maxlen=SAMPLES_MAX)

    def add(self, seconds: float) -> None:
        """A response's head came after `seconds`, or had not come by then."""
        self._samples.append(seconds)

    @property
    def seconds(self) -> float:
        """How long to wait for the first peer's head, between HEDGE_SECONDS_MIN and HEDGE_SECONDS_MAX."""
        if not self._samples:
            return HEDGE_SECONDS_MIN
        ordered = sorted(self._samples)
        found = ordered[min(int(len(ordered) * PERCENTILE), len(ordered) - 1)]
        return min(max(found, HEDGE_SECONDS_MIN), HEDGE_SECONDS_MAX)
