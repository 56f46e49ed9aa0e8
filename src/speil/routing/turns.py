"""Peers' messages take turns: one at a time, each within its peer's budget (`kad.cost_budget`).

A message that waits costs its bytes; one that is looked at costs the event loop, and with it the node's own pulls and
probes. So between two messages everything else has its turn, however many streams have some.
"""

from __future__ import annotations

import asyncio

from speil.kad.cost_budget import CostBudget, RefusedError
from speil.multiformats.peer_id import PeerId
from speil.observe.logs import get_log
from speil.observe.metrics import Metrics
from speil.observe.seldom import Seldom

log = get_log("dht")


class Turns:
    """The turns of one node."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._budget = CostBudget()
        self._turn = asyncio.Lock()
        self._said = Seldom()

    async def wait(self, peer_id: PeerId, host: str, size_bytes: int) -> bool:
        """Until a message of `size_bytes` may be looked at; False where its stream is to be reset."""
        now = asyncio.get_running_loop().time()
        try:
            seconds = self._budget.charge(peer_id.multihash.hex(), host, size_bytes, now)
        except RefusedError as error:
            self._refused(peer_id, host, error.limit)
            return False
        if seconds:
            self._metrics.dht_slowed_seconds.inc(seconds)
            await asyncio.sleep(seconds)
        async with self._turn:
            await asyncio.sleep(0)
        return True

    def _refused(self, peer_id: PeerId, host: str, limit: str) -> None:
        self._metrics.dht_refused.labels(limit).inc()
        if self._said.due("over its share"):  # the same words whoever it is: one line a minute for all peers
            log.warning(
                "a peer asks more of the DHT than its share: its streams are reset",
                peer=peer_id,
                host=host,
                share=limit,
            )
