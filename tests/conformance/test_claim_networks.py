"""The ways to the umpires: in memory, on the DHT over an in-memory network, on the DHT over libp2p."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from random import Random

from speil.claims.message import Status
from speil.libp2p.identity import Identity
from speil.multiformats.content_key import content_key
from speil.multiformats.multiaddr import Multiaddr
from speil.multiformats.peer_info import PeerInfo
from speil.routing.base import Router
from speil.routing.claim_network import ClaimNetwork
from speil.routing.dht import DhtRouter
from speil.routing.dht_claims import DhtClaims
from speil.routing.memory import MemoryRouter
from speil.routing.memory_claims import ClaimMesh, MemoryClaims
from speil.testing.claim_network_conformance import KEY, ClaimMeshUnderTest, ClaimNetworkConformance, Statuses
from speil.testing.eventually import eventually
from speil.testing.network import MemoryWire
from tests.conformance.test_routers import memory_dht
from tests.shell.mesh import address, dht_node


@dataclass
class _MemoryMesh:
    """The in-memory twin under test."""

    mesh: ClaimMesh
    nodes: Sequence[ClaimNetwork] = ()
    statuses: dict[bytes, Status] = field(default_factory=dict)

    async def provide(self, node: ClaimNetwork, name: str) -> None:
        await MemoryRouter(self.mesh.mesh, node.local).provide([name])

    def knows_holder(self, node: ClaimNetwork, holder: ClaimNetwork, name: str) -> bool:
        return holder.local in self.mesh.holders(content_key(name))

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


@dataclass
class _DhtMesh:
    """The DHT under test. `stops` ends a node."""

    routers: Sequence[DhtRouter]
    statuses: dict[bytes, Status]
    stops: dict[ClaimNetwork, Callable[[], Awaitable[object]]]

    @property
    def nodes(self) -> Sequence[ClaimNetwork]:
        return [router.claims for router in self.routers]

    async def provide(self, node: ClaimNetwork, name: str) -> None:
        await self._router(node).provide([name])

    def knows_holder(self, node: ClaimNetwork, holder: ClaimNetwork, name: str) -> bool:
        return holder.local in self._router(node)._holders(content_key(name), "")

    async def kill(self, node: ClaimNetwork) -> None:
        await self.stops[node]()

    def _router(self, node: ClaimNetwork) -> DhtRouter:
        (router,) = (router for router in self.routers if router.claims is node)
        return router


class _DhtConformance(ClaimNetworkConformance):
    def _knows_the_claim(self, node: ClaimNetwork) -> bool:
        assert isinstance(node, DhtClaims)
        return node.server.umpire.claim(KEY) is not None


class TestDhtClaimsInMemory(_DhtConformance):
    """The DHT on the in-memory network."""

    @asynccontextmanager
    async def mesh(self, size: int, *zones: str) -> AsyncIterator[ClaimMeshUnderTest]:
        wire, statuses = MemoryWire(seed=1), Statuses()
        async with memory_dht(wire, size, *zones, status=statuses.of) as routers:
            for router in routers:
                await eventually(partial(_knows, router, size - 1), what="the mesh is complete")

            async def kill(router: DhtRouter) -> None:
                wire.kill(router.local.peer_id)

            yield _DhtMesh(routers, statuses.known, {router.claims: partial(kill, router) for router in routers})


class TestDhtClaimsOverLibp2p(_DhtConformance):
    """The DHT as it runs."""

    @asynccontextmanager
    async def mesh(self, size: int, *zones: str) -> AsyncIterator[ClaimMeshUnderTest]:
        told, statuses = [*zones, *[""] * (size - len(zones))], Statuses()
        async with AsyncExitStack() as stack:
            routers: list[DhtRouter] = []
            stops: dict[ClaimNetwork, Callable[[], Awaitable[object]]] = {}
            for zone in told:
                seeds = [address(routers[0].local)] if routers else []
                own = await stack.enter_async_context(AsyncExitStack())
                routers.append(await own.enter_async_context(dht_node(*seeds, zone=zone, status=statuses.of)))
                stops[routers[-1].claims] = own.aclose
            for router in routers:
                await eventually(partial(_knows, router, size - 1), what="the mesh is complete")
            yield _DhtMesh(routers, statuses.known, stops)


def _knows(router: Router, count: int) -> bool:
    return len(router.peers()) == count
