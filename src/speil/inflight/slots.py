"""containerd's download slots: requests step aside for downloads that other nodes wait for.

containerd has three slots. Up to 2.0 a layer keeps its slot until it is complete. From 2.1 on each request waits in
line for a slot (`dockerFetcher.open`). The request for a layer that this node is to fetch is answered 404, and the
request to the upstream then waits behind the requests for all other layers. So

- a node would be told to fetch all layers before it begins the first, and other nodes would wait for the last one;
- requests before it in line may be held, because other nodes are to fetch these layers. If the same happens there,
  nodes wait for each other until the share wait ends, and each downloads a copy.

A request that steps aside gets a head, and FIN instead of the first byte. containerd asks again, at the end of the
line: when it does, what this node was told to fetch before has begun. A new request steps aside
while as many downloads have not begun as there are slots; one that is held, while any has not.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from speil.inflight.flight import Flight
from speil.oci import media_type
from speil.oci.digest import Digest
from speil.sources.base import BrokeOffError, Opened, Origin
from speil.wire.sink import Sink

# containerd's slots. With one fewer nodes follow sooner; but one that starts before others is then told to fetch all
# layers within a moment, because each of its requests steps aside twice at most
UNBEGUN_MAX = 3
# containerd fails a pull with the fourth body in a row that ends before its first byte: one is left for the upstream.
TIMES_ASIDE_MAX = 2


def may_step_aside(flight: Flight) -> bool:
    """Whether containerd asks again, and the head of the answer can be made."""
    return flight.frees_slot and flight.total > 0 and flight.times_aside < TIMES_ASIDE_MAX


def behind(flight: Flight, others: Iterable[Flight], has_begun: Callable[[Flight], bool]) -> int:
    """How many downloads that other nodes wait for are behind the request of `flight` in line."""
    return sum(other.granted_at > flight.aside_at and not has_begun(other) for other in others if other is not flight)


class SteppedAside(Opened):
    """A head without a body."""

    def __init__(self, digest: Digest, size: int) -> None:
        super().__init__(Origin.PEER, digest, media_type.OCTET_STREAM, size)

    async def send(self, sink: Sink) -> None:
        """See Opened."""
        raise BrokeOffError("it steps aside for a download that other nodes wait for")
