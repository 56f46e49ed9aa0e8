"""What the store takes in proves those who sent it right.

Large content is passed on unverified, containerd verifies it before it keeps it. So what was delivered and is then in
the store was right, at no cost of ours. What is not there soon was wrong, or its pull was cancelled at its very end.
"""

from __future__ import annotations

import asyncio

from speil.fetch.trust import PeerTrust
from speil.observe.logs import get_log
from speil.observe.metrics import Metrics
from speil.store.base import ContentStore, NotFoundError, StoreError

log = get_log("relay")
LOOK_SECONDS = 1.0  # containerd 1.6 tells of a pull's end alone; a layer is there a moment after its last byte


async def settle(store: ContentStore, trust: PeerTrust, metrics: Metrics) -> None:
    """Look for delivered content when the store has news, and every second while some is missing; until cancelled."""
    async with asyncio.TaskGroup() as group:
        group.create_task(_look_again(store, trust, metrics))
        async for _ in store.events():
            await _look(store, trust)


async def _look_again(store: ContentStore, trust: PeerTrust, metrics: Metrics) -> None:
    while True:
        await asyncio.sleep(LOOK_SECONDS)
        if not await _look(store, trust):
            continue
        for digest, senders in trust.overdue(asyncio.get_running_loop().time()):
            metrics.missing_content.inc()
            log.warning(
                "content that was delivered is not in the store: its senders are asked for no large blobs until it is",
                key=digest,
                peers=[str(peer_id) for peer_id in senders],
            )


async def _look(store: ContentStore, trust: PeerTrust) -> bool:
    """Whether the store answered: then what it does not have is not there."""
    for digest in trust.unsettled:
        try:
            await store.size(digest)
        except NotFoundError:
            continue
        except StoreError:
            return False
        trust.settled(digest)
    return True
