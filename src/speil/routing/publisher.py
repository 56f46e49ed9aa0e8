"""Announces this node's keys to the nodes that are closest to them.

Keys that are near each other in the key space have the same closest nodes, so one lookup finds the nodes for many
keys. Adjacent neighbourhoods are announced together, with one stream to each node. First, some of these nodes are asked
which of the keys have enough providers already (`kad.coverage`): content that is on every node is announced by a few.

Two loops run side by side, so that a new layer never waits: one announces new keys, the other follows the sweep
(`kad.provide_schedule`). Records are sent in tasks of their own, so that a peer that hangs delays neither loop.

In a mesh with fewer nodes than a key has places, a node that joins gets all records at once. In a larger one it gets
them with the next sweep.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import replace
from random import Random

from speil.kad.coverage import ENOUGH, HORIZON_SECONDS, Counts, is_covered, whom_to_ask
from speil.kad.key import Key, common_prefix_length, position
from speil.kad.lookup import BETA
from speil.kad.message import Message, MessageType
from speil.kad.provide_schedule import BATCH_MAX, EARLY_SECONDS, ProvideSchedule
from speil.kad.provider_records import OWN, ProviderRecords
from speil.kad.routing_table import K, RoutingTable
from speil.multiformats.peer_id import PeerId
from speil.multiformats.peer_info import PeerInfo
from speil.observe.logs import get_log
from speil.observe.metrics import Metrics
from speil.routing.lookups import Lookups, now
from speil.routing.network import NetworkError, NotAskedError, PeerNetwork
from speil.routing.series import DhtSeries

NEIGHBOURHOODS_MAX = 4  # adjacent ones, announced together: many nodes are among the closest to keys of several
NEWS_MAX = 64  # more keys at one time are not an image but a whole store
SENDS_AT_ONCE_MAX = 16  # nodes that get records at the same time
ASK_SECONDS_MAX = 1.0  # without an answer the keys are announced, nothing worse
BATCHES_AT_ONCE_MAX = 8  # batches being sent; each waits for its slowest node

log = get_log("dht")
Placed = dict[PeerId, tuple[PeerInfo, list[Key]]]  # the keys that each peer is among the closest to


class Publisher:
    """The keys that this node announces. `run` must be running for them to reach peers."""

    def __init__(
        self,
        network: PeerNetwork,
        table: RoutingTable,
        records: ProviderRecords,
        lookups: Lookups,
        metrics: Metrics,
        rng: Random,
        *,
        zone: str = "",
    ) -> None:
        self._network, self._table, self._records = network, table, records
        self._lookups, self._series, self._rng, self._zone = lookups, metrics.of(DhtSeries), rng, zone
        self._schedule = ProvideSchedule(rng)
        self._newcomers: dict[PeerId, PeerInfo] = {}
        self._came, self._planned = asyncio.Event(), asyncio.Event()
        self._sends = asyncio.Semaphore(SENDS_AT_ONCE_MAX)
        self._batches = asyncio.Semaphore(BATCHES_AT_ONCE_MAX)
        self._tasks: asyncio.TaskGroup

    def provide(self, names: Iterable[str]) -> None:
        """Announce keys from now on, until they are withdrawn."""
        self._renew_own(self._schedule.add(names, now()))
        self._series.provided_keys.set(len(self._schedule))
        self._came.set()

    def withdraw(self, names: Iterable[str]) -> None:
        """Stop announcing keys, and remove this node's own records of them."""
        names = list(names)
        self._schedule.remove(names)
        for name in names:
            self._records.remove(Key.of(name).multihash, self._network.local.peer_id)
        self._series.provided_keys.set(len(self._schedule))

    def met(self, peer: PeerInfo) -> None:
        """A node joined or came back: in a small mesh it gets all records."""
        if self._lookups.mesh_is_small:
            self._newcomers[peer.peer_id] = peer
            self._came.set()

    async def run(self) -> None:
        """Announce the keys that are due, until cancelled."""
        async with asyncio.TaskGroup() as self._tasks:
            self._tasks.create_task(self._follow_news())
            self._tasks.create_task(self._sweep())

    async def _follow_news(self) -> None:
        while True:
            await self._came.wait()
            self._came.clear()
            keys = self._schedule.take_new()
            await self._announce_to_newcomers(set(keys))
            while keys:
                batch, peers = list[Key](), dict[PeerId, PeerInfo]()
                # A new layer is announced at once; a whole store of them goes in larger batches.
                for _ in range(NEIGHBOURHOODS_MAX if len(keys) > NEWS_MAX else 1):
                    bits = await self._around(keys[0], peers)
                    count = next((at for at, key in enumerate(keys) if not _near(key, keys[0], bits)), len(keys))
                    count = min(count, BATCH_MAX)
                    batch, keys = [*batch, *keys[:count]], keys[count:]
                    if not keys or len(batch) >= BATCH_MAX:
                        break
                await self._announce(batch, list(peers.values()))

    async def _sweep(self) -> None:
        while True:
            self._planned.clear()
            batch, peers = list[Key](), dict[PeerId, PeerInfo]()
            key, neighbourhoods = self._schedule.first_due(now()), 0
            while key and len(batch) < BATCH_MAX:
                bits = await self._around(key, peers)
                batch += self._schedule.take_neighbours(key, bits, now())
                neighbourhoods += 1
                key = self._schedule.first_due(now() + EARLY_SECONDS) if neighbourhoods < NEIGHBOURHOODS_MAX else None
            if batch:
                await self._announce(batch, list(peers.values()))
                continue
            deadline = self._schedule.next_deadline()
            try:
                async with asyncio.timeout_at(deadline):
                    await self._planned.wait()
            except TimeoutError:
                continue

    async def _announce_to_newcomers(self, new: set[Key]) -> None:
        """Send newcomers all keys but those in `new`, which all nodes get next."""
        newcomers, self._newcomers = self._newcomers, {}
        if newcomers and self._lookups.mesh_is_small and len(self._schedule):
            # Every node is among the closest to every key, so newcomers need not wait for the next sweep.
            keys = [key for key in self._schedule if key not in new]
            if not keys:
                return
            log.debug("announcing all keys to new peers", peers=[str(one) for one in newcomers], keys=len(keys))
            await self._batches.acquire()
            self._tasks.create_task(self._send({one.peer_id: (one, keys) for one in newcomers.values()}))

    async def _around(self, key: Key, peers: dict[PeerId, PeerInfo]) -> int:
        """Add the nodes near a key to `peers`; how many bits a key must share with it to find its closest there."""
        lookup = await self._lookups.run(key.multihash, MessageType.FIND_NODE, converge=BETA)
        found = lookup.closest()
        peers.update((peer.peer_id, peer) for peer in found)
        if len(found) < K:
            return 0  # that is the whole mesh
        peers.update((peer.peer_id, peer) for peer in self._table.closest(key.position, 2 * K))
        # The farthest peer found shares this many bits with the key. Every peer that shares more has been found too.
        # For keys that share more, these are about half of their closest peers; the rest were found nearby.
        return 1 + min(common_prefix_length(key.position, position(peer.peer_id.multihash)) for peer in found)

    async def _announce(self, keys: list[Key], peers: list[PeerInfo]) -> None:
        """Send records of the keys that need more providers to the closest of `peers`."""
        placed = _placed(keys, peers)
        if covered := await self._covered(keys, placed):
            self._series.announced_keys.labels("skipped").inc(len(covered))
            self._schedule.skipped(covered, now())
            self._renew_own(covered)
            self._planned.set()
            placed = {
                peer_id: (peer, [key for key in theirs if key not in covered])
                for peer_id, (peer, theirs) in placed.items()
            }
        if needed := [key for key in keys if key not in covered]:
            await self._batches.acquire()
            self._tasks.create_task(self._send_and_plan(needed, placed))

    async def _covered(self, keys: list[Key], placed: Placed) -> set[Key]:
        """The keys that have enough providers without this node."""
        if len(placed) < ENOUGH:
            return set()  # there are too few nodes to have enough providers
        counts: dict[Key, list[Counts]] = {key: [] for key in keys}

        async def ask(peer: PeerInfo, asked: list[Key]) -> None:
            question = Message(
                MessageType.GET_PROVIDERS,
                asked[0].multihash,
                places=tuple(key.place for key in asked),
                horizon_seconds=round(HORIZON_SECONDS),
            )
            try:
                async with asyncio.timeout(ASK_SECONDS_MAX):
                    answer = await self._network.request(peer, question)
            except TimeoutError:
                return
            except NetworkError as error:
                log.debug("peer did not answer", peer=peer.peer_id, error=error)
                if not isinstance(error, NotAskedError):
                    self._lookups.failed(peer.peer_id)
                return
            if len(answer.counts) == len(asked):
                for key, pair in zip(asked, answer.counts, strict=True):
                    counts[key].append(pair)

        async with asyncio.TaskGroup() as group:
            questions = whom_to_ask({peer_id: asked for peer_id, (_, asked) in placed.items()}, self._rng)
            for peer_id, asked in questions.items():
                group.create_task(ask(placed[peer_id][0], asked))
        is_new, has_zone = self._schedule.is_new, bool(self._zone)
        return {key for key in keys if is_covered(counts[key], has_zone=has_zone, is_new=is_new(key))}

    async def _send_and_plan(self, keys: list[Key], placed: Placed) -> None:
        # Without other nodes there is nobody to announce to; a node that joins gets the records then.
        alone = not placed and not len(self._table)
        sent = await self._send(placed)
        reached = [key for key in keys if alone or key in sent]
        missed = [key for key in keys if not alone and key not in sent]
        self._series.announced_keys.labels("alone" if alone else "announced").inc(len(reached))
        self._series.announced_keys.labels("failed").inc(len(missed))
        if reached and not alone:
            self._series.announcement_delay.observe(self._schedule.delay(reached, now()))
        self._schedule.announced(reached, now())
        self._schedule.failed(missed, now())
        self._renew_own(keys)
        self._planned.set()

    def _renew_own(self, keys: Iterable[Key]) -> None:
        """Keep this node's own records: its answers name it, whether it announces a key or not."""
        held = (key.place for key in keys if key.name in self._schedule)
        self._records.add_places(held, replace(self._network.local, zone=self._zone), now(), host=OWN)

    async def _send(self, placed: Placed) -> set[Key]:
        """Send the records; the keys that reached at least one node. Releases the slot of the batch."""
        sent: set[Key] = set()

        async def send(peer: PeerInfo, keys: list[Key]) -> None:
            async with self._sends:
                try:
                    await self._network.announce(peer, keys)
                except NetworkError as error:
                    log.debug("peer did not take records", peer=peer.peer_id, keys=len(keys), error=error)
                    if not isinstance(error, NotAskedError):
                        self._lookups.failed(peer.peer_id)
                    return
            self._series.announcement_keys.observe(len(keys))
            sent.update(keys)

        try:
            async with asyncio.TaskGroup() as group:
                for peer, keys in placed.values():
                    if keys:
                        group.create_task(send(peer, keys))
        finally:
            self._batches.release()
        return sent


def _near(key: Key, other: Key, bits: int) -> bool:
    return common_prefix_length(key.position, other.position) >= bits


def _placed(keys: Iterable[Key], peers: Iterable[PeerInfo]) -> Placed:
    """The K of `peers` that are closest to each of `keys`, as keys by peer."""
    standing = [(position(peer.peer_id.multihash), peer) for peer in peers]
    placed: Placed = {}
    for key in keys:
        for _, peer in sorted(standing, key=lambda item, place=key.position: item[0] ^ place)[:K]:  # type: ignore[misc]
            placed.setdefault(peer.peer_id, (peer, []))[1].append(key)
    return placed
