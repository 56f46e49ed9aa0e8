"""What the store takes in proves those who sent it right.

Large content is passed on unverified, containerd verifies it before it keeps it. So what was delivered and is then in
the store was right, at no cost of ours. What is not there soon was wrong, or its pull was cancelled at its very end.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from speil.fetch.trust import PeerTrust
from speil.observe.logs import get_log
from speil.observe.metrics import Metrics
from speil.oci.digest import Digest
from speil.store.base import ContentStore, NotFoundError, StoreError

log = get_log("relay")
LOOK_SECONDS = 1.0  # containerd 1.6 tells of a pull's end alone; a layer is there a moment after its last byte


class Settling:
    """A reader of the store's news that looks for delivered content."""

    def __init__(self, store: ContentStore, trust: PeerTrust, metrics: Metrics) -> None:
        self._store, self._trust, self._metrics = store, trust, metrics

    async def run(self) -> None:
        """Look every second while delivered content is missing, and say what is overdue; until cancelled."""
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            if not await self._look_for(self._trust.unsettled):
                continue
            for digest, senders in self._trust.overdue(asyncio.get_running_loop().time()):
                self._metrics.missing_content.inc()
                log.warning(
                    "content that was delivered is not in the store: its senders are asked for no large blobs until "
                    "it is",
                    key=digest,
                    peers=[str(peer_id) for peer_id in senders],
                )

    async def content_added(self, digests: Sequence[Digest]) -> None:
        """See NewsReader."""
        unsettled = frozenset(self._trust.unsettled)
        await self._look_for([digest for digest in digests if digest in unsettled])

    async def content_removed(self, digests: Sequence[Digest]) -> None:
        """See NewsReader: it was there, and so it was right."""

    async def image_added(self, name: str) -> None:
        """See NewsReader."""
        await self._look_for(self._trust.unsettled)

    async def images_removed(self, names: Sequence[str]) -> None:
        """See NewsReader."""

    async def look(self) -> None:
        """See NewsReader."""
        await self._look_for(self._trust.unsettled)

    async def _look_for(self, digests: Sequence[Digest]) -> bool:
        """Whether the store answered: then what it does not have is not there."""
        for digest in digests:
            try:
                await self._store.size(digest)
            except NotFoundError:
                continue
            except StoreError:
                return False
            self._trust.settled(digest, asyncio.get_running_loop().time())
        return True
