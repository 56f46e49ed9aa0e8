"""The known peers in k-buckets (libp2p kad-dht spec, "Kademlia routing table").

A bucket holds up to k peers that share a prefix of the same length with this node. So a node knows its own
neighbourhood well and has samples of the rest of the space. A full bucket keeps peers that have been there long and
answer. A new peer replaces only one that failed, or one whose network has more peers there than its own; a member
replaces a stranger. No network can fill the table with identities: an address and a subnet have a few places in each
bucket and in all (go-libp2p's diversity filter). The network that a peer's packets come from counts. In this node's own
network, where most of its cluster is, only addresses are limited, not subnets.
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from speil.kad.answer_trust import AnswerTrust
from speil.kad.key import common_prefix_length, position
from speil.kad.network_group import OwnNetwork, address_of, subnet_of
from speil.multiformats.peer_id import PeerId
from speil.multiformats.peer_info import PeerInfo

K = 20  # the spec's bucket size and replication
PEERS_PER_ADDRESS_MAX = 8  # nodes behind one NAT; a node has an address of its own everywhere else
ADDRESS_IN_BUCKET_MAX = 2  # go-libp2p's
PEERS_PER_SUBNET_MAX = 64  # a rack of nodes with addresses of the host network
SUBNET_IN_BUCKET_MAX = 8
OWN_ADDRESS_IN_BUCKET_MAX = 16  # nodes on this machine; the other places are for nodes on other machines
FAILURES_MAX = 1  # in a row; one more and the peer is dropped


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a peer's packets come from; `is_member`: it is from the stored list or from the bootstrap."""

    host: str = ""
    is_member: bool = False


@dataclass(slots=True)
class Entry:
    """A peer in the table; times are the caller's monotonic seconds."""

    peer: PeerInfo
    position: int
    last_seen: float
    address: str
    subnet: str
    is_own: bool  # in this node's own network
    is_member: bool
    failures: int = 0


@dataclass(slots=True)
class _Bucket:
    peers: list[PeerId] = field(default_factory=list)
    networks: Counter[str] = field(default_factory=Counter)


def _unknown(peer_id: PeerId) -> Origin:
    return Origin()


class RoutingTable:
    """The table of one node."""

    def __init__(
        self, local: PeerId, own: OwnNetwork | None = None, origin_of: Callable[[PeerId], Origin] = _unknown
    ) -> None:
        """`origin_of` gives the origin of a peer; where it has no host, the advertised address is used."""
        self._local, self._local_position = local, position(local.multihash)
        self._own, self._origin_of = own or OwnNetwork(), origin_of
        self._trust = AnswerTrust(self._network_of)
        self._entries: dict[PeerId, Entry] = {}
        self._buckets: dict[int, _Bucket] = {}
        self._networks: Counter[str] = Counter()

    @property
    def trust(self) -> AnswerTrust:
        """How much to trust the peers that others name; for all lookups of this node."""
        return self._trust

    def __len__(self) -> int:
        return len(self._entries)

    def __contains__(self, peer_id: PeerId) -> bool:
        return peer_id in self._entries

    def __iter__(self) -> Iterator[PeerInfo]:
        return iter([entry.peer for entry in self._entries.values()])

    def get(self, peer_id: PeerId) -> PeerInfo | None:
        """A peer with its addresses, if it is in the table."""
        return entry.peer if (entry := self._entries.get(peer_id)) else None

    def add(self, peer: PeerInfo, now: float) -> bool:
        """Add or refresh a peer that answered; whether it is in the table now."""
        if peer.peer_id == self._local:
            return False
        if entry := self._entries.get(peer.peer_id):
            entry.peer = peer if peer.addresses else entry.peer
            entry.last_seen, entry.failures = now, 0
            return True
        origin = self._origin_of(peer.peer_id)
        host = origin.host or next(iter(peer.hosts), "")
        place = position(peer.peer_id.multihash)
        entry = Entry(peer, place, now, address_of(host), subnet_of(host), self._own.covers(host), origin.is_member)
        bucket = self._buckets.setdefault(common_prefix_length(place, self._local_position), _Bucket())
        if not origin.is_member and not self._has_place(entry, bucket, is_here=self._own.is_own_address(host)):
            return False
        if len(bucket.peers) >= K and not self._make_room(bucket, entry):
            return False
        bucket.peers.append(peer.peer_id)
        self._entries[peer.peer_id] = entry
        self._count(entry, bucket, 1)
        return True

    def failed(self, peer_id: PeerId) -> None:
        """A peer did not answer. It is dropped after more than FAILURES_MAX failures in a row."""
        if entry := self._entries.get(peer_id):
            entry.failures += 1
            if entry.failures > FAILURES_MAX:
                self.remove(peer_id)

    def remove(self, peer_id: PeerId) -> None:
        """Forget a peer."""
        if entry := self._entries.pop(peer_id, None):
            bucket = self._buckets[common_prefix_length(entry.position, self._local_position)]
            bucket.peers.remove(peer_id)
            self._count(entry, bucket, -1)

    def closest(
        self,
        target: int,
        count: int = K,
        *,
        without: PeerId | None = None,
        among: Callable[[PeerId], bool] | None = None,
    ) -> list[PeerInfo]:
        """The `count` peers closest to a position, closest first; with `among` only those for which it is true."""
        candidates = (entry for entry in self._entries.values() if entry.peer.peer_id != without)
        if among:
            candidates = (entry for entry in candidates if among(entry.peer.peer_id))
        found = heapq.nsmallest(count, candidates, key=lambda entry: entry.position ^ target)
        return [entry.peer for entry in found]

    def closer(self, target: int) -> list[PeerInfo]:
        """The peers that are closer to a position than this node, closest first."""
        limit = self._local_position ^ target
        found = [
            (distance, entry.peer) for entry in self._entries.values() if (distance := entry.position ^ target) < limit
        ]
        return [peer for _, peer in sorted(found, key=lambda item: item[0])]

    def unseen_since(self, time: float) -> list[PeerInfo]:
        """Peers that did not answer since `time`."""
        return [entry.peer for entry in self._entries.values() if entry.last_seen < time]

    def _network_of(self, peer_id: PeerId) -> str:
        return self._own.share_of(self._origin_of(peer_id).host, peer_id)

    def _has_place(self, entry: Entry, bucket: _Bucket, *, is_here: bool) -> bool:
        """Whether its address and subnet have places left; `is_here`: it has an address of this machine."""
        if is_here:
            return bucket.networks[entry.address] < OWN_ADDRESS_IN_BUCKET_MAX
        if bucket.networks[entry.address] >= ADDRESS_IN_BUCKET_MAX:
            return False
        if self._networks[entry.address] >= PEERS_PER_ADDRESS_MAX:
            return False
        return entry.is_own or (
            bucket.networks[entry.subnet] < SUBNET_IN_BUCKET_MAX and self._networks[entry.subnet] < PEERS_PER_SUBNET_MAX
        )

    def _make_room(self, bucket: _Bucket, newcomer: Entry) -> bool:
        """Drop one that failed, else the newest peer of the subnet that has most; False where none may be dropped."""
        entries = [self._entries[peer_id] for peer_id in bucket.peers]
        if failed := next((entry for entry in entries if entry.failures), None):
            self.remove(failed.peer.peer_id)
            return True
        if not (strangers := [entry for entry in entries if not (entry.is_own or entry.is_member)]):
            return False
        most = max(strangers, key=lambda entry: (bucket.networks[entry.subnet], entry.last_seen))
        if not newcomer.is_member and bucket.networks[most.subnet] <= bucket.networks[newcomer.subnet] + 1:
            return False
        self.remove(most.peer.peer_id)
        return True

    def _count(self, entry: Entry, bucket: _Bucket, step: int) -> None:
        for networks in (self._networks, bucket.networks):
            for network in {entry.address, entry.subnet}:
                networks[network] += step
                if not networks[network]:
                    del networks[network]
