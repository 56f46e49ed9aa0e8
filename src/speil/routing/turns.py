"""DHT messages of peers are processed one at a time, each within the budget of its peer (`kad.cost_budget`).

A message that waits costs memory. Processing one costs time of the event loop, which pulls and probes of this node need
too. So all other tasks run between two messages, however many streams have one.
"""

from __future__ import annotations

import asyncio

from speil.kad.cost_budget import CostBudget, RefusedError
from speil.multiformats.peer_id import PeerId
from speil.observe.logs import get_log
from speil.observe.seldom import Seldom
from speil.routing.series import DhtSeries

log = get_log("dht")


class Turns:
    """The turns of one node."""

    def __init__(self, series: DhtSeries) -> None:
        self._series = series
        self._budget = CostBudget()
        self._turn = asyncio.Lock()
        self._said = Seldom()

    async def wait(self, peer_id: PeerId, host: str, size_bytes: int) -> bool:
        """Wait until a message of `size_bytes` may be processed; False where its stream has to be reset."""
        now = asyncio.get_running_loop().time()
        try:
            seconds = self._budget.charge(peer_id.multihash.hex(), host, size_bytes, now)
        except RefusedError as error:
            self._refused(peer_id, host, error.limit)
            return False
        if seconds:
            self._series.slowed_seconds.inc(seconds)
            await asyncio.sleep(seconds)
        async with self._turn:
            await asyncio.sleep(0)
        return True

    def _refused(self, peer_id: PeerId, host: str, limit: str) -> None:
        self._series.refused.labels(limit).inc()
        if self._said.due("over its share"):  # one line a minute for all peers together
            log.warning(
                "peer exceeds its share of the DHT, resetting its streams",
                peer=peer_id,
                host=host,
                share=limit,
            )
