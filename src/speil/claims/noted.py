"""Notes about peers and keys. They expire, and their number is bounded."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable
from typing import Generic, TypeVar

SHARES_MAX = 4  # noted for one name; two are enough

Name = TypeVar("Name", bound=Hashable)


class Noted(Generic[Name]):
    """The shares that reported a name lately. Above `names_max` the names that were noted longest ago are dropped."""

    def __init__(self, seconds: float, names_max: int) -> None:
        """A note is valid for `seconds`."""
        self._seconds, self._names_max = seconds, names_max
        self._notes: OrderedDict[Name, dict[str, float]] = OrderedDict()

    def note(self, name: Name, now: float, share: str = "") -> None:
        """Note that `share` reported `name`."""
        said = {one: until for one, until in self._notes.pop(name, {}).items() if until > now}
        if share in said or len(said) < SHARES_MAX:
            said[share] = now + self._seconds
        self._notes[name] = said
        if len(self._notes) > self._names_max:
            self._notes.popitem(last=False)

    def forget(self, name: Name) -> None:
        """Remove all notes about `name`."""
        self._notes.pop(name, None)

    def count(self, name: Name, now: float) -> int:
        """How many shares reported `name`, and their notes are still valid."""
        said = self._notes.get(name)
        return sum(until > now for until in said.values()) if said else 0

    def last(self, count: int, now: float) -> tuple[Name, ...]:
        """Up to `count` names with a valid note, the latest first."""
        valid = (name for name in reversed(self._notes) if self.count(name, now))
        return tuple(name for _, name in zip(range(count), valid, strict=False))
