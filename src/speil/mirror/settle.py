"""What the store takes in proves those who sent it right.

Large content is passed on unverified, containerd verifies it before it keeps it. So what was delivered and is then in
the store was right, at no cost of ours.
"""

from __future__ import annotations

import asyncio

from speil.fetch.trust import PeerTrust
from speil.store.base import ContentStore, StoreError

LOOK_SECONDS = 1.0  # containerd 1.6 tells of a pull's end alone; a layer is there a moment after its last byte


async def settle(store: ContentStore, trust: PeerTrust) -> None:
    """Look for delivered content when the store has news, and every second while some is missing; until cancelled."""
    async with asyncio.TaskGroup() as group:
        group.create_task(_look_again(store, trust))
        async for _ in store.events():
            await _look(store, trust)


async def _look_again(store: ContentStore, trust: PeerTrust) -> None:
    while True:
        await asyncio.sleep(LOOK_SECONDS)
        await _look(store, trust)


async def _look(store: ContentStore, trust: PeerTrust) -> None:
    for digest in trust.unsettled:
        try:
            await store.size(digest)
        except StoreError:
            continue
        trust.settled(digest)
