"""The ClaimNetwork port in memory: the nodes of one process, each with an umpire. For tests and single processes."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from random import Random

from speil.claims.codec import decode, encode
from speil.claims.facts import Around, Sender
from speil.claims.message import Answer, Ask, Release, Status
from speil.claims.umpire import Umpire
from speil.kad.key import position
from speil.kad.routing_table import K
from speil.multiformats.content_key import content_key
from speil.multiformats.peer_id import PeerId
from speil.multiformats.peer_info import PeerInfo
from speil.routing.claim_network import StatusOf
from speil.routing.memory import MemoryMesh
from speil.routing.network import NetworkError


class ClaimMesh:
    """What the nodes of one mesh share. A node in `dead` does not answer; change it while the mesh runs."""

    def __init__(self, mesh: MemoryMesh | None = None) -> None:
        """`mesh`: its records are the provider records of all umpires, which learn of each `provide`."""
        self.mesh = mesh or MemoryMesh()
        self.nodes: dict[PeerId, MemoryClaims] = {}
        self.dead: set[PeerId] = set()
        self.messages = 0  # requests and messages without an answer, not counting answers
        self.mesh.on_provided.append(self._provided)

    def closest(self, key: bytes) -> list[MemoryClaims]:
        """The K living nodes closest to a key, closest first."""
        living = (node for node in self.nodes.values() if node.local.peer_id not in self.dead)
        return sorted(living, key=lambda node: node.distance(key))[:K]

    def holders(self, key: bytes) -> list[PeerInfo]:
        """The nodes that announced the content of a key and live."""
        found = [peers for name, peers in self.mesh.records.items() if content_key(name) == key]
        living = (peer for peers in found for peer in peers if peer.peer_id not in self.dead)
        return [replace(peer, zone=self.mesh.zones.get(peer.peer_id, "")) for peer in living]

    def tick(self, now: float) -> None:
        """Carry out what is due at any umpire."""
        for node in [*self.nodes.values()]:
            due = node.umpire.next_deadline()
            if due is None or due > now:
                continue
            for action in node.umpire.tick(now):
                others = [one for one in self.closest(action.key) if one is not node]
                for other in others[: action.nodes]:
                    self.messages += 1
                    other.umpire.told(action.key, node.share, action.tell, now)

    def _provided(self, name: str, peer: PeerInfo) -> None:
        now = asyncio.get_running_loop().time()
        for node in self.closest(content_key(name)):
            node.umpire.announced(content_key(name), peer.peer_id, now)


class MemoryClaims:
    """A node in a ClaimMesh."""

    def __init__(self, mesh: ClaimMesh, local: PeerInfo, rng: Random) -> None:
        """`local` has the node's zone."""
        self.mesh, self._local = mesh, local
        self.umpire = Umpire(rng)
        self.share = next(iter(local.hosts), "") or local.peer_id.multihash.hex()
        self._status: StatusOf | None = None

    @property
    def local(self) -> PeerInfo:
        """See ClaimNetwork."""
        return self._local

    def attach(self, status: StatusOf) -> None:
        """See ClaimNetwork."""
        self._status = status
        self.mesh.nodes[self._local.peer_id] = self

    def closest(self, key: bytes) -> list[PeerInfo]:
        """See ClaimNetwork."""
        return [node.local for node in self.mesh.closest(key)] if self._status else []

    def nobody_has(self, key: bytes) -> bool:
        """See ClaimNetwork."""
        others = [peer for peer in self.mesh.holders(key) if peer.peer_id != self._local.peer_id]
        return len(self.mesh.nodes) <= K and not others

    async def ask(self, umpire: PeerInfo, key: bytes, ask: Ask) -> Answer:
        """See ClaimNetwork."""
        node = self if umpire.peer_id == self._local.peer_id else await self._reach(umpire)
        return node._answer(key, self, ask)

    async def ask_status(self, source: PeerInfo, key: bytes) -> Status:
        """See ClaimNetwork."""
        node = await self._reach(source)
        if node._status is None:
            raise NetworkError("the peer does not support claims")
        said = decode(encode(node._status(key)))
        assert isinstance(said, Status)
        return said

    async def release(self, umpire: PeerInfo, key: bytes, release: Release) -> None:
        """See ClaimNetwork."""
        try:
            node = self if umpire.peer_id == self._local.peer_id else await self._reach(umpire)
        except NetworkError:
            return
        node.umpire.released(key, Sender(self._local, self.share), release, _now())

    def distance(self, key: bytes) -> int:
        """From this node to a key."""
        return position(self._local.peer_id.multihash) ^ position(key)

    def _answer(self, key: bytes, asker: MemoryClaims, ask: Ask) -> Answer:
        self.mesh.tick(_now())
        closer = [node.local for node in self.mesh.closest(key) if node.distance(key) < self.distance(key)]
        around = Around(closer, self.mesh.holders(key))
        answer = self.umpire.ask(key, Sender(asker.local, asker.share), ask, _now(), around)
        assert decode(encode(answer)) == answer
        return answer

    async def _reach(self, peer: PeerInfo) -> MemoryClaims:
        self.mesh.messages += 1
        await asyncio.sleep(0)
        node = self.mesh.nodes.get(peer.peer_id)
        if node is None or {peer.peer_id, self._local.peer_id} & self.mesh.dead:
            raise NetworkError(f"{peer.peer_id.short}: not reached")
        return node


def _now() -> float:
    return asyncio.get_running_loop().time()
