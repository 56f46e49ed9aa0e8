"""The nodes that take part in claims, as this node sees them: who is closest to a key, and who may be named to whom.

A peer that a message names passes the same checks as a peer of any other answer: the rules for addresses, what its
namer got wrong before, and the topology label. What this node has learned from a peer itself comes before
what others say about it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import replace

from speil.claims.facts import Sender
from speil.claims.message import ClaimMessage, Defer, Follow, Holders, Row, Tell
from speil.kad.key import position
from speil.kad.network_group import OwnNetwork
from speil.kad.routing_table import K, RoutingTable
from speil.multiformats.peer_id import PeerId
from speil.multiformats.peer_info import PeerInfo
from speil.routing.gone_peers import GonePeers
from speil.routing.lookups import now
from speil.routing.network import PeerNetwork

Nearest = Callable[[bytes], Sequence[PeerInfo]]


class ClaimPeers:
    """The peers of one node."""

    def __init__(
        self, network: PeerNetwork, table: RoutingTable, own: OwnNetwork, gone: GonePeers, nearest: Nearest, zone: str
    ) -> None:
        """`nearest` returns the peers that a finished lookup of a key found to be closest, if there was one lately."""
        self._network, self._table, self._own, self._gone = network, table, own, gone
        self._nearest, self._zone = nearest, zone

    @property
    def local(self) -> PeerInfo:
        """This node, with its zone."""
        return replace(self._network.local, zone=self._zone)

    @property
    def own_sender(self) -> Sender:
        """This node as a sender."""
        return Sender(self.local, self._own.share_of("", self._network.local.peer_id))

    def sender(self, peer: PeerInfo) -> Sender:
        """A connected peer as the sender of a message. The address that it was reached at comes first."""
        host = self._network.host_of(peer.peer_id)
        addresses = sorted(peer.addresses, key=lambda one: one.host != host)
        zone = self._network.zone_of(peer.peer_id)
        return Sender(PeerInfo(peer.peer_id, tuple(addresses), zone), self._own.share_of(host, peer.peer_id))

    def understands(self, peer_id: PeerId) -> bool:
        """Whether a peer takes part."""
        return self._network.understands_claims(peer_id)

    def closest(self, key: bytes, count: int = K) -> list[PeerInfo]:
        """The `count` live nodes closest to a key that take part, with this node in its place."""
        target, gone = position(key), self._gone.at(now())
        own, foreign = self._network.local.peer_id, self._network.foreign_to(self._network.local.peer_id)

        def takes_part(peer_id: PeerId) -> bool:
            return peer_id not in gone and peer_id not in foreign and self.understands(peer_id)

        found = {peer.peer_id: peer for peer in self._table.closest(target, count, among=takes_part)}
        for peer in self._nearest(key):
            if peer.peer_id != own and takes_part(peer.peer_id):
                found.setdefault(peer.peer_id, peer)
        found[own] = self.local
        return sorted(found.values(), key=lambda peer: position(peer.peer_id.multihash) ^ target)[:count]

    def closer(self, key: bytes) -> list[PeerInfo]:
        """The peers closer to a key than this node that take part. `barred` are among them."""
        return [peer for peer in self._table.closer(position(key)) if self.understands(peer.peer_id)]

    def barred(self, asker: PeerId) -> Collection[PeerId]:
        """The peers that must not be named to `asker`."""
        return {*self._gone.at(now()), *self._network.foreign_to(asker)}

    def foreign_to(self, peer_id: PeerId) -> Collection[PeerId]:
        """The peers of other topology labels than that of `peer_id`."""
        return self._network.foreign_to(peer_id)

    def is_near(self, peer_id: PeerId, key: bytes) -> bool:
        """Whether a peer is among the K closest to a key that take part."""
        target = position(key)
        near = self._table.closest(target, K, among=self.understands)
        distance = position(peer_id.multihash) ^ target
        return len(near) < K or distance <= position(near[-1].peer_id.multihash) ^ target

    def checked(self, namer: PeerId, message: ClaimMessage) -> ClaimMessage | None:
        """A message of `namer` with the peers that this node may use; None where it names none of them.

        Only `Defer` and `Tell` may name this node itself.
        """
        match message:
            case Defer(closer) if closer.peer_id == self._network.local.peer_id:
                return Defer(self.local)
            case Defer(closer):
                return Defer(peers[0]) if (peers := self._usable(namer, (closer,), any_port=False)) else None
            case Follow(source):
                return Follow(peers[0]) if (peers := self._usable(namer, (source,))) else None
            case Holders(named):
                return Holders(peers) if (peers := self._usable(namer, named)) else None
            case Tell(rows):
                return Tell(usable) if (usable := self._usable_rows(namer, rows)) else None
            case _:
                return message

    def _usable(self, namer: PeerId, named: Sequence[PeerInfo], *, any_port: bool = True) -> tuple[PeerInfo, ...]:
        """A source's registry listens on another port than the one that is named."""
        others = [self._known(peer) for peer in named if peer.peer_id != self._network.local.peer_id]
        return self._network.usable(namer, others, any_port=any_port)

    def _known(self, named: PeerInfo) -> PeerInfo:
        known = self._table.get(named.peer_id) or named
        return replace(known, zone=self._network.zone_of(named.peer_id) or named.zone)

    def _usable_rows(self, namer: PeerId, rows: Sequence[Row]) -> tuple[Row, ...]:
        own = self._network.local.peer_id
        usable = {peer.peer_id: peer for peer in self._usable(namer, [row.peer for row in rows])}
        usable[own] = self.local
        return tuple(replace(row, peer=usable[row.peer.peer_id]) for row in rows if row.peer.peer_id in usable)
