"""Runs the lookups that `kad.lookup` decides: asks over the network, waits, passes answers on.

Whoever answers is taken into the routing table, whoever does not is counted against; so the table lives from the
lookups that go through it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from speil.kad.key import position
from speil.kad.lookup import Lookup
from speil.kad.message import Message, MessageType
from speil.kad.routing_table import K, RoutingTable
from speil.multiformats.peer_id import PeerId
from speil.multiformats.peer_info import PeerInfo
from speil.observe.logs import get_log
from speil.observe.metrics import Metrics
from speil.routing.network import NetworkError, NotAskedError, PeerNetwork

log = get_log("dht")


def now() -> float:
    """The mesh's clock: monotonic seconds of the running loop, which a simulation may turn."""
    return asyncio.get_running_loop().time()


class Lookups:
    """Lookups of one node, over its routing table; `ran_dry` is called when the last peer in it has failed."""

    def __init__(
        self, network: PeerNetwork, table: RoutingTable, metrics: Metrics, ran_dry: Callable[[], None]
    ) -> None:
        self._network, self._table, self._metrics, self._ran_dry = network, table, metrics, ran_dry
        self.mesh_is_small = True  # fewer nodes than a key has places: each keeps every record

    async def run(
        self,
        key: bytes,
        kind: MessageType,
        on_answer: Callable[[Message], None] | None = None,
        *,
        converge: int = K,
    ) -> Lookup:
        """Run a lookup until the `converge` closest have answered; `on_answer` hears each answer as it comes."""
        seeds = self._table.closest(position(key))
        lookup = Lookup(key, self._network.local.peer_id, seeds, converge, self._table.trust)
        question = Message(kind, key)
        changed = asyncio.Event()

        async def ask(peer: PeerInfo) -> None:
            try:
                answer = await self._network.request(peer, question)
            except NetworkError as error:
                log.debug("a peer did not answer", peer=peer.peer_id, error=error)
                lookup.failed(peer.peer_id)
                if not isinstance(error, NotAskedError):
                    self.failed(peer.peer_id)
            else:
                self._table.add(peer, now())
                if on_answer:
                    on_answer(answer)
                lookup.answered(peer.peer_id, answer.closer_peers)
            changed.set()

        async with asyncio.TaskGroup() as group:
            running = [group.create_task(ask(peer)) for peer in lookup.ask(now())]
            while not lookup.done:
                changed.clear()
                deadline = lookup.next_deadline()
                try:
                    async with asyncio.timeout(None if deadline is None else deadline - now()):
                        await changed.wait()
                except TimeoutError:
                    for late in lookup.expire(now()):
                        self.failed(late)
                running += [group.create_task(ask(peer)) for peer in lookup.ask(now())]
            for task in running:
                task.cancel()  # those that were given up
        self._metrics.routing_table_size.set(len(self._table))
        return lookup

    def failed(self, peer_id: PeerId) -> None:
        """A peer did not answer, whatever it was asked."""
        known = len(self._table)
        self._table.failed(peer_id)
        if known and not len(self._table):
            self._ran_dry()

    async def refresh(self) -> None:
        """Look for ourselves: fills the neighbourhood, makes us known there, tells how large the mesh is."""
        lookup = await self.run(self._network.local.peer_id.multihash, MessageType.FIND_NODE)
        self.mesh_is_small = lookup.answered_count < K
