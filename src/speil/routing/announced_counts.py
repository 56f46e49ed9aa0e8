"""How many tags, images and content digests a node announces, by registry."""

from __future__ import annotations

from collections.abc import Iterable

from speil.observe.metrics import Gauge
from speil.routing.series import AnnounceSeries


class AnnouncedCounts:
    """Counts distinct keys, for the gauges. A scan of the store begins anew; an image that comes later is added."""

    def __init__(self) -> None:
        self._tags, self._images, self._content = _Distinct(), _Distinct(), _Distinct()

    def image(self, registry: str, digest: str, content: Iterable[str]) -> None:
        """Add an image with its content."""
        self._images.add(registry, [digest])
        self._content.add(registry, content)

    def tag(self, key: str) -> None:
        """Add a tag, `registry/repository:tag`."""
        self._tags.add(key.partition("/")[0], [key])

    def show(self, series: AnnounceSeries) -> None:
        """Set the gauges."""
        self._tags.show(series.image_tags)
        self._images.show(series.image_digests)
        self._content.show(series.content_digests)


class _Distinct:
    """Distinct keys by registry; a registry without keys is removed from the gauge."""

    def __init__(self) -> None:
        self._keys: dict[str, set[str]] = {}

    def add(self, registry: str, keys: Iterable[str]) -> None:
        self._keys.setdefault(registry, set()).update(keys)

    def show(self, gauge: Gauge) -> None:
        gauge.clear()
        for registry, keys in self._keys.items():
            gauge.labels(registry).set(len(keys))
