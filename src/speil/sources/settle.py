"""Learns from the store which delivered content was right.

Large content is passed on unverified; containerd verifies it before it keeps it. So content that was delivered and is
then in the store was right, and its senders are proven. Content that is not there soon was wrong, or its pull was
cancelled at the very end.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from speil.observe.logs import get_log
from speil.oci.digest import Digest
from speil.sources.peer_knowledge import PeerKnowledge
from speil.sources.series import SourcesSeries
from speil.store.base import ContentStore, NotFoundError, StoreError

log = get_log("relay")
LOOK_SECONDS = 1.0  # containerd 1.6 reports the end of a pull only; a layer is there a moment after its last byte


class Settling:
    """A `NewsReader` that looks for delivered content."""

    def __init__(self, store: ContentStore, knowledge: PeerKnowledge, series: SourcesSeries) -> None:
        self._store, self._trust, self._series = store, knowledge.trust, series

    async def run(self) -> None:
        """Look for delivered content every LOOK_SECONDS, and log what is overdue; until cancelled."""
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            if not await self._look_for(self._trust.unsettled):
                continue
            for digest, senders in self._trust.overdue(asyncio.get_running_loop().time()):
                self._series.missing_content.inc()
                log.warning(
                    "content that was delivered is not in the store: "
                    "its senders are not asked for large blobs until it is",
                    key=digest,
                    peers=[str(peer_id) for peer_id in senders],
                )

    async def content_added(self, digests: Sequence[Digest]) -> None:
        """See NewsReader."""
        unsettled = frozenset(self._trust.unsettled)
        await self._look_for([digest for digest in digests if digest in unsettled])

    async def content_removed(self, digests: Sequence[Digest]) -> None:
        """See NewsReader."""

    async def image_added(self, name: str) -> None:
        """See NewsReader."""
        await self._look_for(self._trust.unsettled)

    async def images_removed(self, names: Sequence[str]) -> None:
        """See NewsReader."""

    async def look(self) -> None:
        """See NewsReader."""
        await self._look_for(self._trust.unsettled)

    async def _look_for(self, digests: Sequence[Digest]) -> bool:
        """Whether the store answered: if so, content that it did not find is missing."""
        for digest in digests:
            try:
                await self._store.size(digest)
            except NotFoundError:
                continue
            except StoreError:
                return False
            self._trust.settled(digest, asyncio.get_running_loop().time())
        return True
