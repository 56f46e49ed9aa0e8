"""What a node had to take from the upstream: speil sees none of it pass, and yet its hit ratio by bytes rests on it.

A request that no peer could answer is remembered; when its content then lies in the node's store, it came from the
upstream, from the offset on at which we left it. Content that nobody asked speil for (an import, a build on the node)
is in no request and is not counted.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from speil.observe.logs import get_log
from speil.observe.metrics import Metrics
from speil.oci.digest import Digest
from speil.store.base import ContentStore, StoreError

MISSES_MAX = 10_000  # content that was asked for and is not there yet; a pull has a hundred, failed ones stay behind

log = get_log("mirror")


@dataclass(frozen=True, slots=True)
class _Miss:
    registry: str
    offset: int


class UpstreamBytes:
    """Counts `speil_upstream_bytes_total`. Tell it of every `missed` and `served` request, and of what `arrived`."""

    def __init__(self, store: ContentStore, metrics: Metrics) -> None:
        self._store, self._metrics = store, metrics
        self._misses: dict[str, _Miss] = {}

    def missed(self, digest: Digest, registry: str, offset: int = 0) -> None:
        """The node asked for `digest` from `offset` on, and goes upstream for it. `registry` is the label."""
        self._misses.pop(str(digest), None)
        if len(self._misses) >= MISSES_MAX:
            del self._misses[next(iter(self._misses))]
        self._misses[str(digest)] = _Miss(registry, offset)

    def served(self, digest: Digest) -> None:
        """A peer gave it after all."""
        self._misses.pop(str(digest), None)

    async def arrived(self, keys: Iterable[str]) -> None:
        """Content (`sha256:…`; names are passed over) is in the store now."""
        for key in keys:
            if (miss := self._misses.pop(key, None)) is None:
                continue
            try:
                size = await self._store.size(Digest.parse(key))
            except StoreError as error:
                log.debug("content came and went", key=key, error=error)
                continue
            self._metrics.upstream_bytes.labels(miss.registry).inc(max(size - miss.offset, 0))
