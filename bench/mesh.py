"""A mesh of real hosts in one process: what a DHT request and a lookup cost."""

from __future__ import annotations

import asyncio
import time
from contextlib import AsyncExitStack
from random import Random

from speil.border.record import BorderRecord
from speil.kad.key import position
from speil.kad.message import Message, MessageType
from speil.kad.routing_table import K
from speil.libp2p.host import Host
from speil.libp2p.identity import Identity
from speil.multiformats.content_key import content_key
from speil.multiformats.multiaddr import Multiaddr
from speil.observe.metrics import Metrics
from speil.routing.bootstrap.driver import Bootstrap
from speil.routing.bootstrap.static import StaticBootstrapper
from speil.routing.dht import DhtRouter
from speil.routing.libp2p_network import Libp2pNetwork
from speil.routing.peerstore import Peerstore
from speil.setting import ListenAddress

_JOIN_SECONDS_MAX = 60.0
_SETTLE_SECONDS = 3.0  # all nodes share this process: let the announcing end


async def measure_mesh(node_count: int, rounds: int) -> tuple[list[float], list[float]]:
    """Sorted milliseconds of single requests, and of lookups of keys that nobody has asked for before."""
    networks: list[Libp2pNetwork] = []
    routers: list[DhtRouter] = []
    requests: list[float] = []
    async with AsyncExitStack() as stack, asyncio.TaskGroup() as group:
        tasks = []
        for _ in range(node_count):
            seeds: tuple[Multiaddr, ...] = (routers[0].local.addresses[0],) if routers else ()
            metrics = Metrics()
            host = Host(Identity.generate(), ListenAddress("127.0.0.1", 0), agent_version="bench", metrics=metrics)
            networks.append(
                Libp2pNetwork(await stack.enter_async_context(host), "/bench", metrics, BorderRecord("", metrics))
            )
            bootstrap = Bootstrap(StaticBootstrapper(seeds), Peerstore(None), metrics, Random(1))
            routers.append(DhtRouter(networks[-1], bootstrap, metrics, Random(1)))
            tasks.append(group.create_task(routers[-1].run()))
            await _until_ready(routers[-1])
            if len(routers) == 2:  # before the others share the process
                requests = await _requests(networks[1], networks[0], rounds)
        lookups = await _lookups(routers, rounds)
        for task in tasks:
            task.cancel()
    return requests, lookups


async def _until_ready(router: DhtRouter) -> None:
    async with asyncio.timeout(_JOIN_SECONDS_MAX):
        while not router.ready:
            await asyncio.sleep(0.005)


async def _requests(asker: Libp2pNetwork, asked: Libp2pNetwork, rounds: int) -> list[float]:
    found = []
    for _ in range(rounds):
        start = time.perf_counter()
        await asker.request(asked.local, Message(MessageType.PING))
        found.append((time.perf_counter() - start) * 1e3)
    return sorted(found)


async def _lookups(routers: list[DhtRouter], rounds: int) -> list[float]:
    """Lookups by a node that is not among the closest to the key, so that others have to be asked."""
    asker, holder = routers[1], routers[-1]
    keys = [key for number in range(rounds * 3) if _is_far(asker, key := f"sha256:{number:064x}", routers)][:rounds]
    await holder.provide(keys)
    async with asyncio.timeout(_JOIN_SECONDS_MAX):
        while not [peer async for peer in asker.find_providers(keys[-1], timeout_seconds=1)]:
            await asyncio.sleep(0.01)
    await asyncio.sleep(_SETTLE_SECONDS)
    found = []
    for key in keys[:-1]:
        start = time.perf_counter()
        async for _ in asker.find_providers(key, timeout_seconds=5):
            found.append((time.perf_counter() - start) * 1e3)
            break
    return sorted(found)


def _is_far(asker: DhtRouter, key: str, routers: list[DhtRouter]) -> bool:
    """Whether at least K nodes are closer to the key than the asker."""
    target = position(content_key(key))
    own = position(asker.local.peer_id.multihash) ^ target
    return sum(position(router.local.peer_id.multihash) ^ target < own for router in routers) >= K
