"""What to announce when: new keys at once, each key anew before its records run out, never all in one moment.

A key that has been announced comes up again after REPROVIDE_SECONDS, up to a tenth earlier, by chance: so a node's
keys spread over the interval, and nodes that started together drift apart.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from random import Random

REPROVIDE_SECONDS = 15 * 60.0  # Spegel's; records are valid for 19 minutes
EARLY_SHARE_MAX = 0.1
RETRY_SECONDS = 10.0  # for keys that reached nobody
KEYS_MAX = 200_000  # a node with more content than this announces a part of it


class ProvideSchedule:
    """Keys and when they are due; times are the caller's monotonic seconds."""

    def __init__(self, rng: Random) -> None:
        self._rng = rng
        self._due: dict[str, float] = {}
        self._queue: list[tuple[float, str]] = []

    def __len__(self) -> int:
        return len(self._due)

    def __iter__(self) -> Iterator[str]:
        return iter(list(self._due))

    def __contains__(self, key: str) -> bool:
        return key in self._due

    def add(self, keys: Iterable[str], now: float) -> None:
        """Announce `keys` from now on; those that are announced already stay as they are."""
        for key in keys:
            if key not in self._due and len(self._due) < KEYS_MAX:
                self._plan(key, now)

    def remove(self, keys: Iterable[str]) -> None:
        """Announce `keys` no more."""
        for key in keys:
            self._due.pop(key, None)

    def due(self, now: float, count_max: int) -> list[str]:
        """Up to `count_max` keys to announce now; `announced` or `failed` must follow for each."""
        found: list[str] = []
        while self._queue and self._queue[0][0] <= now and len(found) < count_max:
            time, key = heapq.heappop(self._queue)
            if self._due.get(key) == time:  # an entry that was withdrawn or planned anew is stale
                found.append(key)
        return found

    def announced(self, keys: Iterable[str], now: float) -> None:
        """Records are out: plan the next time."""
        for key in keys:
            if key in self._due:
                self._plan(key, now + REPROVIDE_SECONDS * (1 - self._rng.random() * EARLY_SHARE_MAX))

    def failed(self, keys: Iterable[str], now: float) -> None:
        """Nobody took them: try again soon."""
        for key in keys:
            if key in self._due:
                self._plan(key, now + RETRY_SECONDS)

    def next_deadline(self) -> float | None:
        """When the next key is due."""
        return self._queue[0][0] if self._queue else None

    def _plan(self, key: str, time: float) -> None:
        self._due[key] = time
        heapq.heappush(self._queue, (time, key))
