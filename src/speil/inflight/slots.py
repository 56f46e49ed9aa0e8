"""containerd's download slots: a request that can't go on steps aside for those behind it in line.

containerd has three slots. Up to 2.0 a layer keeps its slot until it is complete. From 2.1 on each request waits in
line for a slot (`dockerFetcher.open`). The request for a layer that this node is to fetch is answered 404, and the
request to the upstream then waits behind the requests for all other layers. So

- a node would be told to fetch all layers before it begins the first, and other nodes would wait for the last one;
- requests before it in line may be held, because other nodes are to fetch these layers. If the same happens there,
  nodes wait for each other until the share wait ends, and each downloads a copy.

A request that steps aside gets a head, and FIN instead of the first byte. containerd asks again, at the end of the
line. A request that follows a download steps aside before its first byte

- while this node has not begun what it was told to fetch, and that is behind the request in line: the first time at
  once, so that all requests have been answered before the first download begins; the second time when the source has
  not begun either. Then all that this node fetches is in front, in the same order on every node;
- where the slots are full, and the source does not begin: another layer may have begun.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable, Sequence

from speil.claims.states import FETCHES, PullState
from speil.inflight.flight import Flight
from speil.oci import media_type
from speil.oci.digest import Digest
from speil.sources.base import BrokeOffError, Opened, Origin
from speil.wire.sink import Sink

SLOTS = 3  # containerd's default; with more of them a request steps aside a little early
# Seconds from the answer of the umpire until a request steps aside; the first time, and the second. containerd fails a
# pull with the fourth body in a row that ends before its first byte: one is left for the upstream.
BEFORE_DOWNLOADS = (0.0, 0.2)  # a source that has begun sends its first bytes within 0.2 s
BEFORE_REQUESTS = (0.3, 1.0)  # a download in a slot takes longer than this, a new one begins sooner
TIMES_ASIDE_MAX = len(BEFORE_DOWNLOADS)
ASIDES_KEPT_SECONDS = 3600.0  # no line is longer; a pull that failed meanwhile is another pull
ASIDES_KEPT_MAX = 4_096  # contents; more than a node pulls in an hour


class Slots:
    """When requests step aside, and how often each did: also where its Flight has ended meanwhile."""

    def __init__(self, state: Callable[[Flight], PullState], offset: Callable[[Flight], int]) -> None:
        """`offset`: how many bytes this node has."""
        self._state, self._offset = state, offset
        self._asides = OrderedDict[bytes, tuple[int, float]]()

    def asides(self, key: bytes, now: float) -> int:
        """How often requests for this content stepped aside, since it was forgotten."""
        times, at = self._asides.get(key, (0, now))
        return times if now < at + ASIDES_KEPT_SECONDS else 0

    def steps_aside(self, flight: Flight, now: float) -> None:
        """Its request steps aside."""
        flight.is_aside, flight.aside_at, flight.times_aside = True, now, flight.times_aside + 1
        self._asides[flight.key] = flight.times_aside, now
        self._asides.move_to_end(flight.key)
        if len(self._asides) > ASIDES_KEPT_MAX:
            self._asides.popitem(last=False)

    def forget(self, key: bytes) -> None:
        """The content is complete, or its download is gone: containerd counts anew."""
        self._asides.pop(key, None)

    def due(self, flights: Sequence[Flight]) -> list[tuple[float, Flight]]:
        """The waiting requests that step aside: when (loop time), and which."""
        unbegun_at = max((one.granted_at for one in flights if self._is_unbegun(one)), default=-math.inf)
        slots = sum(map(self._has_slot, flights))
        found = []
        for flight in flights:
            if _may_step_aside(flight) and self._is_waiting(flight):
                if unbegun_at > flight.aside_at:
                    found.append((flight.joined_at + BEFORE_DOWNLOADS[flight.times_aside], flight))
                elif slots >= SLOTS:
                    found.append((flight.joined_at + BEFORE_REQUESTS[flight.times_aside], flight))
        return found

    def _is_unbegun(self, flight: Flight) -> bool:
        """Whether it is a download that this node was told to make, and that has not begun."""
        return self._state(flight) is PullState.FETCHING and not self._offset(flight)

    def _is_waiting(self, flight: Flight) -> bool:
        """Whether its request follows and has no byte."""
        is_joining = self._state(flight) is PullState.JOINING and not self._offset(flight)
        return is_joining and flight.request is not None

    def _has_slot(self, flight: Flight) -> bool:
        """Whether containerd's request is answered, or its download runs."""
        is_download = self._state(flight) in FETCHES and self._offset(flight) > 0
        return is_download or flight.request is not None


def _may_step_aside(flight: Flight) -> bool:
    """Whether containerd asks again, and the head of the answer can be made."""
    return flight.frees_slot and flight.total > 0 and flight.times_aside < TIMES_ASIDE_MAX


class SteppedAside(Opened):
    """A head without a body."""

    def __init__(self, digest: Digest, size: int) -> None:
        super().__init__(Origin.PEER, digest, media_type.OCTET_STREAM, size)

    async def send(self, sink: Sink) -> None:
        """See Opened."""
        raise BrokeOffError("it steps aside for those behind it in line")
