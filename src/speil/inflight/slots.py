"""containerd's download slots: requests that wait for another node step aside for downloads that others wait for.

containerd has three slots. Up to 2.0 a layer keeps its slot until it is complete. From 2.1 on each request waits in
line for a slot (`dockerFetcher.open`): the request for a layer that this node is to fetch is answered 404, and the
request to the upstream then waits behind the requests for all other layers. Where those are held because other nodes
are to fetch these layers, and the same happens there, nodes wait for each other until the share wait ends, and each
takes a copy.

So a request without a byte is ended with FIN behind its head while a download of this node, granted later than the
request took its place in line, has not begun. containerd asks again, at the end of the line. When that request comes,
the download has begun.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from speil.inflight.flight import Flight
from speil.oci import media_type
from speil.oci.digest import Digest
from speil.sources.base import BrokeOffError, Opened, Origin
from speil.wire.sink import Sink

# containerd fails a pull with the fourth body in a row that ends before its first byte: two are left for the upstream.
# The first request for a layer steps aside for what was granted before it, the second one for what was granted since.
TIMES_ASIDE_MAX = 2


def is_in_the_way(flight: Flight, others: Iterable[Flight], has_begun: Callable[[Flight], bool]) -> bool:
    """Whether the request of `flight`, which has no byte, keeps its place from a download that others wait for."""
    if not flight.frees_slot or not flight.total or flight.times_aside >= TIMES_ASIDE_MAX:
        return False
    return any(other.granted_at > flight.aside_at and not has_begun(other) for other in others if other is not flight)


class SteppedAside(Opened):
    """A head without a body."""

    def __init__(self, digest: Digest, size: int) -> None:
        super().__init__(Origin.PEER, digest, media_type.OCTET_STREAM, size)

    async def send(self, sink: Sink) -> None:
        """See Opened."""
        raise BrokeOffError("it steps aside for a download that other nodes wait for")
