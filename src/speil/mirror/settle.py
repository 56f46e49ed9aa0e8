"""What the store takes in proves those who sent it right.

Large content is passed on unverified, containerd verifies it before it keeps it. So what was delivered and is then in
the store was right, at no cost of ours.
"""

from __future__ import annotations

from speil.fetch.trust import PeerTrust
from speil.store.base import ContentStore, StoreError


async def settle(store: ContentStore, trust: PeerTrust) -> None:
    """Look for delivered content whenever the store has news, until cancelled."""
    async for _ in store.events():
        # containerd 1.6 tells of images alone: any news may be the one
        for digest in trust.unsettled:
            try:
                await store.size(digest)
            except StoreError:
                continue
            trust.settled(digest)
