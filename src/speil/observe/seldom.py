"""What goes on failing is said when it begins, when it changes, and now and then while it lasts."""

from __future__ import annotations

import time
from collections.abc import Callable

CHANGED_SECONDS = 5.0  # between two different lines: what fails in turns fills no log
AGAIN_SECONDS = 60.0  # between two equal lines


class Seldom:
    """Whether a line is due. One for each thing that can fail."""

    def __init__(self, again_seconds: float = AGAIN_SECONDS, clock: Callable[[], float] = time.monotonic) -> None:
        self._again_seconds, self._clock = again_seconds, clock
        self._said, self._said_at = "", float("-inf")

    def due(self, text: str) -> bool:
        """Whether to say `text` now; if so, it counts as said."""
        now = self._clock()
        wait = self._again_seconds if text == self._said else min(CHANGED_SECONDS, self._again_seconds)
        if now - self._said_at < wait:
            return False
        self._said, self._said_at = text, now
        return True

    def over(self) -> bool:
        """It works again: the next failure is another one. Whether a failure had been said."""
        said, self._said = self._said, ""
        return bool(said)
