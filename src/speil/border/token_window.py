"""The first second of issue from which tokens of peers are valid: after a restart no token may be used again.

The window starts with the process: a token that was issued earlier may have been used earlier. This does not cover
tokens of an issuer whose clock is ahead of this node's: they are issued later than they are used. The latest second of
such tokens is stored in the data directory, and the next process starts its window after it. Without a data directory a
token of a peer whose clock is ahead could be used once more after a restart, within its validity of a minute.
"""

from __future__ import annotations

from pathlib import Path

from speil.border.kept import KeptFact
from speil.region.token import TOKEN_SECONDS_MAX

FILE_NAME = "tokens.json"
RESTART_SECONDS_MIN = 1.0  # no process restarts faster: a token that is less far ahead is older than the restart
AHEAD_SECONDS = 10  # stored in advance, so that a peer whose clock is ahead costs one write in ten seconds


class TokenWindow:
    """`since` is the first valid second of issue; `now` is the wall clock in seconds."""

    def __init__(self, data_dir: Path | None, now: float) -> None:
        self._kept = KeptFact(data_dir, FILE_NAME, "up to when tokens were used")
        until = self._kept.load().get("until")
        # No token is valid further ahead: the clock was set back since then.
        sane_max = now + TOKEN_SECONDS_MAX + AHEAD_SECONDS
        self._until = until if isinstance(until, int) and until <= sane_max else 0
        self.since = max(int(now), self._until + 1)

    def taken(self, issued: int, now: float) -> None:
        """A token was used; `issued` is its second of issue."""
        if issued > now + RESTART_SECONDS_MIN and issued > self._until:
            self._until = issued + AHEAD_SECONDS
            self._kept.save({"until": self._until})
