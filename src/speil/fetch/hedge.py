"""How long to wait for a peer's head before a second peer is asked as well.

A high percentile of the time to the first byte. Waits that came to nothing count with the time they took, or an
overloaded start would teach that peers are quick; a quick refusal does not count, it says nothing about answers. The
delay stays between two bounds: no past can teach the node never to ask a second peer, or to ask all at once.
"""

from __future__ import annotations

from collections import deque

HEDGE_SECONDS_MIN, HEDGE_SECONDS_MAX = 0.03, 0.3
SAMPLES_MAX = 100
PERCENTILE = 0.9


class HedgeDelay:
    """Learns from samples, oldest forgotten first."""

    def __init__(self) -> None:
        self._samples: deque[float] = deque(maxlen=SAMPLES_MAX)

    def add(self, seconds: float) -> None:
        """A head came, or was waited for in vain, this long."""
        self._samples.append(seconds)

    @property
    def seconds(self) -> float:
        """The delay now."""
        if not self._samples:
            return HEDGE_SECONDS_MIN
        ordered = sorted(self._samples)
        found = ordered[min(int(len(ordered) * PERCENTILE), len(ordered) - 1)]
        return min(max(found, HEDGE_SECONDS_MIN), HEDGE_SECONDS_MAX)
