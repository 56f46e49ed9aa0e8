"""Decides when to log a failure that lasts: at its beginning, when it changes, and from time to time."""

from __future__ import annotations

import time
from collections.abc import Callable

CHANGED_SECONDS = 5.0  # between two different lines: failures that alternate do not fill the log
AGAIN_SECONDS = 60.0  # between two equal lines


class Seldom:
    """One for each thing that can fail. `again_seconds` lie between two equal lines."""

    def __init__(self, again_seconds: float = AGAIN_SECONDS, clock: Callable[[], float] = time.monotonic) -> None:
        self._again_seconds, self._clock = again_seconds, clock
        self._said, self._said_at = "", float("-inf")

    def due(self, text: str) -> bool:
        """Whether to log `text` now. If so, it counts as logged."""
        now = self._clock()
        wait = self._again_seconds if text == self._said else min(CHANGED_SECONDS, self._again_seconds)
        if now - self._said_at < wait:
            return False
        self._said, self._said_at = text, now
        return True

    def over(self) -> bool:
        """It works again: the next failure is a new one. Returns whether a failure had been logged."""
        said, self._said = self._said, ""
        return bool(said)
