"""What to announce when: new keys at once, all others in an endless sweep over the key space.

Keys that are near each other have the same closest nodes, so they should be announced together, and a node's keys
should be spread over the interval. One rule gives both: the time of a key follows from its position. The sweep covers
the whole space in SWEEP_SECONDS, from a random start of each node, and a key is due when the sweep reaches it. A key
that was announced is left out of the next sweep: its record is valid for longer than two sweeps.

A key that needed no record of this node is due again within LOOK_SECONDS_MAX, a key that was announced within
ANNOUNCE_SECONDS_MAX.
"""

from __future__ import annotations

import heapq
from bisect import bisect_left, insort
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from operator import attrgetter
from typing import TYPE_CHECKING

from speil.kad.key import BITS, Key

if TYPE_CHECKING:
    from random import Random

REPROVIDE_SECONDS = 15 * 60.0  # Spegel's; records are valid for 19 minutes
SWEEP_SECONDS = REPROVIDE_SECONDS / 2
EARLY_SECONDS = SWEEP_SECONDS / 4  # how long before its time a key may be announced with its neighbours
LOOK_SECONDS_MAX = SWEEP_SECONDS + EARLY_SECONDS
ANNOUNCE_SECONDS_MAX = REPROVIDE_SECONDS + EARLY_SECONDS
RETRY_SECONDS = 10.0  # for keys whose records reached no node
KEYS_MAX = 200_000  # a node with more keys announces a part of them
BATCH_MAX = 500  # neighbours at a time; finding the closest nodes for so many takes ten milliseconds
_POSITION = attrgetter("position")


@dataclass(slots=True)
class _Entry:
    key: Key
    is_new: bool = True
    due: float | None = None  # None while it is being announced
    was_due: float = 0.0  # what `due` was before that


class ProvideSchedule:
    """Keys and when they are due; times are the caller's monotonic seconds."""

    def __init__(self, rng: Random) -> None:
        self._start = rng.random() * SWEEP_SECONDS
        self._entries: dict[str, _Entry] = {}
        self._order: list[Key] = []
        self._new: list[Key] = []
        self._queue: list[tuple[float, int, str]] = []

    def __len__(self) -> int:
        return len(self._entries)

    def __iter__(self) -> Iterator[Key]:
        return iter(list(self._order))

    def __contains__(self, name: str) -> bool:
        return name in self._entries

    def add(self, names: Iterable[str], now: float) -> list[Key]:
        """Add keys, due now; keys that exist already are not changed. Returns the new ones."""
        added = []
        for name in names:
            if name not in self._entries and len(self._entries) < KEYS_MAX:
                key = Key.of(name)
                self._entries[name] = _Entry(key, due=now)
                added.append(key)
        if len(added) == 1:
            insort(self._order, added[0], key=_POSITION)
        else:
            self._order = sorted([*self._order, *added], key=_POSITION)
        self._new.extend(added)
        return added

    def remove(self, names: Iterable[str]) -> None:
        """Remove keys."""
        gone = {name for name in names if self._entries.pop(name, None)}
        if gone:
            self._order = [key for key in self._order if key.name not in gone]

    def take_new(self) -> list[Key]:
        """The keys added since the last call, in order of position. An outcome must follow for each."""
        new, self._new = self._new, []
        return sorted((self._take(key) for key in new if self._is_waiting(key)), key=_POSITION)

    def first_due(self, now: float) -> Key | None:
        """The key that is due first, None where none is due. `take_neighbours` must follow."""
        while self._queue and self._queue[0][0] <= now:
            due, _, name = self._queue[0]
            if (entry := self._entries.get(name)) and entry.due == due:
                return entry.key
            heapq.heappop(self._queue)  # it was removed, taken or rescheduled
        return None

    def take_neighbours(self, key: Key, shared_bits: int, now: float) -> list[Key]:
        """`key`, and the keys that share `shared_bits` with it and are due soon. An outcome must follow for each."""
        width = BITS - shared_bits
        low = key.position >> width << width
        found: list[Key] = []
        for index in range(bisect_left(self._order, low, key=_POSITION), len(self._order)):
            one = self._order[index]
            if one.position >> width << width != low or len(found) == BATCH_MAX:
                break
            due = self._entries[one.name].due
            if due is not None and (due <= now + EARLY_SECONDS or one == key):
                found.append(self._take(one))
        return found

    def is_new(self, key: Key) -> bool:
        """Whether a key had no outcome yet."""
        return (entry := self._entries.get(key.name)) is not None and entry.is_new

    def delay(self, keys: Iterable[Key], now: float) -> float:
        """For how many seconds the key that was due first has been due; 0 if none was due yet."""
        due = (entry.was_due for key in keys if (entry := self._entries.get(key.name)))
        return max(0.0, now - min(due, default=now))

    def announced(self, keys: Iterable[Key], now: float) -> None:
        """Outcome: records of this node were sent."""
        for key in keys:
            self._plan(key, self._passes(key, now + EARLY_SECONDS + REPROVIDE_SECONDS - SWEEP_SECONDS))

    def skipped(self, keys: Iterable[Key], now: float) -> None:
        """Outcome: enough other nodes provide them."""
        for key in keys:
            self._plan(key, self._passes(key, now + EARLY_SECONDS))

    def failed(self, keys: Iterable[Key], now: float) -> None:
        """Outcome: no node took the records. They are due again in RETRY_SECONDS."""
        for key in keys:
            self._plan(key, now + RETRY_SECONDS)

    def next_deadline(self) -> float | None:
        """The earliest time at which a key may be due; None without keys."""
        return self._queue[0][0] if self._queue else None

    def _passes(self, key: Key, after: float) -> float:
        """The first time after `after` at which the sweep reaches a key."""
        offset: float = self._start + key.position / 2**BITS * SWEEP_SECONDS
        return after + (offset - after) % SWEEP_SECONDS

    def _is_waiting(self, key: Key) -> bool:
        return (entry := self._entries.get(key.name)) is not None and entry.due is not None

    def _take(self, key: Key) -> Key:
        entry = self._entries[key.name]
        if entry.due is not None:
            entry.was_due, entry.due = entry.due, None
        return key

    def _plan(self, key: Key, time: float) -> None:
        if entry := self._entries.get(key.name):
            entry.is_new, entry.due = False, time
            heapq.heappush(self._queue, (time, key.position, key.name))
