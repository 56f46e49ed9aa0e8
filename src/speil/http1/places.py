"""Places for connections: so many in all, so many of one address or prefix, some kept for this node's own.

A port that is full closes what waits rather than whom it would serve: the connection that has been idle the longest, of
whoever has most. So a stranger that holds all places it may have costs nobody else one.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

from speil.token_bucket import Buckets

# that one address or prefix may open; whoever keeps its connections needs few. One costs a third of a millisecond
OPENED_BURST, OPENED_PER_SECOND = 512, 32.0
RATES_MAX = 4096  # addresses and prefixes whose rate is remembered


class Refusal(StrEnum):
    """Why a connection was refused or closed; the text is a metric's label."""

    ADDRESS = "too_many_from_address"
    FAST = "too_fast"
    FULL = "too_many"
    MADE_WAY = "made_way"  # it was idle, and its place was needed
    NO_HEAD = "no_head"  # no whole request in time
    DESCRIPTORS = "no_descriptor"  # it was idle, and the system had none left


@dataclass(frozen=True, slots=True)
class Bounds:
    """Of one port."""

    total: int
    own: int  # of these, kept for this node's own
    per_share: int  # of one address or prefix that is not this node's own

    def within(self, total_max: int) -> Bounds:
        """The same in proportion, with fewer in all."""
        if total_max >= self.total:
            return self
        part = max(total_max, 8) / self.total
        return Bounds(max(total_max, 8), max(int(self.own * part), 2), max(int(self.per_share * part), 2))


@dataclass(eq=False, slots=True)
class Place:
    """One connection, counted against `share`; `close` ends it at once."""

    host: str
    share: str
    is_own: bool
    close: Callable[[], None]
    has_left: bool = False


class Places:
    """Counts connections and says who makes way. Times are the caller's monotonic seconds."""

    def __init__(self, bounds: Bounds) -> None:
        self._bounds = bounds
        self._held: Counter[str] = Counter()  # by share
        self._idle: dict[str, OrderedDict[Place, None]] = {}  # by share, longest idle first
        self._opened = Buckets(OPENED_BURST, OPENED_PER_SECOND, RATES_MAX)
        self.count, self._strangers = 0, 0

    def come(
        self, host: str, share: str, now: float, close: Callable[[], None], *, is_own: bool
    ) -> tuple[Place | Refusal, Place | None]:
        """A place for one more, idle at first, or why there is none; and who has to make way: the caller closes it."""
        leaver: Place | None = None
        if not is_own:
            bucket = self._opened.of(share, now)
            if not bucket.take(now):
                return Refusal.FAST, None
            if self._held[share] >= self._bounds.per_share:
                leaver = next(iter(self._idle.get(share, ())), None)
                if leaver is None:
                    return Refusal.ADDRESS, None
        if leaver is None and self._is_full(is_own):
            leaver = self._longest_idle_of_most(share, is_own)
            if leaver is None:
                return Refusal.FULL, None
        if leaver is not None:
            self.leave(leaver)
        place = Place(host, share, is_own, close)
        self._held[share] += 1
        self.count += 1
        self._strangers += not is_own
        self.rest(place)
        return place, leaver

    def work(self, place: Place) -> None:
        """A request is being answered there."""
        self._forget_idle(place)

    def rest(self, place: Place) -> None:
        """It waits for a request."""
        if not place.has_left:
            self._idle.setdefault(place.share, OrderedDict())[place] = None

    def proved(self, place: Place) -> None:
        """It is this node's own after all."""
        if not place.is_own and not place.has_left:
            place.is_own = True
            self._strangers -= 1

    def leave(self, place: Place) -> None:
        """It is gone, or about to."""
        if place.has_left:
            return
        place.has_left = True
        self._forget_idle(place)
        self.count -= 1
        self._strangers -= not place.is_own
        self._held[place.share] -= 1
        if not self._held[place.share]:
            del self._held[place.share]

    def idle_of_strangers(self, count: int) -> list[Place]:
        """Up to so many that wait and are not this node's own; they have not left yet."""
        found: list[Place] = []
        for places in self._idle.values():
            found += [place for place in places if not place.is_own][: count - len(found)]
        return found

    def _is_full(self, is_own: bool) -> bool:
        if self.count >= self._bounds.total:
            return True
        return not is_own and self._strangers >= self._bounds.total - self._bounds.own

    def _longest_idle_of_most(self, share: str, is_own: bool) -> Place | None:
        """This node's own keep what is kept for them; a stranger takes no place of who has no more than it."""
        most, found = 0 if is_own else self._held[share], None
        takes_own = self.count - self._strangers > self._bounds.own
        for other, places in self._idle.items():
            first = next(iter(places))
            if self._held[other] > most and (takes_own or not first.is_own):
                most, found = self._held[other], first
        if found is None and is_own:
            found = next((next(iter(places)) for places in self._idle.values() if next(iter(places)).is_own), None)
        return found

    def _forget_idle(self, place: Place) -> None:
        places = self._idle.get(place.share)
        if places is not None:
            places.pop(place, None)
            if not places:
                del self._idle[place.share]
