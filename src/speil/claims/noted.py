"""What is remembered of peers and keys for a while, within a bound."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable
from typing import Generic, TypeVar

SHARES_MAX = 4  # noted for one name; two are enough

Name = TypeVar("Name", bound=Hashable)


class Noted(Generic[Name]):
    """Which shares said something of a name lately. The names that were noted longest ago are dropped."""

    def __init__(self, seconds: float, names_max: int) -> None:
        """A note is valid for `seconds`."""
        self._seconds, self._names_max = seconds, names_max
        self._notes: OrderedDict[Name, dict[str, float]] = OrderedDict()

    def note(self, name: Name, now: float, share: str = "") -> None:
        """`share` says it of `name`."""
        said = {one: until for one, until in self._notes.pop(name, {}).items() if until > now}
        if share in said or len(said) < SHARES_MAX:
            said[share] = now + self._seconds
        self._notes[name] = said
        if len(self._notes) > self._names_max:
            self._notes.popitem(last=False)

    def forget(self, name: Name) -> None:
        """Nothing is noted of `name` any more."""
        self._notes.pop(name, None)

    def count(self, name: Name, now: float) -> int:
        """How many shares said it of `name`."""
        said = self._notes.get(name)
        return sum(until > now for until in said.values()) if said else 0

    def last(self, count: int, now: float) -> tuple[Name, ...]:
        """Up to `count` names, the last one noted in front."""
        valid = (name for name in reversed(self._notes) if self.count(name, now))
        return tuple(name for _, name in zip(range(count), valid, strict=False))
