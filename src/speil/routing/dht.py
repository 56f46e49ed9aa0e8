"""The Router port on a Kademlia DHT: carries out the decisions of `kad` over a `PeerNetwork`.

Requests of peers are answered at once from the routing table and the records. A search (`search`) uses this node's
records and recent results first, then a lookup (`lookups`) whose answers are passed on as they arrive. `publisher`
announces this node's keys.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Sequence
from random import Random

from speil.kad.key import place, position
from speil.kad.message import Message, MessageType
from speil.kad.network_group import OwnNetwork
from speil.kad.provider_records import VALIDITY_SECONDS, ProviderRecords
from speil.kad.routing_table import Origin, RoutingTable
from speil.multiformats.content_key import content_key
from speil.multiformats.peer_id import PeerId
from speil.multiformats.peer_info import PeerInfo
from speil.observe.logs import get_log
from speil.observe.metrics import Metrics
from speil.routing.bootstrap.driver import Bootstrap
from speil.routing.dht_claims import DhtClaims
from speil.routing.lookups import Lookups, now
from speil.routing.network import NetworkError, NotAskedError, PeerNetwork
from speil.routing.publisher import Publisher
from speil.routing.search import Search
from speil.routing.series import DhtSeries

SEARCH_SECONDS_MAX = 5.0  # no request waits longer
SEARCHES_MAX = 512  # running or remembered; further requests get the providers that are known locally
# Of one answer: speil names 20, go-libp2p all it knows, and a malicious peer must not crowd out others.
PROVIDERS_TAKEN_MAX = 40
FOUND_MEMORY_SECONDS = 3.0  # containerd requests a layer by HEAD, GET and Range within moments
EMPTY_MEMORY_SECONDS = 0.25  # short: the content may be announced at any time
LIVENESS_SECONDS = 5 * 60.0  # a peer that was silent for this long gets a ping
REFRESH_SECONDS = 10 * 60.0  # go-libp2p-kad-dht's
EXPIRE_SECONDS = 60.0

log = get_log("dht")


class DhtRouter:
    """One node of the DHT. See `routing.base.Router`."""

    def __init__(
        self, network: PeerNetwork, bootstrap: Bootstrap, metrics: Metrics, rng: Random, *, zone: str = ""
    ) -> None:
        """`zone` is this node's own, "" where it has none."""
        self._network, self._bootstrap, self._rng = network, bootstrap, rng
        self._series = metrics.of(DhtSeries)
        self._zone = zone
        self._own = OwnNetwork(network.local.hosts)
        self._table = RoutingTable(network.local.peer_id, self._own, self._origin_of)
        self._records = ProviderRecords(self._own)
        self._lookups = Lookups(network, self._table, metrics, self._ran_dry)
        self._publisher = Publisher(network, self._table, self._records, self._lookups, metrics, rng, zone=zone)
        self.claims = DhtClaims(
            network,
            self._table,
            self._lookups,
            self._own,
            metrics,
            rng,
            holders=self._holders,
            nearest=self._nearest,
            zone=zone,
        )
        self._searches: dict[bytes, Search] = {}
        self._tasks: asyncio.TaskGroup | None = None
        network.attach(self._answer, self._joined, self._left)

    @property
    def local(self) -> PeerInfo:
        """This node."""
        return self._network.local

    @property
    def ready(self) -> bool:
        """See Router; also true once a peer has connected by itself."""
        return self._bootstrap.decided or len(self._table) > 0

    def zone_of(self, peer_id: PeerId) -> str:
        """See Router."""
        return self._network.zone_of(peer_id)

    def peers(self) -> list[PeerInfo]:
        """See Router."""
        return list(self._table)

    async def run(self) -> None:
        """See Router."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._bootstrap.run(self._network, self._table.__len__, self._lookups.refresh))
            tasks.create_task(self._keep_fresh())
            tasks.create_task(self._keep_records())
            tasks.create_task(self.claims.run())
            self._tasks = tasks
            try:
                await self._publisher.run()
            finally:
                self._tasks = None  # searches and checks end with the group, and no new ones start

    # --- searches ---------------------------------------------------------------------------------------

    def known_providers(self, key: str) -> list[PeerInfo]:
        """See Router."""
        multihash = content_key(key)
        known = self._known(multihash)
        if (search := self._searches.get(multihash)) and not _forgotten(search, now()):
            for peer in known:  # records that came since it began
                search.add(peer)
            return list(search.found.values())
        if known:
            self._series.resolve_duration.labels("libp2p").observe(0.0)
        return known

    async def find_providers(self, key: str, *, timeout_seconds: float) -> AsyncIterator[PeerInfo]:
        """See Router."""
        async for peer in self._search(key).follow(timeout_seconds):
            yield peer

    def _search(self, key: str) -> Search:
        time = now()
        multihash = content_key(key)
        if (search := self._searches.get(multihash)) and not _forgotten(search, time):
            return search
        search = Search()
        for peer in self._known(multihash):
            search.add(peer)
        if self._tasks is None or not self._make_room(time):
            search.end(time)
            return search
        self._searches[multihash] = search
        self._tasks.create_task(self._run_search(multihash, search))
        return search

    def _known(self, multihash: bytes) -> list[PeerInfo]:
        return [peer for peer in self._holders(multihash, self._zone) if peer.peer_id != self.local.peer_id]

    def _make_room(self, time: float) -> bool:
        if len(self._searches) >= SEARCHES_MAX:
            for key in [key for key, search in self._searches.items() if _forgotten(search, time)]:
                del self._searches[key]
        return len(self._searches) < SEARCHES_MAX

    async def _run_search(self, multihash: bytes, search: Search) -> None:
        started = now()
        first = started if search.found else None

        def found(answer: Message) -> None:
            nonlocal first
            for provider in answer.provider_peers[:PROVIDERS_TAKEN_MAX]:
                if provider.peer_id != self.local.peer_id and provider.addresses:
                    first = first or now()
                    search.add(provider)

        outcome = "error"
        try:
            async with asyncio.timeout(SEARCH_SECONDS_MAX):
                lookup = await self._lookups.run(multihash, MessageType.GET_PROVIDERS, found)
            search.nearest = tuple(lookup.result())
            outcome = "found" if search.found else "empty"
        except TimeoutError:
            outcome = "found" if search.found else "timeout"
        finally:
            search.end(now())
            self._series.lookups.labels(outcome).inc()
            if first is not None:
                self._series.resolve_duration.labels("libp2p").observe(first - started)

    # --- announcing -------------------------------------------------------------------------------------

    async def provide(self, keys: Iterable[str]) -> None:
        """See Router."""
        keys = list(keys)
        self._publisher.provide(keys)
        if self.claims.held:
            self.claims.announced(self.local.peer_id, (place(content_key(key)) for key in keys))

    def withdraw(self, keys: Iterable[str]) -> None:
        """See Router."""
        self._publisher.withdraw(keys)

    # --- requests of peers ------------------------------------------------------------------------------

    def _answer(self, peer: PeerInfo, message: Message) -> Message | None:
        match message.type:
            case MessageType.PING:
                return message
            case MessageType.FIND_NODE:
                return Message(message.type, message.key, self._closer(peer, message.key))
            case MessageType.GET_PROVIDERS:
                zone = self._network.zone_of(peer.peer_id)
                if message.places:
                    return self._count(peer, zone, message)
                if claim := self.claims.answer(peer, message):
                    return Message(message.type, message.key, claim=claim)  # who asks this uses no other part
                providers = self._holders(message.key, zone)
                closer = self._closer(peer, message.key)
                return Message(message.type, message.key, closer, tuple(providers))
            case MessageType.ADD_PROVIDER:
                self._take_record(peer, message)
                self.claims.take(peer, message)
                return None
            case _:
                return Message(message.type, message.key)  # this DHT stores no values

    def _holders(self, key: bytes, zone: str) -> list[PeerInfo]:
        return self._records.providers(key, now(), self._rng, zone)

    def _nearest(self, key: bytes) -> Sequence[PeerInfo]:
        search = self._searches.get(key)
        return search.nearest if search else ()

    def _closer(self, asker: PeerInfo, key: bytes) -> tuple[PeerInfo, ...]:
        return tuple(self._table.closest(position(key), without=asker.peer_id))

    def _count(self, asker: PeerInfo, zone: str, question: Message) -> Message:
        """How many providers each key has; the answer names no peers."""
        until = now() + min(question.horizon_seconds, VALIDITY_SECONDS)
        counts = [self._records.count(one, until, zone, asker.peer_id) for one in question.places]
        return Message(question.type, question.key, counts=tuple(counts))

    def _take_record(self, sender: PeerInfo, message: Message) -> None:
        for provider in message.provider_peers:
            if provider.peer_id != sender.peer_id:
                continue  # by the spec a peer announces only itself
            zone = self._network.zone_of(sender.peer_id)
            announced = PeerInfo(provider.peer_id, provider.addresses or sender.addresses, zone)
            if announced.addresses:
                places, origin = (place(message.key), *message.places), self._origin_of(sender.peer_id)
                kept = self._records.add_places(places, announced, now(), host=origin.host, is_member=origin.is_member)
                self._series.refused.labels("records").inc(len(places) - kept)
                self.claims.announced(sender.peer_id, places)
            break
        self._series.provider_records.set(len(self._records))

    def _origin_of(self, peer_id: PeerId) -> Origin:
        return Origin(self._network.host_of(peer_id), self._bootstrap.is_member(peer_id))

    # --- upkeep -----------------------------------------------------------------------------------------

    def _joined(self, peer: PeerInfo, is_new: bool) -> None:
        self._records.mark_back(peer.peer_id)
        self._lookups.gone.back(peer.peer_id)
        known = peer.peer_id in self._table
        if not peer.addresses or not self._table.add(peer, now()):
            return
        if not known:
            self._series.routing_table_size.set(len(self._table))
            self._remember(peer)
            if len(self._table) == 1:
                log.info("joined the mesh", peer=peer.peer_id, address=peer.addresses[0])
        if is_new or not known:
            # Also a known peer: it may have restarted while its old connection is still open here.
            self._publisher.met(peer)

    def _remember(self, peer: PeerInfo) -> None:
        """Store a peer for the next start."""
        origin = self._origin_of(peer.peer_id)
        host = origin.host or next(iter(peer.hosts), "")
        # The address that it was reached at comes first: a peer can claim any other.
        addresses = sorted(peer.addresses, key=lambda one: host not in PeerInfo(peer.peer_id, (one,)).hosts)
        peer = PeerInfo(peer.peer_id, tuple(addresses), peer.zone)
        is_near = origin.is_member or self._own.covers(host)
        self._bootstrap.met(peer, host, is_near=is_near, is_here=self._own.is_own_address(host))

    def _left(self, peer_id: PeerId, polite: bool) -> None:
        if self._tasks is None:
            return
        if polite and not self._lookups.mesh_is_small:
            # In a large mesh this is mostly a trimmed connection, not a stopped node: a ping would open it again.
            self._lookups.doubt(peer_id)
            return
        self._lookups.gone.lost(peer_id)
        if peer := self._table.get(peer_id) or self._records.provider(peer_id):
            self._tasks.create_task(self._check(peer, polite=polite))

    async def _check(self, peer: PeerInfo, *, polite: bool = False) -> None:
        """Ping a peer. One that does not answer leaves the routing table, and its records are not counted.

        `polite`: the peer has closed the connection itself, as a node does that stops.
        """
        try:
            await self._network.request(peer, Message(MessageType.PING))
        except NotAskedError:
            pass  # a limit of this node: it says nothing about the peer
        except NetworkError:
            self._records.mark_away(peer.peer_id)
            known = len(self._table)
            self._table.remove(peer.peer_id)
            self._series.routing_table_size.set(len(self._table))
            if known and not len(self._table):
                self._ran_dry(polite=polite)
        else:
            self._records.mark_back(peer.peer_id)
            self._lookups.answered(peer)

    def _ran_dry(self, *, polite: bool = False) -> None:
        self._series.routing_table_size.set(0)
        if polite:
            # Each update of a region of two nodes.
            log.info("last peer left, bootstrapping again")
        else:
            log.warning("routing table is empty, bootstrapping again")
        self._bootstrap.wake()

    async def _keep_fresh(self) -> None:
        while True:
            await asyncio.sleep(REFRESH_SECONDS * (1 - 0.2 * self._rng.random()))
            for peer in self._table.unseen_since(now() - LIVENESS_SECONDS):
                await self._check(peer)
            await self._lookups.refresh()
            # And a random position, so that the peers in far buckets are checked too.
            await self._lookups.run(b"\x12\x20" + self._rng.randbytes(32), MessageType.FIND_NODE)

    async def _keep_records(self) -> None:
        while True:
            await asyncio.sleep(EXPIRE_SECONDS)
            while self._records.expire_some(now()):
                await asyncio.sleep(0)
            self._series.provider_records.set(len(self._records))
            for key in [key for key, search in self._searches.items() if _forgotten(search, now())]:
                del self._searches[key]


def _forgotten(search: Search, time: float) -> bool:
    """Whether a search ended too long ago to be used again."""
    memory = FOUND_MEMORY_SECONDS if search.found else EMPTY_MEMORY_SECONDS
    return search.ended_at is not None and time - search.ended_at > memory
