"""A region of DHT nodes under virtual time, with keys to announce: what announcing costs, and what it is worth.

Real routers on the in-memory network; only the codec is left out, so that hundreds of nodes fit into one process:
messages are counted and their size is computed. Every message takes the same time, so the time to an answer is the
number of round trips that it took.
"""

from __future__ import annotations

import asyncio
import sys
from collections import Counter
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from random import Random

from speil.kad.key import BITS, position
from speil.kad.message import Message, MessageType
from speil.kad.routing_table import K
from speil.multiformats.content_key import content_key
from speil.multiformats.peer_id import PeerId
from speil.multiformats.peer_info import PeerInfo
from speil.observe.metrics import Metrics
from speil.routing.bootstrap.driver import Bootstrap
from speil.routing.bootstrap.static import StaticBootstrapper
from speil.routing.dht import DhtRouter
from speil.routing.network import NetworkError
from speil.routing.peerstore import Peerstore
from speil.testing.network import MemoryNetwork, MemoryWire

LATENCY_SECONDS = 0.0005
HANG_SECONDS = 10.0  # until a request to a frozen node is given up, as the real network does
JOIN_SECONDS = 0.05  # between two nodes that join


@dataclass(slots=True)
class Traffic:
    """What went over the wire: messages and bytes by type; a record is one key announced to one node."""

    messages: Counter[MessageType] = field(default_factory=Counter)
    bytes: Counter[MessageType] = field(default_factory=Counter)
    records: int = 0


class CountingWire(MemoryWire):
    """A wire without codec, loss or jitter that counts."""

    traffic: Traffic
    frozen: set[PeerId]
    watched: PeerId | None  # whose messages, sent or got, are counted in `watched_messages`
    watched_messages: int
    _peer_sizes: dict[PeerInfo, int]

    def __post_init__(self) -> None:
        MemoryWire.__post_init__(self)
        self.traffic, self.frozen, self._peer_sizes = Traffic(), set(), {}
        self.watched, self.watched_messages = None, 0

    async def carry(self, source: PeerId, target: PeerId) -> MemoryNetwork:
        """A message takes LATENCY_SECONDS; the dead don't answer, the frozen let wait."""
        self.watched_messages += self.watched in (source, target)
        await asyncio.sleep(HANG_SECONDS if target in self.frozen else LATENCY_SECONDS)
        if target in self.frozen:
            raise NetworkError("it hangs")
        if target in self.dead or source in self.dead:
            raise NetworkError("it is dead")
        return self.nodes[target]

    def over(self, message: Message) -> Message:
        """Count it; it arrives as it is."""
        self.traffic.messages[message.type] += 1
        self.traffic.bytes[message.type] += self._size(message)
        self.traffic.records += message.type is MessageType.ADD_PROVIDER and 1 + len(message.places)
        return message

    def _size(self, message: Message) -> int:
        if message.places or message.counts or not (message.closer_peers or message.provider_peers):
            return len(message.encode())
        size = 4 + len(message.key)
        for peer in (*message.closer_peers, *message.provider_peers):
            if (known := self._peer_sizes.get(peer)) is None:
                one = Message(MessageType.PING, provider_peers=(peer,))
                known = self._peer_sizes[peer] = len(one.encode()) - len(Message(MessageType.PING).encode())
            size += known
        return size


@dataclass(frozen=True, slots=True)
class Found:
    """How lookups went: the share that found a provider, round trips to the first, messages to the end."""

    share: float
    trips: float
    messages: float
    in_zone: float


class World:
    """A region; `run` in virtual time."""

    def __init__(
        self,
        seed: int = 0,
        *,
        zones: int = 3,
        refreshing: bool = True,
    ) -> None:
        """`refreshing`: whether the nodes keep their tables fresh, or announce and nothing else."""
        self.rng = Random(seed)
        self.wire = CountingWire(seed=seed)
        self.routers: list[DhtRouter] = []
        self.metrics: list[Metrics] = []
        self.holders: dict[str, list[DhtRouter]] = {}
        self.popular: list[str] = []
        self.rare: list[str] = []
        self._zones, self._refreshing = zones, refreshing
        self._tasks: list[asyncio.Task[None]] = []
        self._group: asyncio.TaskGroup

    @asynccontextmanager
    async def running(self, size: int) -> AsyncIterator[World]:
        """`size` nodes that have joined."""
        async with asyncio.TaskGroup() as self._group:
            for _ in range(size):
                self.join()
                await asyncio.sleep(JOIN_SECONDS)
            for router in self.routers:
                await router._lookups.refresh()
            yield self
            for task in self._tasks:
                task.cancel()

    def join(self) -> DhtRouter:
        """One more node, in a zone of its own turn."""
        number = len(self.routers)
        zone = f"z{number % self._zones}" if self._zones else ""
        metrics, rng = Metrics(), Random(self.rng.random())
        seeds = (self.rng.choice(self.alive).local.addresses[0],) if self.routers else ()
        bootstrap = Bootstrap(StaticBootstrapper(seeds), Peerstore(None), metrics, rng)
        router = DhtRouter(self.wire.new_node(zone), bootstrap, metrics, rng, zone=zone)
        if not self._refreshing:
            router._keep_fresh = asyncio.Event().wait  # type: ignore[method-assign, assignment]
        self.routers.append(router)
        self.metrics.append(metrics)
        self._tasks.append(self._group.create_task(router.run()))
        return router

    @property
    def alive(self) -> list[DhtRouter]:
        """Those that have not been killed."""
        return [router for router in self.routers if router.local.peer_id not in self.wire.dead]

    def kill(self, router: DhtRouter) -> None:
        """A node is gone for good."""
        self._tasks[self.routers.index(router)].cancel()
        self.wire.kill(router.local.peer_id)

    def deal(self, popular: int, rare: int, rare_holders: int, parts: int = 1) -> dict[DhtRouter, list[str]]:
        """Keys for everybody: `popular` ones on every node, and `rare` ones a node, each on a few; who holds what.

        With `parts` only those that fall into the first of as many parts of the key space.
        """
        self.popular = [name for number in range(popular) if _is_in_part(name := f"popular {number}", parts)]
        rare *= len(self.routers) // rare_holders
        self.rare = [name for number in range(rare) if _is_in_part(name := f"rare {number}", parts)]
        for name in self.popular:
            self.holders[name] = list(self.routers)
        for name in self.rare:
            self.holders[name] = self.rng.sample(self.routers, min(rare_holders, len(self.routers)))
        held: dict[DhtRouter, list[str]] = {router: [] for router in self.routers}
        for key, holders in self.holders.items():
            for router in holders:
                held[router].append(key)
        return held

    async def measure(self, seconds: float) -> Traffic:
        """What goes over the wire in a while."""
        self.wire.traffic = Traffic()
        await asyncio.sleep(seconds)
        return self.wire.traffic

    def providers(self, key: str) -> list[int]:
        """How many living holders each of the living nodes closest to a key knows of, in order."""
        alive = {router.local.peer_id for router in self.alive}
        living = {router.local.peer_id for router in self.holders[key]} & alive
        multihash, now = content_key(key), asyncio.get_running_loop().time()
        known = [{peer.peer_id for peer in one._records.live(multihash, now)} for one in self.closest(key)]
        return sorted(len(living & peers) for peers in known)

    def closest(self, key: str) -> list[DhtRouter]:
        """The living nodes that should keep a key's records."""
        target = position(content_key(key))
        return sorted(self.alive, key=lambda one: position(one.local.peer_id.multihash) ^ target)[:K]

    async def look(self, keys: Iterable[str]) -> Found:
        """Look each key up from a node that does not hold it, if there is one."""
        trips, in_zone, found, asked = 0.0, 0, 0, 0
        self.wire.watched_messages = 0
        for key in keys:
            asker = self.rng.choice([one for one in self.alive if one not in self.holders[key]] or self.alive)
            asked, self.wire.watched = asked + 1, asker.local.peer_id
            started, first = asyncio.get_running_loop().time(), None
            zones = []
            async for peer in asker.find_providers(key, timeout_seconds=5):
                first = first if first is not None else asyncio.get_running_loop().time() - started
                zones.append(self.wire.nodes[peer.peer_id].zone)
            found += first is not None
            trips += (first or 0) / (2 * LATENCY_SECONDS)
            in_zone += self.wire.nodes[asker.local.peer_id].zone in zones
        self.wire.watched = None
        messages = self.wire.watched_messages / asked
        return Found(found / asked, trips / max(found, 1), messages, in_zone / asked)


def _is_in_part(name: str, parts: int) -> bool:
    return position(content_key(name)) * parts >> BITS == 0


def deep_size(root: object) -> int:
    """Bytes of an object and of everything it holds; shared things count once."""
    seen: set[int] = set()
    size, queue = 0, [root]
    while queue:
        one = queue.pop()
        if id(one) in seen or isinstance(one, type):
            continue
        seen.add(id(one))
        size += sys.getsizeof(one)
        if isinstance(one, dict):
            queue.extend(one)
            queue.extend(one.values())
        elif isinstance(one, list | tuple | set):
            queue.extend(one)
        else:
            queue.extend(vars(one).values() if hasattr(one, "__dict__") else ())
            names = [name for kind in type(one).__mro__ for name in getattr(kind, "__slots__", ())]
            queue.extend(getattr(one, name) for name in names if hasattr(one, name))
    return size
