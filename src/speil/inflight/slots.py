"""containerd's download slots: requests step aside for downloads that other nodes wait for.

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
- where the requests of this node fill its slots, and the source does not begin: another layer may have begun.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

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


class Slots:
    """When requests step aside."""

    def __init__(self, has_begun: Callable[[Flight], bool], is_waiting: Callable[[Flight], bool]) -> None:
        """`has_begun`: whether a download that this node was told to make has begun. `is_waiting`: see `due`."""
        self._has_begun, self._is_waiting = has_begun, is_waiting

    def due(self, flights: Sequence[Flight]) -> list[tuple[float, Flight]]:
        """The requests that follow and have no byte (`is_waiting`) and step aside: when (loop time), and which."""
        unbegun_at = max((one.granted_at for one in flights if not self._has_begun(one)), default=-math.inf)
        requests = sum(one.request is not None for one in flights)
        found = []
        for flight in flights:
            if flight.request is not None and _may_step_aside(flight) and self._is_waiting(flight):
                if unbegun_at > flight.aside_at:
                    found.append((flight.joined_at + BEFORE_DOWNLOADS[flight.times_aside], flight))
                elif requests >= SLOTS:
                    found.append((flight.joined_at + BEFORE_REQUESTS[flight.times_aside], flight))
        return found


def _may_step_aside(flight: Flight) -> bool:
    """Whether containerd asks again, and the head of the answer can be made."""
    return flight.frees_slot and flight.total > 0 and flight.times_aside < TIMES_ASIDE_MAX


class SteppedAside(Opened):
    """A head without a body."""

    def __init__(self, digest: Digest, size: int) -> None:
        super().__init__(Origin.PEER, digest, media_type.OCTET_STREAM, size)

    async def send(self, sink: Sink) -> None:
        """See Opened."""
        raise BrokeOffError("it steps aside for a download that other nodes wait for")
