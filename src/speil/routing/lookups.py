"""Runs the lookups that `kad.lookup` decides: sends the requests, waits, passes the answers on.

A peer that answers is added to the routing table, and a failure is counted against a peer that does not. So lookups
keep the table up to date.
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
from speil.routing.gone_peers import GonePeers
from speil.routing.network import NetworkError, NotAskedError, PeerNetwork
from speil.routing.series import DhtSeries

log = get_log("dht")


def now() -> float:
    """Monotonic seconds of the running event loop, which is virtual in a simulation."""
    return asyncio.get_running_loop().time()


class Lookups:
    """The lookups of one node, which start from its routing table. `gone`: the peers that can't be reached now."""

    def __init__(
        self, network: PeerNetwork, table: RoutingTable, metrics: Metrics, ran_dry: Callable[[], None]
    ) -> None:
        """`ran_dry` is called when the last peer of the routing table has failed."""
        self._network, self._table, self._series, self._ran_dry = network, table, metrics.of(DhtSeries), ran_dry
        self.gone = GonePeers()
        self.mesh_is_small = True  # fewer nodes than a key has places: every node keeps every record

    async def run(
        self,
        key: bytes,
        kind: MessageType,
        on_answer: Callable[[Message], None] | None = None,
        *,
        converge: int = K,
    ) -> Lookup:
        """Run a lookup until the `converge` closest peers have answered, or no peer is left to ask.

        `on_answer` is called with each answer as it arrives. Peers that fail do not end a lookup, so it raises nothing
        of its own: only what `on_answer` raises, in an ExceptionGroup. A peer has QUERY_SECONDS_MAX to answer; there is
        no time limit for all of them, the caller sets it. The requests that still run are cancelled at the end.
        """
        seeds = self._table.closest(position(key))
        lookup = Lookup(key, self._network.local.peer_id, seeds, converge, self._table.trust)
        question = Message(kind, key)
        changed = asyncio.Event()

        async def ask(peer: PeerInfo) -> None:
            try:
                answer = await self._network.request(peer, question)
            except NetworkError as error:
                log.debug("peer did not answer", peer=peer.peer_id, error=error)
                lookup.failed(peer.peer_id)
                if not isinstance(error, NotAskedError):
                    self.failed(peer.peer_id)
            else:
                self.answered(peer)
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
                task.cancel()  # peers that were given up
        self._series.routing_table_size.set(len(self._table))
        return lookup

    def answered(self, peer: PeerInfo) -> None:
        """A peer answered a request of any kind."""
        self.gone.back(peer.peer_id)
        self._table.add(peer, now())

    def failed(self, peer_id: PeerId) -> None:
        """Count a failed request of any kind against a peer."""
        self.gone.failed(peer_id, now())
        self.doubt(peer_id)

    def doubt(self, peer_id: PeerId) -> None:
        """Count a failure against a peer that may be alive."""
        known = len(self._table)
        self._table.failed(peer_id)
        if known and not len(self._table):
            self._ran_dry()

    async def refresh(self) -> None:
        """Look up this node's own id: it fills the buckets near this node and shows whether the mesh is small."""
        lookup = await self.run(self._network.local.peer_id.multihash, MessageType.FIND_NODE)
        self.mesh_is_small = lookup.answered_count < K
