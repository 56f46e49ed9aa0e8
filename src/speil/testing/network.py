"""An in-memory network for the DHT: nodes that answer after a while, lose messages, split apart and die.

The same `PeerNetwork` port as the real one. All chance comes from one seed; time is the running loop's.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Sequence
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
    on_carried: Callable[[PeerId, PeerId, Message], None] | None = None  # called with each request, and each message

    def __post_init__(self) -> None:
        self.rng.seed(self.seed)

    def new_node(self, zone: str = "", label: str = "") -> MemoryNetwork:
        """A node with an address of its own. `label`: its topology label."""
        number = len(self.nodes) + 1
        address = Multiaddr.of_tcp(f"10.{number >> 16 & 255}.{number >> 8 & 255}.{number & 255}", 5001)
        node = MemoryNetwork(self, PeerInfo(PeerId.of_public_key(self.rng.randbytes(36)), (address,)), zone, label)
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

    def carried(self, source: PeerId, target: PeerId, message: Message) -> None:
        """A message arrived."""
        if self.on_carried:
            self.on_carried(source, target, message)

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

    def __init__(self, wire: MemoryWire, local: PeerInfo, zone: str = "", label: str = "") -> None:
        self._wire, self.local, self.zone, self.label = wire, local, zone, label
        self.has_claims = False
        self.host = local.hosts[0]  # where it is, whatever it claims
        self._connected: set[PeerId] = set()
        self._met: dict[PeerId, MemoryNetwork] = {}
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
        return met.zone if (met := self._met.get(peer_id)) else ""

    def host_of(self, peer_id: PeerId) -> str:
        """See PeerNetwork."""
        node = self._wire.nodes.get(peer_id)
        return node.host if node and peer_id in self._connected else ""

    def enable_claims(self) -> None:
        """See PeerNetwork."""
        self.has_claims = True

    def understands_claims(self, peer_id: PeerId) -> bool:
        """See PeerNetwork."""
        return peer_id in self._met and self._met[peer_id].has_claims

    def foreign_to(self, peer_id: PeerId) -> Collection[PeerId]:
        """See PeerNetwork."""
        label = self.label if peer_id == self.local.peer_id else self._label_of(peer_id)
        return {other for other in self._met if label and self._label_of(other) not in ("", label)}

    def usable(self, namer: PeerId, named: Sequence[PeerInfo], *, any_port: bool = False) -> tuple[PeerInfo, ...]:
        """See PeerNetwork; every address may be dialled."""
        foreign = self.foreign_to(self.local.peer_id)
        return tuple(peer for peer in named if peer.addresses and peer.peer_id not in foreign)

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
        self._wire.carried(self.local.peer_id, peer.peer_id, message)
        answer = node._handler(self.local, self._wire.over(message))
        await self._wire.carry(peer.peer_id, self.local.peer_id)
        if answer is None:
            raise NetworkError("no answer")
        return self._wire.over(answer)

    async def announce(self, peer: PeerInfo, keys: Sequence[Key]) -> None:
        """See PeerNetwork; the wire's `packed` says whether peers take places, as ours do."""
        await self.send_all(peer, announcements(self.local, keys, packed=self._wire.packed))

    async def send(self, peer: PeerInfo, message: Message) -> None:
        """See PeerNetwork."""
        await self.send_all(peer, [message])

    async def send_all(self, peer: PeerInfo, messages: Sequence[Message]) -> None:
        """Send messages without waiting for an answer, also messages that no honest node sends."""
        node = await self._reach(peer)
        for message in messages:
            self._wire.carried(self.local.peer_id, peer.peer_id, message)
            node._handler(self.local, self._wire.over(message))

    def lose(self, peer_id: PeerId, *, polite: bool = False) -> None:
        """A peer's connection ended."""
        if peer_id in self._connected and self.local.peer_id not in self._wire.dead:
            self._connected.discard(peer_id)
            self._on_left(peer_id, polite)

    async def _reach(self, peer: PeerInfo) -> MemoryNetwork:
        node = await self._wire.carry(self.local.peer_id, peer.peer_id)
        if self.label and node.label and self.label != node.label:
            raise NetworkError("refused: another topology label")
        if peer.peer_id not in self._connected:
            self._connected.add(peer.peer_id)
            node._connected.add(self.local.peer_id)
            self._met[peer.peer_id], node._met[self.local.peer_id] = node, self
            self._on_joined(node.local, True)
            node._on_joined(self.local, True)
        return node

    def _label_of(self, peer_id: PeerId) -> str:
        return met.label if (met := self._met.get(peer_id)) else ""
