"""Admission of connections to one port: a limit in all, a limit for each share, some reserved for this node's clients.

A share is an address or prefix whose connections are counted together. When the port is full, the connection that has
been idle the longest is closed, of the share that has the most connections. So one client that opens all connections
that it may have takes no place from others.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

from speil.token_bucket import Buckets

# new connections of one share; a client that keeps its connections needs few. Each costs a third of a millisecond
OPENED_BURST, OPENED_PER_SECOND = 512, 32.0
RATES_MAX = 4096  # shares whose rate is remembered


class Refusal(StrEnum):
    """Why a connection was refused or closed; the value is a metric label."""

    ADDRESS = "too_many_from_address"
    FAST = "too_fast"
    FULL = "too_many"
    MADE_WAY = "made_way"  # it was idle, and a new connection needed its place
    NO_HEAD = "no_head"  # it sent no whole head in time, or did not take its answers
    DESCRIPTORS = "no_descriptor"  # it was idle, and the process had no file descriptor left


@dataclass(frozen=True, slots=True)
class Bounds:
    """Limits on the open connections of one port."""

    total: int
    own: int  # of `total`, reserved for clients on this node
    per_share: int  # for each share that is not on this node

    def within(self, total_max: int) -> Bounds:
        """The same limits, reduced in proportion to at most `total_max` connections (but at least eight)."""
        if total_max >= self.total:
            return self
        part = max(total_max, 8) / self.total
        return Bounds(max(total_max, 8), max(int(self.own * part), 2), max(int(self.per_share * part), 2))


@dataclass(eq=False, slots=True)
class Place:
    """One open connection. `host` is the client's address, `close` aborts the connection."""

    host: str
    share: str
    is_own: bool
    close: Callable[[], None]
    has_left: bool = False


class Places:
    """Counts open connections and decides which one is closed for a new one. Times are monotonic seconds."""

    def __init__(self, bounds: Bounds) -> None:
        self._bounds = bounds
        self._held: Counter[str] = Counter()  # by share
        self._idle: dict[str, OrderedDict[Place, None]] = {}  # by share, longest idle first
        self._opened = Buckets(OPENED_BURST, OPENED_PER_SECOND, RATES_MAX)
        self.count, self._strangers = 0, 0

    def come(
        self, host: str, share: str, now: float, close: Callable[[], None], *, is_own: bool
    ) -> tuple[Place | Refusal, Place | None]:
        """The new connection's place (idle at first) or why it is refused; and the place that the caller must close."""
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
        """A request is being answered: the connection is not idle."""
        self._forget_idle(place)

    def rest(self, place: Place) -> None:
        """The connection waits for a request: it is idle."""
        if not place.has_left:
            self._idle.setdefault(place.share, OrderedDict())[place] = None

    def proved(self, place: Place) -> None:
        """The client proved that it is on this node."""
        if not place.is_own and not place.has_left:
            place.is_own = True
            self._strangers -= 1

    def leave(self, place: Place) -> None:
        """The connection is closed, or the caller is about to close it. Further calls do nothing."""
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
        """Up to `count` idle connections of clients that are not on this node. They still hold their places."""
        found: list[Place] = []
        for places in self._idle.values():
            found += [place for place in places if not place.is_own][: count - len(found)]
        return found

    def _is_full(self, is_own: bool) -> bool:
        if self.count >= self._bounds.total:
            return True
        return not is_own and self._strangers >= self._bounds.total - self._bounds.own

    def _longest_idle_of_most(self, share: str, is_own: bool) -> Place | None:
        """Reserved places stay with this node's clients. A stranger takes places of larger shares only."""
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
