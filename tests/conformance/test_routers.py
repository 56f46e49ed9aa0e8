"""The routers: in memory, on the DHT over an in-memory network, on the DHT over libp2p."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from random import Random

from speil.libp2p.identity import Identity
from speil.multiformats.multiaddr import Multiaddr
from speil.multiformats.peer_info import PeerInfo
from speil.observe.metrics import Metrics
from speil.routing.base import Router
from speil.routing.bootstrap.driver import Bootstrap
from speil.routing.bootstrap.static import StaticBootstrapper
from speil.routing.claim_network import StatusOf
from speil.routing.dht import DhtRouter
from speil.routing.memory import MemoryMesh, MemoryRouter
from speil.routing.peerstore import Peerstore
from speil.testing.eventually import eventually
from speil.testing.network import MemoryWire
from speil.testing.router_conformance import RouterConformance
from tests.shell.mesh import address, dht_node


class TestMemoryRouter(RouterConformance):
    """The in-memory twin."""

    @asynccontextmanager
    async def mesh(self, size: int, *zones: str) -> AsyncIterator[list[Router]]:
        mesh = MemoryMesh()
        routers = [
            MemoryRouter(mesh, PeerInfo(Identity.generate().peer_id, (Multiaddr.of_tcp(f"10.0.0.{number}", 1),)))
            for number in range(size)
        ]
        mesh.zones = {router.local.peer_id: zone for router, zone in zip(routers, zones, strict=False)}
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(router.run()) for router in routers]
            await eventually(lambda: all(router.ready for router in routers))
            yield list(routers)
            for task in tasks:
                task.cancel()


class TestDhtInMemory(RouterConformance):
    """The DHT on the in-memory network."""

    @asynccontextmanager
    async def mesh(self, size: int, *zones: str) -> AsyncIterator[list[Router]]:
        async with memory_dht(MemoryWire(seed=1), size, *zones) as routers:
            yield list(routers)


class TestDhtOverLibp2p(RouterConformance):
    """The DHT as it runs."""

    @asynccontextmanager
    async def mesh(self, size: int, *zones: str) -> AsyncIterator[list[Router]]:
        told = [*zones, *[""] * (size - len(zones))]
        async with AsyncExitStack() as stack:
            first = await stack.enter_async_context(dht_node(zone=told[0]))
            seed = address(first.local)
            others = [await stack.enter_async_context(dht_node(seed, zone=zone)) for zone in told[1:]]
            for router in (first, *others):
                await eventually(partial(_knows, router, size - 1), what="the mesh is complete")
            yield [first, *others]


@asynccontextmanager
async def memory_dht(
    wire: MemoryWire, size: int, *zones: str, labels: Sequence[str] = (), status: StatusOf | None = None
) -> AsyncIterator[list[DhtRouter]]:
    """DHT routers on an in-memory network, bootstrapped from the first. With `status` they take part in claims."""
    routers: list[DhtRouter] = []
    async with asyncio.TaskGroup() as group:
        tasks = []
        for number in range(size):
            zone, label = (names[number] if number < len(names) else "" for names in (zones, labels))
            network, metrics = wire.new_node(zone, label), Metrics()
            seeds = (routers[0].local.addresses[0],) if routers else ()
            bootstrap = Bootstrap(StaticBootstrapper(seeds), Peerstore(None), metrics, Random(number))
            routers.append(DhtRouter(network, bootstrap, metrics, Random(number), zone=zone))
            if status:
                routers[-1].claims.attach(status)
            tasks.append(group.create_task(routers[-1].run()))
            await eventually(lambda: routers[-1].ready, what="a node joined")
        yield routers
        for task in tasks:
            task.cancel()


def _knows(router: Router, count: int) -> bool:
    return len(router.peers()) == count
