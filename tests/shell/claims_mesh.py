"""A region that pulls one image at once: umpires, messages and announcements on the DHT, over the in-memory network.

The DHT's nodes are the shipped ones, and so are the `Asker`s. The requests for bytes are a model (`Flow`). Run it in
virtual time.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Sequence
from random import Random

from speil.claims.action import Action, AskSource, AskUmpire, GoUpstream, Join, Leave, SendRelease, UseHolders
from speil.claims.asker import Asker
from speil.claims.codec import decode
from speil.claims.message import Phase, Reason, Status
from speil.claims.pull import Facts
from speil.kad.message import Message
from speil.kad.routing_table import K, RoutingTable
from speil.multiformats.content_key import content_key
from speil.multiformats.peer_id import PeerId
from speil.multiformats.peer_info import PeerInfo
from speil.routing.dht import DhtRouter
from speil.routing.lookups import now
from speil.routing.network import NetworkError
from speil.testing.claims_figures import Figures
from speil.testing.claims_flow import Flow, Transfer, WorldNode
from speil.testing.network import MemoryWire

GIGABIT, HUNDRED_MEGABIT = 125_000_000.0, 12_500_000.0  # bytes per second
FIRST_BYTE_SECONDS, STEP_SECONDS, JOIN_SECONDS = 0.05, 0.05, 0.002
SLOTS = 3  # containerd's downloads at a time
FEEDS_MAX = 16  # uploads of a node; more are refused as "full"


class BlindTable(RoutingTable):
    """The routing table of a node that does not see some peers."""

    def __init__(self, table: RoutingTable, local: PeerId, unseen: Collection[PeerId]) -> None:
        super().__init__(local)
        self._table, self._unseen = table, unseen

    def get(self, peer_id: PeerId) -> PeerInfo | None:
        """See RoutingTable."""
        return self._table.get(peer_id)

    def closest(
        self,
        target: int,
        count: int = K,
        *,
        without: PeerId | None = None,
        among: Callable[[PeerId], bool] | None = None,
    ) -> list[PeerInfo]:
        """See RoutingTable."""

        def is_seen(peer_id: PeerId) -> bool:
            return peer_id not in self._unseen and (among is None or among(peer_id))

        return self._table.closest(target, count, without=without, among=is_seen)

    def closer(self, target: int) -> list[PeerInfo]:
        """See RoutingTable."""
        return [peer for peer in self._table.closer(target) if peer.peer_id not in self._unseen]


class MeshWorld(Figures):
    """The region and its upstream. `messages` counts those with a claim by kind, and joins; not their answers."""

    def __init__(
        self,
        wire: MemoryWire,
        routers: Sequence[DhtRouter],
        layers: Iterable[int],
        *,
        wrong: float = 0.0,
        seed: int = 1,
    ) -> None:
        """`wrong`: the probability that a node does not see another one."""
        self._rng, self._wire = Random(seed), wire
        layers = list(layers)
        self.names = [f"layer {seed} {index}" for index in range(len(layers))]
        self.layers = [(content_key(name), size) for name, size in zip(self.names, layers, strict=True)]
        self.image, self.flow = sum(layers), Flow(HUNDRED_MEGABIT)
        self.messages = Counter[str]()
        self.alone_count = 0
        self.pullers = [Puller(self, number, router) for number, router in enumerate(routers)]
        self.nodes = [one.node for one in self.pullers]
        self.by_id = {one.node.peer.peer_id: one for one in self.pullers}
        for one in self.pullers if wrong else ():
            unseen = {peer_id for peer_id in self.by_id if self._rng.random() < wrong}
            peers = one.router.claims._peers
            peers._table = BlindTable(one.router._table, one.node.peer.peer_id, unseen)
        wire.on_carried = self._count

    async def pull(self, spread_seconds: float = 0.0, seconds_max: float = 300.0) -> None:
        """All nodes pull the image; returns when all living ones have it, or after `seconds_max`."""
        until = now() + seconds_max
        async with asyncio.TaskGroup() as tasks:
            for one in self.pullers:
                one.tasks = tasks
                asyncio.get_running_loop().call_later(self._rng.uniform(0, spread_seconds), one.begin)
            while now() < until and any(node.alive and node.done_at is None for node in self.nodes):
                await asyncio.sleep(STEP_SECONDS)
                for node, transfer in self.flow.step(self.nodes, now(), STEP_SECONDS):
                    await self.by_id[node.peer.peer_id].committed(transfer.key)
                for one in self.pullers:
                    one.tick()

    def kill(self, one: Puller) -> None:
        """A node is gone at once: its connections break."""
        one.node.alive = False
        self._wire.kill(one.node.peer.peer_id)
        for other in self.pullers:
            for key, transfer in other.node.transfers.items():
                if transfer.source is one.node and other.node.alive:
                    transfer.source = None
                    other.do(other.asker.refused(key, one.node.peer.peer_id, Reason.GONE, now()))

    def _count(self, source: PeerId, target: PeerId, message: Message) -> None:
        if message.claim:
            self.messages[type(decode(message.claim)).__name__.lower()] += 1


class Puller:
    """One node: its router and its Asker."""

    def __init__(self, world: MeshWorld, number: int, router: DhtRouter) -> None:
        self._world, self.router, self.claims = world, router, router.claims
        peer = router.claims.local
        self.node = WorldNode(number, peer, router.claims.server.umpire, Asker(peer.peer_id), GIGABIT)
        self.asker = self.node.asker
        self.tasks: asyncio.TaskGroup
        router.claims.attach(self._status)

    def begin(self) -> None:
        """Pull the layers that come next."""
        node, layers = self.node, self._world.layers
        if not node.next_layer:
            node.started_at = now()
        while node.alive and node.next_layer < len(layers) and len(node.transfers) < SLOTS:
            key, size = layers[node.next_layer]
            node.next_layer += 1
            node.transfers[key] = Transfer(key, size, byte_at=now())
            self.do(self.asker.miss(key, self.claims.closest(key), Facts(size), now()))

    def tick(self) -> None:
        """What is due."""
        if self.node.alive:
            self.do(self.asker.tick(now()))

    async def committed(self, key: bytes) -> None:
        """A layer is in the store."""
        del self.node.transfers[key]
        self.node.stored.add(key)
        self.asker.completed(key, now())
        names = [name for name, (other, _) in zip(self._world.names, self._world.layers, strict=True) if other == key]
        await self.router.provide(names)
        if len(self.node.stored) == len(self._world.layers):
            self.node.done_at = now()
        self.begin()

    def do(self, actions: Iterable[Action]) -> None:
        """Carry out the actions."""
        for action in actions:
            match action:
                case AskUmpire():
                    self.tasks.create_task(self._ask(action))
                case AskSource(key, source):
                    self.tasks.create_task(self._ask_source(key, source))
                case SendRelease(key, umpire, release):
                    self.tasks.create_task(self.claims.release(umpire, key, release))
                case Join(key, source, _):
                    self.tasks.create_task(self._join(key, [source]))
                case UseHolders(key, peers, _):
                    self.tasks.create_task(self._join(key, peers))
                case Leave(key, _, _):
                    if transfer := self.node.transfers.get(key):
                        transfer.source = None
                case GoUpstream(key, claimed):
                    self._world.alone_count += not claimed
                    if (transfer := self.node.transfers.get(key)) and transfer.upstream_at is None:
                        transfer.source, transfer.upstream_at = None, now() + FIRST_BYTE_SECONDS

    async def _ask(self, action: AskUmpire) -> None:
        umpire = action.umpire.peer_id
        try:
            answer = await self.claims.ask(action.umpire, action.key, action.ask)
        except NetworkError:
            self.do(self.asker.unanswered(action.key, umpire, now()))
        else:
            self.do(self.asker.answered(action.key, umpire, answer, now()))

    async def _ask_source(self, key: bytes, source: PeerInfo) -> None:
        try:
            said = await self.claims.ask_status(source, key)
        except NetworkError:
            return
        self.do(self.asker.source_said(key, source.peer_id, said, now()))

    async def _join(self, key: bytes, sources: Sequence[PeerInfo]) -> None:
        reason = Reason.GONE
        for source in sources:
            self._world.messages["join"] += 1
            await asyncio.sleep(JOIN_SECONDS)
            other = self._world.by_id[source.peer_id].node
            pull, transfer = self.asker.pull(key), self.node.transfers.get(key)
            if pull is None or transfer is None or pull.source != sources[0]:
                return
            if not other.alive or (key not in other.transfers and key not in other.stored):
                reason = Reason.GONE
            elif self._world.flow.feeding[other.number] >= FEEDS_MAX:
                reason = Reason.FULL
            else:
                self.asker.accepted(key, source.peer_id, now())
                transfer.source = other
                return
        self.do(self.asker.refused(key, sources[0].peer_id, reason, now()))

    def _status(self, key: bytes) -> Status:
        return self.asker.status(key, is_stored=key in self.node.stored) if self.node.alive else Status(Phase.NONE)
