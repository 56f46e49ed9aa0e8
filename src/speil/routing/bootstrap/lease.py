"""`kubernetes` and `file`: the region elects a leader through a Lease, and new nodes dial the leader.

The holder's identity in the Lease is its address: `/ip4/10.0.0.7/tcp/5001/p2p/12D3…`, as in Spegel. The leader also
names a few live peers there, so that a new node can join while the leader is dead and has no successor yet. The last
record that was read stays in use: a node that can't reach the API server continues with it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from random import Random

from speil.border.series import BorderSeries
from speil.election.config import ElectionConfig
from speil.election.ownership import Owner
from speil.election.record import PEERS_MAX, LeaderElectionRecord
from speil.kad.mesh_size import estimate_mesh_size
from speil.lease.base import LeaseLock
from speil.lease.driver import LeaderElection, MeshView
from speil.multiformats.error import FormatError
from speil.multiformats.multiaddr import Multiaddr
from speil.multiformats.peer_info import PeerInfo
from speil.observe.logs import get_log
from speil.observe.metrics import Metrics
from speil.region.policy import Layer, Network
from speil.routing.bootstrap.base import BootstrapError
from speil.routing.bootstrap.neighbours import Neighbours

KNOWN_SECONDS_MAX = 5.0  # the first request has succeeded or failed by then
ADDRESS_SECONDS = 1.0  # between two checks whether this node has an address: a leader without one is of no use

log = get_log("bootstrap")


class LeaseBootstrapper:
    """Takes part in the election on `lock` and gives the leader's address. Call `attach` before `run`."""

    def __init__(
        self,
        kind: str,
        lock: LeaseLock,
        config: ElectionConfig,
        owner: Owner,
        metrics: Metrics,
        rng: Random,
        *,
        networks: tuple[Network, ...] = (),
    ) -> None:
        """`networks` of the region, empty where they are not set: they are searched when the Lease can't be used."""
        self.kind, self._rng, self.lock = kind, rng, lock
        self._owner = owner
        border = metrics.of(BorderSeries)
        self.election = LeaderElection(lock, config, owner, metrics, rng, lambda: border.rejected(Layer.LEASE))
        self._neighbours = Neighbours(networks)
        self._peers: Callable[[], list[PeerInfo]] = list

    def attach(self, peers: Callable[[], list[PeerInfo]]) -> None:
        """`peers` gives the peers that a leader names in the Lease (Router.peers)."""
        self._peers = peers

    async def find(self, local: PeerInfo) -> list[Multiaddr]:
        """See Bootstrapper: the leader, then the peers that it named; empty where this node is the first.

        Where the Lease can't be used, the error carries addresses that can be dialled without it: those of its last
        record of this region, and some in the region's networks.
        """
        try:
            async with asyncio.timeout(KNOWN_SECONDS_MAX):
                await self.election.known()
        except TimeoutError:
            raise BootstrapError(f"the Lease {self.lock} was not read yet") from None
        lease = self.election.lease
        if lease is None:
            failure = self.election.failure
            without = self._neighbours.next(local) if failure else []
            raise BootstrapError(
                failure or f"the Lease {self.lock} does not exist yet", logged=bool(failure), addresses=tuple(without)
            )
        if self.election.foreign:
            own = self.election.own_record
            known = self._addresses(own, local) if own else []
            raise BootstrapError(
                f"the Lease {self.lock} belongs to region {lease.record.region!r} (label {lease.record.label!r}), this "
                f"node to {self._owner.region!r} (label {self._owner.label!r})",
                logged=True,
                addresses=(*known, *self._neighbours.next(local)),
            )
        found = self._addresses(lease.record, local)
        if self._neighbours.are_elsewhere(found):
            # Nodes of another region lead this Lease, and nothing else shows that it is not this region's.
            found += self._neighbours.next(local)
        return found

    def _addresses(self, record: LeaderElectionRecord, local: PeerInfo) -> list[Multiaddr]:
        found: list[Multiaddr] = []
        for text in dict.fromkeys((record.holder_identity, *record.peers)):
            try:
                address = Multiaddr.parse(text)
            except FormatError as error:
                if text:
                    log.warning("lease names a bad address", lease=self.lock, error=error)
                continue
            if address.tcp and address.peer_id != local.peer_id:
                found.append(address)
        return found

    async def run(self, local: Callable[[], PeerInfo]) -> None:
        """See Bootstrapper. Takes part in the election."""
        while not (addresses := local().addresses):
            await asyncio.sleep(ADDRESS_SECONDS)
        identity = addresses[0].with_peer_id(local().peer_id)
        await self.election.run(str(identity), lambda: self._view(local()))

    def _view(self, local: PeerInfo) -> MeshView:
        peers = [peer for peer in self._peers() if peer.addresses]
        named = self._rng.sample(peers, min(PEERS_MAX, len(peers)))
        return MeshView(
            estimate_mesh_size(local.peer_id, (peer.peer_id for peer in peers)),
            tuple(str(peer.addresses[0].with_peer_id(peer.peer_id)) for peer in named),
        )
