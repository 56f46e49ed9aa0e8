"""An in-memory network for the DHT: nodes that answer after a while, lose messages, split apart and die.

The same `PeerNetwork` port as the real one. All chance comes from one seed; time is the running loop's.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from random import Random

from speil.kad.key import Key
from speil.kad.message import Message, announcements
from speil.multiformats.multiaddr import Multiaddr
from speil.multiformats.peer_id import PeerId
from speil.multiformats.peer_info import PeerInfo
from speil.routing.network import NetworkError, RequestHandler


@dataclass(slots=True)
class MemoryWire:
    """The network between the nodes; change its faults while it runs."""

    seed: int = 0
    latency_seconds: float = 0.0005
    loss: float = 0.0
    nodes: dict[PeerId, MemoryNetwork] = field(default_factory=dict)
    dead: set[PeerId] = field(default_factory=set)
    side: dict[PeerId, int] = field(default_factory=dict)
    rng: Random = field(default_factory=Random)
    messages: int = 0
    packed: bool = True

    def __post_init__(self) -> None:
        self.rng.seed(self.seed)

    def new_node(self, zone: str = "") -> MemoryNetwork:
        """A node with an address of its own."""
        number = len(self.nodes) + 1
        address = Multiaddr.of_tcp(f"10.{number >> 16 & 255}.{number >> 8 & 255}.{number & 255}", 5001)
        node = MemoryNetwork(self, PeerInfo(PeerId.of_public_key(self.rng.randbytes(36)), (address,)), zone)
        self.nodes[node.local.peer_id] = node
        return node

    def kill(self, peer_id: PeerId, *, polite: bool = False) -> None:
        """A node is gone at once; those connected to it see it leave, or with `polite` say goodbye."""
        self.dead.add(peer_id)
        for node in self.nodes.values():
            node.lose(peer_id, polite=polite)

    def at(self, address: Multiaddr) -> MemoryNetwork | None:
        """The node that listens at an address."""
        plain = address.without_peer_id
        return next((node for node in self.nodes.values() if plain in node.local.addresses), None)

    def over(self, message: Message) -> Message:
        """A message as it arrives."""
        return Message.decode(message.encode())

    async def carry(self, source: PeerId, target: PeerId) -> MemoryNetwork:
        """Bring a message over, or lose it. Raises NetworkError."""
        self.messages += 1
        await asyncio.sleep(self.latency_seconds * (0.5 + self.rng.random()))
        split = self.side.get(source, 0) != self.side.get(target, 0)
        if {source, target} & self.dead or split or self.rng.random() < self.loss or target not in self.nodes:
            raise NetworkError("lost")
        return self.nodes[target]


class MemoryNetwork:
    """One node's PeerNetwork."""

    def __init__(self, wire: MemoryWire, local: PeerInfo, zone: str = "") -> None:
        self._wire, self.local, self.zone = wire, local, zone
        self.host = local.hosts[0]  # where it is, whatever it claims
        self._connected: set[PeerId] = set()
        self._zones: dict[PeerId, str] = {}
        self._handler: RequestHandler
        self._on_joined: Callable[[PeerInfo, bool], None]
        self._on_left: Callable[[PeerId, bool], None]

    def attach(
        self,
        handler: RequestHandler,
        on_joined: Callable[[PeerInfo, bool], None],
        on_left: Callable[[PeerId, bool], None],
    ) -> None:
        """See PeerNetwork."""
        self._handler, self._on_joined, self._on_left = handler, on_joined, on_left

    def zone_of(self, peer_id: PeerId) -> str:
        """See PeerNetwork."""
        return self._zones.get(peer_id, "")

    def host_of(self, peer_id: PeerId) -> str:
        """See PeerNetwork."""
        node = self._wire.nodes.get(peer_id)
        return node.host if node and peer_id in self._connected else ""

    async def dial(self, address: Multiaddr) -> PeerInfo | None:
        """See PeerNetwork."""
        if (node := self._wire.at(address)) is None:
            raise NetworkError(f"nobody listens at {address}")
        await self._reach(node.local)
        self._on_joined(node.local, False)
        return node.local

    async def request(self, peer: PeerInfo, message: Message) -> Message:
        """See PeerNetwork."""
        node = await self._reach(peer)
        answer = node._handler(self.local, self._wire.over(message))
        await self._wire.carry(peer.peer_id, self.local.peer_id)
        if answer is None:
            raise NetworkError("no answer")
        return self._wire.over(answer)

    async def announce(self, peer: PeerInfo, keys: Sequence[Key]) -> None:
        """See PeerNetwork; the wire's `packed` says whether peers take places, as ours do."""
        await self.send(peer, announcements(self.local, keys, packed=self._wire.packed))

    async def send(self, peer: PeerInfo, messages: Sequence[Message]) -> None:
        """Tell without an answer, also what no honest node tells."""
        node = await self._reach(peer)
        for message in messages:
            node._handler(self.local, self._wire.over(message))

    def lose(self, peer_id: PeerId, *, polite: bool = False) -> None:
        """A peer's connection ended."""
        if peer_id in self._connected and self.local.peer_id not in self._wire.dead:
            self._connected.discard(peer_id)
            self._on_left(peer_id, polite)

    async def _reach(self, peer: PeerInfo) -> MemoryNetwork:
        node = await self._wire.carry(self.local.peer_id, peer.peer_id)
        if peer.peer_id not in self._connected:
            self._connected.add(peer.peer_id)
            node._connected.add(self.local.peer_id)
            self._zones[peer.peer_id], node._zones[self.local.peer_id] = node.zone, self.zone
            self._on_joined(node.local, True)
            node._on_joined(self.local, True)
        return node
