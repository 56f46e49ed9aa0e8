"""Counts the bytes that this node took from the upstream: they do not pass through speil, but its hit ratio needs them.

A request that no peer could answer is remembered. When its content is in the node's store later, it came from the
upstream, from the offset at which speil's answer ended. Content that was never asked for (an import, a build on the
node) is not counted.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from speil.mirror.series import MirrorSeries
from speil.observe.logs import get_log
from speil.oci.digest import Digest
from speil.store.base import ContentStore, NotFoundError, StoreError

MISSES_MAX = 10_000  # content that was missed and is not there yet; a pull has a hundred, those of failed pulls stay
LOOKS_AT_ONCE = 100  # at the disk, before other tasks have their turn

log = get_log("mirror")


@dataclass(frozen=True, slots=True)
class _Miss:
    registry: str
    offset: int
    image: str


class UpstreamBytes:
    """Counts `speil_upstream_bytes_total`; a `NewsReader`. Call `missed` and `served` for each request of the node."""

    def __init__(self, store: ContentStore, series: MirrorSeries) -> None:
        self._store, self._series = store, series
        self._misses: dict[str, _Miss] = {}
        self._looked_at = -1.0

    def missed(self, digest: Digest, registry: str, offset: int = 0, image: str = "") -> None:
        """The node asked for `digest` from `offset` on, and goes upstream for it. `registry` is the label.

        `image` is the repository that it was asked for under; it is logged: all nodes together show how many copies of
        an image left the upstream.
        """
        self._misses.pop(str(digest), None)
        if len(self._misses) >= MISSES_MAX:
            del self._misses[next(iter(self._misses))]
        self._misses[str(digest)] = _Miss(registry, offset, image)

    def served(self, digest: Digest) -> None:
        """A peer served it after all."""
        self._misses.pop(str(digest), None)

    async def arrived(self, keys: Iterable[str]) -> None:
        """Content (`sha256:…`; names are ignored) is in the store now."""
        for key in keys:
            if (miss := self._misses.pop(key, None)) is None:
                continue
            try:
                size = await self._store.size(Digest.parse(key))
            except StoreError as error:
                log.debug("content came and went", key=key, error=error)
                continue
            taken = max(size - miss.offset, 0)
            self._series.upstream_bytes.labels(miss.registry).inc(taken)
            log.info("content came from upstream", key=key, image=miss.image or None, bytes=taken, of=size)

    async def content_added(self, digests: Sequence[Digest]) -> None:
        """See NewsReader."""
        await self.arrived(map(str, digests))

    async def content_removed(self, digests: Sequence[Digest]) -> None:
        """See NewsReader."""

    async def image_added(self, name: str) -> None:
        """See NewsReader. containerd 1.6 reports the end of a pull only; many names cost one look a second."""
        now = asyncio.get_running_loop().time()
        if len(self._misses) <= LOOKS_AT_ONCE or now - self._looked_at >= 1.0:
            await self.look()

    async def images_removed(self, names: Sequence[str]) -> None:
        """See NewsReader."""

    async def look(self) -> None:
        """See NewsReader."""
        self._looked_at = asyncio.get_running_loop().time()
        for number, key in enumerate(list(self._misses), 1):
            try:
                await self._store.size(Digest.parse(key))
            except NotFoundError:
                continue
            finally:
                if number % LOOKS_AT_ONCE == 0:
                    await asyncio.sleep(0)
            await self.arrived([key])
