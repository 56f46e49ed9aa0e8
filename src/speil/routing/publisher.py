"""Announces this node's keys to the nodes that are closest to them.

Keys that are near each other in the key space have the same closest nodes, so one lookup finds whom to tell about
many, and each node is told on one stream. In a mesh with fewer nodes than a key has places, whoever joins is told
everything at once; in a larger one it comes with the next round.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Sequence
from random import Random

from speil.kad.key import common_prefix_length, position
from speil.kad.message import Message, MessageType
from speil.kad.provide_schedule import ProvideSchedule
from speil.kad.provider_records import ProviderRecords
from speil.kad.routing_table import K, RoutingTable
from speil.multiformats.content_key import content_key
from speil.multiformats.peer_id import PeerId
from speil.multiformats.peer_info import PeerInfo
from speil.observe.logs import get_log
from speil.observe.metrics import Metrics
from speil.routing.lookups import Lookups
from speil.routing.network import NetworkError, PeerNetwork

BATCH_MAX = 2000  # keys per round; a round of a large store takes a second
SENDS_AT_ONCE_MAX = 16  # nodes told at the same time

log = get_log("dht")
Place = tuple[int, str]  # where a key stands, and the key


class Publisher:
    """What this node announces; `run` keeps it announced."""

    def __init__(
        self,
        network: PeerNetwork,
        table: RoutingTable,
        records: ProviderRecords,
        lookups: Lookups,
        metrics: Metrics,
        rng: Random,
    ) -> None:
        self._network, self._table, self._records = network, table, records
        self._lookups, self._metrics = lookups, metrics
        self._schedule = ProvideSchedule(rng)
        self._newcomers: dict[PeerId, PeerInfo] = {}
        self._due = asyncio.Event()

    def provide(self, keys: Iterable[str]) -> None:
        """Announce `keys` from now on."""
        keys, now = list(keys), time.monotonic()
        self._schedule.add(keys, now)
        for key in keys:
            self._records.add(content_key(key), self._network.local, now)
        self._metrics.provided_keys.set(len(self._schedule))
        self._due.set()

    def withdraw(self, keys: Iterable[str]) -> None:
        """Announce `keys` no more."""
        keys = list(keys)
        self._schedule.remove(keys)
        for key in keys:
            self._records.remove(content_key(key), self._network.local.peer_id)
        self._metrics.provided_keys.set(len(self._schedule))

    def met(self, peer: PeerInfo) -> None:
        """A node joined."""
        if self._lookups.mesh_is_small:
            self._newcomers[peer.peer_id] = peer
            self._due.set()

    async def run(self) -> None:
        """Announce what is due, until cancelled."""
        while True:
            self._due.clear()
            await self._tell_newcomers()
            now = time.monotonic()
            if keys := self._schedule.due(now, BATCH_MAX):
                await self._announce(keys)
                continue
            deadline = self._schedule.next_deadline()
            try:
                async with asyncio.timeout(None if deadline is None else max(deadline - now, 0)):
                    await self._due.wait()
            except TimeoutError:
                continue

    async def _tell_newcomers(self) -> None:
        newcomers, self._newcomers = self._newcomers, {}
        if newcomers and self._lookups.mesh_is_small and len(self._schedule):
            # every node is among the closest to every key: newcomers need not wait for the next round
            places = [(position(content_key(key)), key) for key in self._schedule]
            await self._tell(places, list(newcomers.values()))

    async def _announce(self, keys: list[str]) -> None:
        """Tell the closest nodes of each key, neighbours in the key space together."""
        places = sorted((position(content_key(key)), key) for key in keys)
        while places:
            batch, peers = await self._neighbourhood(places)
            places = places[len(batch) :]
            names = [key for _, key in batch]
            # alone there is nobody to tell; whoever joins is told then
            told = await self._tell(batch, peers) if peers or len(self._table) else set(names)
            now = time.monotonic()
            for key in names:
                self._records.add(content_key(key), self._network.local, now)
            self._schedule.announced([key for key in names if key in told], now)
            self._schedule.failed([key for key in names if key not in told], now)

    async def _neighbourhood(self, places: list[Place]) -> tuple[list[Place], list[PeerInfo]]:
        """The first keys that share their closest nodes, and the nodes around them."""
        first = places[0][0]
        lookup = await self._lookups.run(content_key(places[0][1]), MessageType.FIND_NODE)
        peers = lookup.result()
        if len(peers) < K:
            return places, peers  # that is the whole mesh
        # the farthest peer found shares this many bits with the key: every peer that shares more has been found too,
        # and for keys that share more it is about half of their closest; the rest are found peers nearby
        shared = min(common_prefix_length(first, position(peer.peer_id.multihash)) for peer in peers)
        count = 1
        while count < len(places) and common_prefix_length(first, places[count][0]) > shared:
            count += 1
        near = {peer.peer_id: peer for peer in (*peers, *self._table.closest(first, 2 * K))}
        return places[:count], list(near.values())

    async def _tell(self, batch: Sequence[Place], peers: list[PeerInfo]) -> set[str]:
        """Send the records; the keys that at least one node took."""
        keys_of: dict[PeerId, list[str]] = {}
        standing = [(position(peer.peer_id.multihash), peer) for peer in peers]
        for place, key in batch:
            for _, peer in sorted(standing, key=lambda item, place=place: item[0] ^ place)[:K]:  # type: ignore[misc]
                keys_of.setdefault(peer.peer_id, []).append(key)
        told: set[str] = set()
        slots = asyncio.Semaphore(SENDS_AT_ONCE_MAX)

        async def tell(peer: PeerInfo, keys: list[str]) -> None:
            local = (self._network.local,)
            messages = [Message(MessageType.ADD_PROVIDER, content_key(key), provider_peers=local) for key in keys]
            async with slots:
                try:
                    await self._network.send(peer, messages)
                except NetworkError as error:
                    log.debug("a peer took no records", peer=peer.peer_id, keys=len(keys), error=error)
                    self._lookups.failed(peer.peer_id)
                    return
            told.update(keys)

        async with asyncio.TaskGroup() as group:
            for _, peer in standing:
                if peer.peer_id in keys_of:
                    group.create_task(tell(peer, keys_of[peer.peer_id]))
        return told
