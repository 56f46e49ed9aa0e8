"""From which second of issue on peers' tokens count: a restart must not forget that one was used.

The window starts with the process: what was issued before may have been used before. That says nothing of tokens whose
issuer's clock is ahead of ours, which are issued later than they are used. Up to which second such tokens were taken is
kept in the data directory; the next process starts its window behind it. Without a data directory a token of a peer
whose clock is ahead could be used once more after a restart, within the minute that it is good for.
"""

from __future__ import annotations

from pathlib import Path

from speil.border.kept import KeptFact
from speil.region.token import TOKEN_SECONDS_MAX

FILE_NAME = "tokens.json"
RESTART_SECONDS_MIN = 1.0  # no process ends and begins anew in less: tokens that are less ahead are issued before it
AHEAD_SECONDS = 10  # written in advance, so that a peer whose clock is ahead costs one write in ten seconds


class TokenWindow:
    """`since` is the first second of issue that counts; `now` is the wall clock."""

    def __init__(self, data_dir: Path | None, now: float) -> None:
        self._kept = KeptFact(data_dir, FILE_NAME, "up to when tokens were used")
        until = self._kept.load().get("until")
        # further ahead no token is taken: the clock was set back since
        sane_max = now + TOKEN_SECONDS_MAX + AHEAD_SECONDS
        self._until = until if isinstance(until, int) and until <= sane_max else 0
        self.since = max(int(now), self._until + 1)

    def taken(self, issued: int, now: float) -> None:
        """A token counted."""
        if issued > now + RESTART_SECONDS_MIN and issued > self._until:
            self._until = issued + AHEAD_SECONDS
            self._kept.save({"until": self._until})
