"""The announcing that speil began with, kept to measure against: every holder tells the closest nodes of each key
every 15 minutes, each key at its own time, one message a key; records are dicts.
"""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Iterable, Sequence
from random import Random

from speil.kad.key import Key, common_prefix_length
from speil.kad.key import position as position_of
from speil.kad.message import MessageType
from speil.kad.provider_records import PROVIDERS_ANSWERED_MAX, PROVIDERS_PER_KEY_MAX, VALIDITY_SECONDS
from speil.kad.routing_table import K
from speil.multiformats.peer_id import PeerId
from speil.multiformats.peer_info import PeerInfo
from speil.observe.metrics import Metrics
from speil.routing.bootstrap.driver import Bootstrap
from speil.routing.dht import DhtRouter
from speil.routing.lookups import Lookups, now
from speil.routing.network import NetworkError, PeerNetwork

REPROVIDE_SECONDS, EARLY_SHARE_MAX, RETRY_SECONDS, BATCH_MAX = 15 * 60.0, 0.1, 10.0, 2000


class RecordsBefore:
    """Provider records as a dict of dicts."""

    def __init__(self) -> None:
        self._records: dict[bytes, dict[PeerId, float]] = {}
        self._peers: dict[PeerId, PeerInfo] = {}

    def __len__(self) -> int:
        return sum(map(len, self._records.values()))

    def add(self, key: bytes, provider: PeerInfo, time: float) -> bool:
        """Keep or renew a record; the oldest of a key gives way."""
        holders = self._records.setdefault(key, {})
        if provider.peer_id not in holders and len(holders) >= PROVIDERS_PER_KEY_MAX:
            del holders[min(holders, key=holders.__getitem__)]
        holders[provider.peer_id] = time + VALIDITY_SECONDS
        self._peers[provider.peer_id] = provider
        return True

    def add_places(self, places: Iterable[int], provider: PeerInfo, time: float, **origin: object) -> int:
        """There were none."""
        return 0

    def live(self, key: bytes, time: float) -> list[PeerInfo]:
        """All that have not run out."""
        return [self._peers[one] for one, expires in self._records.get(key, {}).items() if expires > time]

    def providers(self, key: bytes, time: float, rng: Random, zone: str = "") -> list[PeerInfo]:
        """A sample of them by chance; zones don't count."""
        live = self.live(key, time)
        return rng.sample(live, min(len(live), PROVIDERS_ANSWERED_MAX))

    def provider(self, peer_id: PeerId) -> PeerInfo | None:
        """Those who left were not asked for their records' sake."""
        return None

    def mark_away(self, peer_id: PeerId) -> None:
        """Nor were their records doubted."""

    def mark_back(self, peer_id: PeerId) -> None:
        """See `mark_away`."""

    def expire_some(self, time: float) -> bool:
        """All at once."""
        for key, holders in list(self._records.items()):
            for one in [one for one, expires in holders.items() if expires <= time]:
                del holders[one]
            if not holders:
                del self._records[key]
        return False


class PublisherBefore:
    """Announces each key when it is due, whoever else has it."""

    def __init__(self, network: PeerNetwork, router: RouterBefore, lookups: Lookups, rng: Random) -> None:
        self._network, self._router, self._lookups, self._rng = network, router, lookups, rng
        self._queue: list[tuple[float, str]] = []

    def met(self, peer: PeerInfo) -> None:
        """Meshes that are measured are larger than those whose newcomers were told everything."""

    def schedule(self, names: Iterable[str], spread_seconds: float) -> None:
        """Keys that have been announced for a while: due by chance within the interval."""
        for name in names:
            heapq.heappush(self._queue, (now() + self._rng.random() * spread_seconds, name))

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            due: list[Key] = []
            while self._queue and self._queue[0][0] <= now() and len(due) < BATCH_MAX:
                due.append(Key.of(heapq.heappop(self._queue)[1]))
            if due:
                await self._announce(sorted(due, key=lambda key: key.position))
            else:
                await asyncio.sleep(max(self._queue[0][0] - now(), 0) if self._queue else 1.0)

    async def _announce(self, keys: list[Key]) -> None:
        while keys:
            lookup = await self._lookups.run(keys[0].multihash, MessageType.FIND_NODE)
            peers, count, first = lookup.result(), len(keys), keys[0].position
            if len(peers) >= K:
                shared = min(common_prefix_length(first, position_of(peer.peer_id.multihash)) for peer in peers)
                count = 1
                while count < len(keys) and common_prefix_length(first, keys[count].position) > shared:
                    count += 1
                near = (*peers, *self._router._table.closest(first, 2 * K))
                peers = list({peer.peer_id: peer for peer in near}.values())
            await self._tell(keys[:count], peers)
            for key in keys[:count]:
                again = now() + REPROVIDE_SECONDS * (1 - self._rng.random() * EARLY_SHARE_MAX)
                heapq.heappush(self._queue, (again, key.name))
            keys = keys[count:]

    async def _tell(self, keys: Sequence[Key], peers: list[PeerInfo]) -> None:
        keys_of: dict[PeerId, tuple[PeerInfo, list[Key]]] = {}
        standing = [(position_of(peer.peer_id.multihash), peer) for peer in peers]
        for key in keys:
            for _, peer in sorted(standing, key=lambda item, place=key.position: item[0] ^ place)[:K]:  # type: ignore[misc]
                keys_of.setdefault(peer.peer_id, (peer, []))[1].append(key)

        async def tell(peer: PeerInfo, theirs: list[Key]) -> None:
            try:
                await self._network.announce(peer, theirs)
            except NetworkError:
                self._lookups.failed(peer.peer_id)

        async with asyncio.TaskGroup() as group:
            for peer, theirs in keys_of.values():
                group.create_task(tell(peer, theirs))


class RouterBefore(DhtRouter):
    """A router that announces in the old way."""

    def __init__(self, network: PeerNetwork, bootstrap: Bootstrap, metrics: Metrics, rng: Random) -> None:
        super().__init__(network, bootstrap, metrics, rng)
        self._records = RecordsBefore()  # type: ignore[assignment]
        self._publisher = PublisherBefore(network, self, self._lookups, rng)  # type: ignore[assignment]

    def take_up(self, names: Iterable[str]) -> None:
        """Hold keys that were announced before; the world fills in the records."""
        self._publisher.schedule(names, REPROVIDE_SECONDS)  # type: ignore[attr-defined]


def before(network: PeerNetwork, bootstrap: Bootstrap, metrics: Metrics, rng: Random, zone: str) -> DhtRouter:
    """A RouterFactory."""
    return RouterBefore(network, bootstrap, metrics, rng)


def fill(routers: list[DhtRouter], holders: dict[str, list[DhtRouter]], rng: Random) -> None:
    """Put all records where an interval of announcing would have put them, each of some age."""
    standing = [(position_of(router.local.peer_id.multihash), router) for router in routers]
    time = now()
    for name, held in holders.items():
        key = Key.of(name)
        closest = sorted(standing, key=lambda item, place=key.position: item[0] ^ place)[:K]  # type: ignore[misc]
        ages = sorted((rng.random() * REPROVIDE_SECONDS for _ in held), reverse=True)
        newest = list(zip(ages, held, strict=True))[-PROVIDERS_PER_KEY_MAX:]
        for _, router in closest:
            for age, holder in newest:
                if holder is not router:
                    router._records.add(key.multihash, holder.local, time - age)
