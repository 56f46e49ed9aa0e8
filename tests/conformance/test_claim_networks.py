"""The ways to the umpires: in memory."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from random import Random

from speil.claims.message import Status
from speil.libp2p.identity import Identity
from speil.multiformats.multiaddr import Multiaddr
from speil.multiformats.peer_info import PeerInfo
from speil.routing.claim_network import ClaimNetwork
from speil.routing.memory import MemoryRouter
from speil.routing.memory_claims import ClaimMesh, MemoryClaims
from speil.testing.claim_network_conformance import KEY, ClaimMeshUnderTest, ClaimNetworkConformance, Statuses


@dataclass
class _MemoryMesh:
    """The in-memory twin under test."""

    mesh: ClaimMesh
    nodes: Sequence[ClaimNetwork] = ()
    statuses: dict[bytes, Status] = field(default_factory=dict)

    async def provide(self, node: ClaimNetwork, name: str) -> None:
        await MemoryRouter(self.mesh.mesh, node.local).provide([name])

    async def kill(self, node: ClaimNetwork) -> None:
        self.mesh.dead.add(node.local.peer_id)


class TestMemoryClaims(ClaimNetworkConformance):
    """The in-memory twin."""

    @asynccontextmanager
    async def mesh(self, size: int, *zones: str) -> AsyncIterator[ClaimMeshUnderTest]:
        mesh, statuses = ClaimMesh(), Statuses()
        zones = (*zones, *[""] * (size - len(zones)))
        nodes = [
            MemoryClaims(
                mesh,
                PeerInfo(Identity.generate().peer_id, (Multiaddr.of_tcp(f"10.0.0.{number}", 5001),), zone),
                Random(number),
            )
            for number, zone in enumerate(zones)
        ]
        for node in nodes:
            node.attach(statuses.of)
        yield _MemoryMesh(mesh, nodes, statuses.known)

    def _knows_the_claim(self, node: ClaimNetwork) -> bool:
        assert isinstance(node, MemoryClaims)
        node.mesh.tick(asyncio.get_running_loop().time())
        return node.umpire.claim(KEY) is not None
