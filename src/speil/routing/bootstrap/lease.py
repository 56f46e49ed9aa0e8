"""`kubernetes` and `file`: the region elects a leader through a Lease, and newcomers ask the leader.

The holder's identity in the Lease is its address: `/ip4/10.0.0.7/tcp/5001/p2p/12D3…`, as Spegel has it. Beside it the
leader names a few live peers, so that a newcomer gets in while the leader is dead and nobody has followed it yet. What
was seen once stays good: a node whose API is away goes on with the last answer.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from random import Random

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
from speil.region.policy import Network
from speil.routing.bootstrap.base import BootstrapError
from speil.routing.bootstrap.neighbours import Neighbours

KNOWN_SECONDS_MAX = 5.0  # the first answer, or the failure of the first request, is there by then
ADDRESS_SECONDS = 1.0  # between looks for an address of this node, without which nobody could be sent to it

log = get_log("bootstrap")


class LeaseBootstrapper:
    """Campaigns on `lock` and names who leads. `attach` tells it the mesh, for the newcomers of others."""

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
        """`networks` are the region's, where they were told: what is searched when the Lease is of no help."""
        self.kind, self._rng, self.lock = kind, rng, lock
        self._owner = owner
        self.election = LeaderElection(lock, config, owner, metrics, rng)
        self._neighbours = Neighbours(networks)
        self._peers: Callable[[], list[PeerInfo]] = list

    def attach(self, peers: Callable[[], list[PeerInfo]]) -> None:
        """`peers` gives the live peers of this node (Router.peers)."""
        self._peers = peers

    async def find(self, local: PeerInfo) -> list[Multiaddr]:
        """See Bootstrapper: the leader, then the peers that it named; empty where this node is the first.

        Where the Lease is of no help, the error carries what can be dialled without it: who stood in it when it was
        this region's, and nodes in the region's networks.
        """
        try:
            async with asyncio.timeout(KNOWN_SECONDS_MAX):
                await self.election.known()
        except TimeoutError:
            raise BootstrapError(f"the Lease {self.lock} was not seen yet") from None
        lease = self.election.lease
        if lease is None:
            told = self.election.failure
            without = self._neighbours.next(local) if told else []
            raise BootstrapError(
                told or f"the Lease {self.lock} does not exist yet", told=bool(told), addresses=tuple(without)
            )
        if self.election.foreign:
            own = self.election.own_record
            known = self._addresses(own, local) if own else []
            raise BootstrapError(
                f"the Lease {self.lock} belongs to region {lease.record.region!r} (label {lease.record.label!r}), this "
                f"node to {self._owner.region!r} (label {self._owner.label!r})",
                told=True,
                addresses=(*known, *self._neighbours.next(local)),
            )
        found = self._addresses(lease.record, local)
        if self._neighbours.are_elsewhere(found):
            # another region's nodes lead a Lease that nothing else tells from this region's
            found += self._neighbours.next(local)
        return found

    def _addresses(self, record: LeaderElectionRecord, local: PeerInfo) -> list[Multiaddr]:
        found: list[Multiaddr] = []
        for text in dict.fromkeys((record.holder_identity, *record.peers)):
            try:
                address = Multiaddr.parse(text)
            except FormatError as error:
                if text:
                    log.warning("the Lease names somebody who has no address", lease=self.lock, error=error)
                continue
            if address.tcp and address.peer_id != local.peer_id:
                found.append(address)
        return found

    async def run(self, local: Callable[[], PeerInfo]) -> None:
        """See Bootstrapper: take part in the election."""
        while not (addresses := local().addresses):
            await asyncio.sleep(ADDRESS_SECONDS)
        identity = addresses[0].with_peer_id(local().peer_id)
        await self.election.run(str(identity), lambda: self._view(local()))

    def _view(self, local: PeerInfo) -> MeshView:
        peers = [peer for peer in self._peers() if peer.addresses]
        told = self._rng.sample(peers, min(PEERS_MAX, len(peers)))
        return MeshView(
            estimate_mesh_size(local.peer_id, (peer.peer_id for peer in peers)),
            tuple(str(peer.addresses[0].with_peer_id(peer.peer_id)) for peer in told),
        )
