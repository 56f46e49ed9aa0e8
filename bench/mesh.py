"""A mesh of real hosts in one process: what a DHT request and a lookup cost, and how soon a new key is known."""

from __future__ import annotations

import asyncio
import time
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
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
_REST_SECONDS = 0.1  # between two new keys: the first ones' records still go out, from and to this process
_SETTLE_SECONDS = 3.0  # all nodes share this process: let the announcing end


@dataclass(slots=True)
class MeshTimes:
    """Sorted milliseconds."""

    requests: list[float] = field(default_factory=list)
    lookups: list[float] = field(default_factory=list)  # of keys that nobody has asked for before
    news_of_three: list[float] = field(default_factory=list)  # from a new key on a node to its record on another
    news_of_all: list[float] = field(default_factory=list)


async def measure_mesh(node_count: int, rounds: int) -> MeshTimes:
    """Nodes come one by one; what two or three of them need is measured before the others share the process."""
    networks: list[Libp2pNetwork] = []
    routers: list[DhtRouter] = []
    times = MeshTimes()
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
            if len(routers) == 2:
                times.requests = await _requests(networks[1], networks[0], rounds)
            if len(routers) == 3:
                times.news_of_three = await _news(routers, rounds)
        times.lookups = await _lookups(routers, rounds)
        times.news_of_all = await _news(routers, rounds)
        for task in tasks:
            task.cancel()
    return times


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


async def _news(routers: list[DhtRouter], rounds: int) -> list[float]:
    """From a key that is new on a node to the first of the records on other nodes."""
    found = []
    for number in range(rounds):
        holder, key = routers[number % len(routers)], f"new {number} among {len(routers)}"
        multihash = content_key(key)
        start = time.perf_counter()
        await holder.provide([key])
        async with asyncio.timeout(_JOIN_SECONDS_MAX):
            while not any(one._records.live(multihash, start) for one in routers if one is not holder):
                await asyncio.sleep(0)
        found.append((time.perf_counter() - start) * 1e3)
        await asyncio.sleep(_REST_SECONDS)
    return sorted(found)


def _is_far(asker: DhtRouter, key: str, routers: list[DhtRouter]) -> bool:
    """Whether at least K nodes are closer to the key than the asker."""
    target = position(content_key(key))
    own = position(asker.local.peer_id.multihash) ^ target
    return sum(position(router.local.peer_id.multihash) ^ target < own for router in routers) >= K
