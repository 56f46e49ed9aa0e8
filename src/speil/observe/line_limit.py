"""Limits how many log lines strangers can cause: so many a minute for each key, and for all keys together.

if (left_out := limit.due(address)) is not None:
    log.warning("…", left_out=left_out or None)
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable

LINES_PER_MINUTE_MAX = 10  # for one key
ALL_LINES_PER_MINUTE_MAX = 60  # for all keys: a stranger with many keys gets no more
KEYS_MAX = 256  # windows that are kept; the oldest goes first
_MINUTE_SECONDS = 60.0


class LineLimit:
    """A key must be something that an attacker can't make up: an address, a prefix or a layer, not a peer id."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._windows: OrderedDict[str, _Window] = OrderedDict()
        self._all = _Window(clock())

    def due(self, key: str) -> int | None:
        """None: leave this line out. Else write it; the number is how many of this key were left out before it."""
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
