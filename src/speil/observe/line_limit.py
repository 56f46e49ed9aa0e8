"""How many lines a stranger may cause: so many a minute by key, and so many for all keys.

if (left_out := limit.due(address)) is not None:
    log.warning("…", left_out=left_out or None)
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable

LINES_PER_MINUTE_MAX = 10  # of one key
ALL_LINES_PER_MINUTE_MAX = 60  # whoever has many keys gets no more than this
KEYS_MAX = 256  # remembered
_MINUTE_SECONDS = 60.0


class LineLimit:
    """Keys are what an attacker can't choose at will: an address or prefix, a layer; not a peer id."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._windows: OrderedDict[str, _Window] = OrderedDict()
        self._all = _Window(clock())

    def due(self, key: str) -> int | None:
        """Whether a line may be written now: how many were left out before it, None where it is left out itself."""
        now = self._clock()
        window = self._windows.pop(key, None) or _Window(now)
        self._windows[key] = window
        if len(self._windows) > KEYS_MAX:
            self._windows.popitem(last=False)
        window.roll(now)
        self._all.roll(now)
        if window.written >= LINES_PER_MINUTE_MAX or self._all.written >= ALL_LINES_PER_MINUTE_MAX:
            window.left_out += 1
            return None
        window.written += 1
        self._all.written += 1
        left_out, window.left_out = window.left_out, 0
        return left_out


class _Window:
    __slots__ = ("began", "left_out", "written")

    def __init__(self, now: float) -> None:
        self.began, self.written, self.left_out = now, 0, 0

    def roll(self, now: float) -> None:
        if now - self.began >= _MINUTE_SECONDS:
            self.began, self.written = now, 0
