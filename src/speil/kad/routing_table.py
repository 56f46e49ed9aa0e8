"""Whom we know: k-buckets (libp2p kad-dht spec, "Kademlia routing table").

A bucket holds up to k peers that share a prefix of the same length with us, so we know our own neighbourhood well
and the rest of the space by samples. A full bucket prefers those who have been there long and answer: a newcomer
takes the place only of one that failed. One host can't fill the table with identities: each IP address has a bound.
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

from speil.kad.key import common_prefix_length, position
from speil.multiformats.peer_id import PeerId
from speil.multiformats.peer_info import PeerInfo

K = 20  # the spec's bucket size and replication
PEERS_PER_ADDRESS_MAX = 32  # nodes behind one NAT or on one host; an attacker with one address gets no more
FAILURES_MAX = 1  # in a row; then the next newcomer takes the place


@dataclass(slots=True)
class Entry:
    """A peer in the table; times are the caller's monotonic seconds."""

    peer: PeerInfo
    position: int
    last_seen: float
    failures: int = 0


class RoutingTable:
    """The table of one node."""

    def __init__(self, local: PeerId) -> None:
        self._local, self._local_position = local, position(local.multihash)
        self._entries: dict[PeerId, Entry] = {}
        self._buckets: dict[int, list[PeerId]] = {}
        self._hosts: Counter[str] = Counter()

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
        """Take in or refresh a peer that answered; whether it is in the table now."""
        if peer.peer_id == self._local:
            return False
        if entry := self._entries.get(peer.peer_id):
            self._count(entry.peer, -1)
            entry.peer = peer if peer.addresses else entry.peer
            entry.last_seen, entry.failures = now, 0
            self._count(entry.peer, 1)
            return True
        if any(self._hosts[host] >= PEERS_PER_ADDRESS_MAX for host in peer.hosts[:1]):
            return False
        place = position(peer.peer_id.multihash)
        bucket = self._buckets.setdefault(common_prefix_length(place, self._local_position), [])
        if len(bucket) >= K and not self._make_room(bucket):
            return False
        bucket.append(peer.peer_id)
        self._entries[peer.peer_id] = Entry(peer, place, now)
        self._count(peer, 1)
        return True

    def failed(self, peer_id: PeerId) -> None:
        """A peer did not answer: after FAILURES_MAX in a row it is dropped."""
        if entry := self._entries.get(peer_id):
            entry.failures += 1
            if entry.failures > FAILURES_MAX:
                self.remove(peer_id)

    def remove(self, peer_id: PeerId) -> None:
        """Forget a peer."""
        if entry := self._entries.pop(peer_id, None):
            self._buckets[common_prefix_length(entry.position, self._local_position)].remove(peer_id)
            self._count(entry.peer, -1)

    def closest(self, target: int, count: int = K, *, without: PeerId | None = None) -> list[PeerInfo]:
        """The `count` peers closest to a position, closest first."""
        candidates = (entry for entry in self._entries.values() if entry.peer.peer_id != without)
        found = heapq.nsmallest(count, candidates, key=lambda entry: entry.position ^ target)
        return [entry.peer for entry in found]

    def unseen_since(self, time: float) -> list[PeerInfo]:
        """Peers that have given no sign since `time`: ask them."""
        return [entry.peer for entry in self._entries.values() if entry.last_seen < time]

    def _make_room(self, bucket: list[PeerId]) -> bool:
        for peer_id in bucket:
            if self._entries[peer_id].failures:
                self.remove(peer_id)
                return True
        return False

    def _count(self, peer: PeerInfo, step: int) -> None:
        for host in peer.hosts[:1]:
            self._hosts[host] += step
            if not self._hosts[host]:
                del self._hosts[host]
