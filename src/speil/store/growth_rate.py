"""How fast content arrives at this node, over all its ingests together."""

from __future__ import annotations

from collections import deque

WINDOW_SECONDS = 2.0  # longer than a pause between two layers, shorter than most layers
SLOT_SECONDS = 0.1  # growth within it is added up: at most 20 slots


class GrowthRate:
    """Times are monotonic seconds."""

    def __init__(self) -> None:
        self._slots: deque[tuple[float, int]] = deque()
        self._last = 0.0  # while nothing grows

    def grew(self, size: int, now: float) -> None:
        """`size` more bytes are there."""
        if self._slots and now - self._slots[-1][0] < SLOT_SECONDS:
            begun, before = self._slots[-1]
            self._slots[-1] = begun, before + size
        else:
            self._slots.append((now, size))
        self._last = self._rate(now) or self._last

    def bytes_per_second(self, now: float) -> float:
        """The rate in the last WINDOW_SECONDS; where nothing grew in them, the one before. 0.0 at first."""
        return self._rate(now) or self._last

    def _rate(self, now: float) -> float:
        while self._slots and now - self._slots[0][0] > WINDOW_SECONDS:
            self._slots.popleft()
        if not self._slots:
            return 0.0
        # the first second of a download would be an overestimate by its own few slots
        return sum(size for _, size in self._slots) / max(now - self._slots[0][0], WINDOW_SECONDS / 2)
