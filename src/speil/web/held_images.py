"""The images that this node holds, and how many peers hold each. Counted while a page is open, and not otherwise.

A count costs a lookup in the DHT, so there is one at a time, with a pause after it: the first counts come within
seconds, and each is renewed after a minute or more.
"""

from __future__ import annotations

import asyncio
from typing import Any

from speil.oci.digest import Digest
from speil.oci.reference import InvalidReferenceError, Reference
from speil.routing.base import Router
from speil.store.base import ContentStore, StoreError

LIST_SECONDS = 10.0  # between two lists of the store's images
IMAGES_SHOWN_MAX = 300
COUNT_SECONDS_MAX = 1.0  # of one lookup
HOLDERS_COUNTED_MAX = 1000  # of one image
FRESH_SECONDS = 60.0  # a count is not renewed before
PAUSE_SECONDS = 0.2  # between two lookups; ten milliseconds of CPU each in a large mesh
SLOW_PAUSE_SECONDS = 2.0  # where all images have a count
SMALL_MESH_PEERS = 30  # up to here a lookup costs little


class HeldImages:
    """`version` changes with what `document` returns, `counts_version` with what `counts` does."""

    def __init__(self, store: ContentStore, router: Router) -> None:
        self._store, self._router = store, router
        self._turn = asyncio.Lock()  # one page's task counts for all of them
        self._images: dict[str, Digest] = {}
        self._counts: dict[Digest, tuple[int, float]] = {}  # peers that hold it, and the loop time of the count
        self._total, self._error = 0, ""
        self.version = self.counts_version = 0

    def document(self) -> dict[str, Any]:
        """The images by name."""
        images = [{"name": name, "digest": str(digest)} for name, digest in self._images.items()]
        return {"total": self._total, "error": self._error, "images": images}

    def counts(self) -> dict[Digest, int]:
        """How many peers hold each image; without those that were not counted yet."""
        return {digest: count for digest, (count, _) in self._counts.items()}

    async def keep_fresh(self) -> None:
        """List and count until cancelled; several calls at a time share one loop."""
        async with self._turn:
            now, listed_at = asyncio.get_running_loop().time, float("-inf")
            while True:
                if now() - listed_at >= LIST_SECONDS:
                    listed_at = now()
                    await self._list()
                digest = self._due(now())
                if digest is not None:
                    await self._count(digest)
                is_first = len(self._counts) < len(set(self._images.values()))
                is_quick = is_first and len(self._router.peers()) <= SMALL_MESH_PEERS
                await asyncio.sleep(PAUSE_SECONDS if is_quick else SLOW_PAUSE_SECONDS)

    async def _list(self) -> None:
        found: dict[str, Digest] = {}
        error = ""
        try:
            for image in await self._store.images():
                if _is_shown(image.name):
                    found[image.name] = image.target
        except StoreError as failure:
            found, error = self._images, f"this node's store does not answer: {failure}"
        total = self._total if error else len(found)
        images = dict(sorted(found.items())[:IMAGES_SHOWN_MAX])
        if (images, total, error) != (self._images, self._total, self._error):
            self._images, self._total, self._error = images, total, error
            self._counts = {digest: self._counts[digest] for digest in images.values() if digest in self._counts}
            self.version += 1

    def _due(self, now: float) -> Digest | None:
        """The image to count next: one without a count, else the one with the oldest, if it is old."""
        oldest, found = now - FRESH_SECONDS, None
        for digest in self._images.values():
            if digest not in self._counts:
                return digest
            if (counted_at := self._counts[digest][1]) <= oldest:
                oldest, found = counted_at, digest
        return found

    async def _count(self, digest: Digest) -> None:
        count = 0
        async for _ in self._router.find_providers(str(digest), timeout_seconds=COUNT_SECONDS_MAX):
            count += 1
            if count >= HOLDERS_COUNTED_MAX:
                break
        if digest not in self._counts or self._counts[digest][0] != count:
            self.counts_version += 1
        self._counts[digest] = count, asyncio.get_running_loop().time()


def _is_shown(name: str) -> bool:
    """Names with a tag; containerd has further ones for the same images, by digest."""
    try:
        return Reference.parse(name).tag is not None
    except InvalidReferenceError:
        return False
