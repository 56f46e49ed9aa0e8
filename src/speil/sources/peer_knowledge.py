"""What this node knows of its peers between requests."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Iterable

from speil.fetch.known_sizes import KnownSizes
from speil.fetch.peer_health import PeerHealth
from speil.fetch.trust import BAN_SECONDS, PeerTrust
from speil.multiformats.peer_id import PeerId
from speil.multiformats.peer_info import PeerInfo
from speil.observe.logs import get_log
from speil.oci.manifest import Descriptor
from speil.region.label import is_label
from speil.sources.series import SourcesSeries
from speil.sources.verified import VerifiedContent

ZONES_MAX = 1000  # of peers, the least recently heard of go first

log = get_log("relay")


class PeerKnowledge:
    """One for each node. `health`, `trust` and `sizes` are cores of `fetch`; `verified` is content held in memory."""

    def __init__(self, verify_memory_max: int, series: SourcesSeries, zone_of: Callable[[PeerId], str]) -> None:
        """`verify_memory_max`: bytes of content that is verified in memory. `zone_of`: the router's, "" for unknown."""
        self.health, self.trust, self.sizes = PeerHealth(), PeerTrust(), KnownSizes()
        self.verified = VerifiedContent(verify_memory_max)
        self._series, self._zone_of_router = series, zone_of
        self._zones: OrderedDict[PeerId, str] = OrderedDict()

    def zone_of(self, peer_id: PeerId) -> str:
        """A peer's zone, "" where it is unknown: from libp2p's identify, else from an HTTP response or a record."""
        return self._zone_of_router(peer_id) or self._zones.get(peer_id, "")

    def stated_zone(self, peer_id: PeerId, zone: str) -> None:
        """A peer's own response states its zone; what is no zone is ignored."""
        if is_label(zone):
            self._zones[peer_id] = zone
            self._zones.move_to_end(peer_id)
            if len(self._zones) > ZONES_MAX:
                self._zones.popitem(last=False)

    def record_zone(self, peer_id: PeerId, zone: str) -> None:
        """A provider record states a peer's zone: it counts until the peer itself states one."""
        if not self.zone_of(peer_id):
            self.stated_zone(peer_id, zone)

    def learn_sizes(self, descriptors: Iterable[Descriptor]) -> None:
        """Keep the sizes that a manifest states."""
        self.sizes.learn(descriptors, asyncio.get_running_loop().time())

    def sent_wrong_bytes(self, peer: PeerInfo, key: str) -> None:
        """Ban a peer whose bytes for `key` do not match their digest."""
        self.trust.lied(peer.peer_id, asyncio.get_running_loop().time())
        self._series.peer_bans.inc()
        hosts = ", ".join(peer.hosts)
        log.warning("a peer sent wrong bytes: banned", key=key, peer=peer.peer_id, hosts=hosts, seconds=BAN_SECONDS)
