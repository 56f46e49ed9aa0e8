"""What the node's store holds becomes what the node announces.

At start, and after each gap in the store's news, everything is looked at: the tags, and of each image the content
that is really on disk. In between news is followed one by one: a layer that is committed is announced within
milliseconds where the store tells of it. News may miss things (containerd tells nothing of what its garbage collector
removes), so everything is looked at again from time to time.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass

from speil.observe.logs import get_log
from speil.observe.metrics import Gauge, Metrics
from speil.oci.digest import Digest
from speil.oci.reference import InvalidReferenceError, Reference
from speil.routing.base import Router
from speil.store.base import ContentStore, Image, NotFoundError, StoreError, StoreEvent, StoreEventKind
from speil.store.walk import contents

EVENTS_MAX = 10_000  # an image of a hundred layers makes a few hundred; a reader that lags further waits
RESYNC_SECONDS = 10 * 60.0  # garbage collection tells nothing; records of what is gone live at most 19 minutes

log = get_log("announce")


@dataclass(frozen=True, slots=True)
class AnnounceSettings:
    """What may be announced: names that match a filter are not; tags only where they may be resolved."""

    resolve_tags: bool
    registry_filters: tuple[re.Pattern[str], ...]
    mirrors: Callable[[str], bool] = lambda registry: True  # whether a registry is mirrored at all


async def _nobody_listens(keys: Iterable[str]) -> None:
    pass


class Announcer:
    """Keeps the router's keys equal to the store's content; `arrived` hears of each key that is new in it."""

    def __init__(
        self,
        store: ContentStore,
        router: Router,
        settings: AnnounceSettings,
        metrics: Metrics,
        arrived: Callable[[Iterable[str]], Awaitable[None]] = _nobody_listens,
    ) -> None:
        self._store, self._router, self._settings, self._metrics = store, router, settings, metrics
        self._arrived = arrived
        self._announced: set[str] = set()

    async def run(self) -> None:
        """Until cancelled."""
        events: asyncio.Queue[StoreEvent] = asyncio.Queue(maxsize=EVENTS_MAX)

        async def listen() -> None:
            async for event in self._store.events():
                self._metrics.store_events.labels(event.kind).inc()
                await events.put(event)

        async with asyncio.TaskGroup() as group:
            group.create_task(listen())
            while True:
                try:
                    async with asyncio.timeout(RESYNC_SECONDS):
                        event = await events.get()
                except TimeoutError:
                    event = StoreEvent(StoreEventKind.RESYNC)
                try:
                    await self._follow(event)
                except StoreError as error:
                    log.debug("the store did not answer; its next news brings everything", error=error)

    async def _follow(self, event: StoreEvent) -> None:
        match event:
            case StoreEvent(StoreEventKind.CONTENT_ADDED, digest=Digest() as digest):
                await self._add([str(digest)])
            case StoreEvent(StoreEventKind.CONTENT_REMOVED, digest=Digest() as digest):
                self._remove([str(digest)])
            case StoreEvent(StoreEventKind.IMAGE_ADDED, image=str() as name):
                await self._image_added(name)
            case _:
                await self._resync()

    async def _image_added(self, name: str) -> None:
        try:
            image = Image(name, await self._store.resolve(name))
        except NotFoundError:
            return  # it came and went
        await self._add(await self._keys_of(image))

    async def _resync(self) -> None:
        """Look at everything; announce what is new, withdraw what is gone."""
        wanted: set[str] = set()
        tags, manifests, content = _Counts(), _Counts(), _Counts()
        for image in await self._store.images():
            if (reference := self._reference(image.name)) is None:
                continue
            keys = await self._keys_of(image)
            wanted.update(keys)
            tags.add(reference.registry, [key for key in keys if not _is_digest(key)])
            manifests.add(reference.registry, [str(image.target)])
            content.add(reference.registry, [key for key in keys if _is_digest(key)])
        tags.show(self._metrics.advertised_image_tags)
        manifests.show(self._metrics.advertised_image_digests)
        content.show(self._metrics.advertised_content_digests)
        self._remove(await self._gone(self._announced - wanted))
        await self._add(wanted)
        log.debug("looked at the whole store", keys=len(wanted))

    async def _gone(self, keys: Iterable[str]) -> list[str]:
        """Those keys whose content is not on disk: what belongs to no image yet may still be there."""
        gone = []
        for key in keys:
            try:
                if not _is_digest(key):
                    raise NotFoundError(key)
                await self._store.size(Digest.parse(key))
            except NotFoundError:
                gone.append(key)
        return gone

    async def _keys_of(self, image: Image) -> list[str]:
        if (reference := self._reference(image.name)) is None:
            return []
        keys = [str(digest) for digest in await contents(self._store, image.target)]
        if keys and self._settings.resolve_tags and reference.tag_name and str(image.target) in keys:
            keys.append(reference.tag_name)
        return keys

    def _reference(self, name: str) -> Reference | None:
        """The image's reference, None for names that are no reference (`sha256:…`) or may not be announced."""
        try:
            reference = Reference.parse(name)
        except InvalidReferenceError:
            return None
        if not self._settings.mirrors(reference.registry):
            return None
        if any(pattern.search(name) for pattern in self._settings.registry_filters):
            return None
        return reference

    async def _add(self, keys: Iterable[str]) -> None:
        if new := [key for key in keys if key not in self._announced]:
            self._announced.update(new)
            await self._router.provide(new)
            await self._arrived(new)

    def _remove(self, keys: Iterable[str]) -> None:
        if gone := [key for key in keys if key in self._announced]:
            self._announced.difference_update(gone)
            self._router.withdraw(gone)


def _is_digest(key: str) -> bool:
    return key.startswith(("sha256:", "sha512:"))


class _Counts:
    """Distinct keys by registry, for the gauges; registries that are gone go back to zero."""

    def __init__(self) -> None:
        self._keys: dict[str, set[str]] = {}

    def add(self, registry: str, keys: Iterable[str]) -> None:
        self._keys.setdefault(registry, set()).update(keys)

    def show(self, gauge: Gauge) -> None:
        gauge.clear()
        for registry, keys in self._keys.items():
            gauge.labels(registry).set(len(keys))
