"""Announces what the node's store holds.

Content is announced as it is committed, if it may be shared (`store.sharing`). A tag is announced if its image is whole
for a platform (`store.whole`). `store.news` reports what the store gained and lost, and when to look at all of it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from speil.observe.logs import get_log
from speil.observe.metrics import Metrics
from speil.oci.digest import Digest
from speil.oci.selection import Pattern, Selection
from speil.routing.announced_counts import AnnouncedCounts
from speil.routing.base import Router
from speil.routing.series import AnnounceSeries
from speil.store.base import ContentStore, Image, NotFoundError, StoreError
from speil.store.news import StoreNews
from speil.store.series import StoreSeries
from speil.store.sharing import Sharing
from speil.store.walk import contents
from speil.store.whole import Wholeness

# containerd stores the origin of content a moment after it reports the content.
ORIGIN_WAIT_SECONDS = (0.02, 0.05, 0.1, 0.3, 1.0, 3.0)
UNDECIDED_MAX = 1000  # content whose repository is not known yet; the next look at the store decides about the rest
WITHHELD_MAX = 10_000  # images that are not whole
RECHECK_SECONDS = 0.5  # content arrives in bursts: images are checked once after each

log = get_log("announce")


@dataclass(frozen=True, slots=True)
class AnnounceSettings:
    """What may be announced. Content that matches a filter may not, and tags only with `resolve_tags`."""

    resolve_tags: bool
    registry_filters: tuple[Pattern, ...] = ()
    mirrors: Callable[[str], bool] | None = None  # whether a registry is mirrored; None for all

    @property
    def selection(self) -> Selection:
        """Which registries and repositories may be announced."""
        if self.mirrors is None:
            return Selection(self.registry_filters, is_open=not self.registry_filters)
        return Selection(self.registry_filters, self.mirrors)


class Announcer:
    """Keeps the announced keys equal to the store's content. A NewsReader."""

    def __init__(
        self,
        store: ContentStore,
        router: Router,
        settings: AnnounceSettings,
        metrics: Metrics,
        *,
        sharing: Sharing | None = None,
    ) -> None:
        """`sharing`: the one that others use too; None for one of its own."""
        self._store, self._router, self._metrics = store, router, metrics
        self._series = metrics.of(AnnounceSeries)
        self._resolve_tags = settings.resolve_tags
        self._sharing = sharing or Sharing(store, settings.selection)
        self._whole = Wholeness(store)
        self._announced: set[str] = set()
        self._undecided: dict[Digest, int] = {}  # how often its origin was looked up
        self._came = asyncio.Event()
        self._withheld: dict[str, Digest] = {}  # tags of images that are not whole
        self._recheck = asyncio.Event()
        self._counts = AnnouncedCounts()

    async def run(self) -> None:
        """Read the store's news for this announcer alone, until cancelled. Where others read them too: `follow_up`."""
        async with asyncio.TaskGroup() as group:
            group.create_task(StoreNews(self._store, self._metrics.of(StoreSeries), [self]).run())
            group.create_task(self.follow_up())

    async def follow_up(self) -> None:
        """Announce what could not be decided when it arrived, until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._decide())
            group.create_task(self._check_withheld())

    # --- news -------------------------------------------------------------------------------------------

    async def content_added(self, digests: Sequence[Digest]) -> None:
        """See NewsReader."""
        shared = []
        for digest in digests:
            if await self._sharing.allows(digest):
                shared.append(str(digest))
            elif len(self._undecided) < UNDECIDED_MAX:
                self._undecided[digest] = 0
                self._came.set()
        await self._add(shared)
        if self._withheld:
            self._recheck.set()

    async def content_removed(self, digests: Sequence[Digest]) -> None:
        """See NewsReader."""
        for digest in digests:
            self._undecided.pop(digest, None)
        self._sharing.forget(digests)
        self._remove(map(str, digests))

    async def image_added(self, name: str) -> None:
        """See NewsReader."""
        try:
            image = Image(name, await self._store.resolve(name))
        except NotFoundError:
            return  # it was removed already
        if keys := await self._keys_of(image, {}):
            await self._add(keys)
            if reference := self._sharing.reference(name):
                self._counts.image(reference.registry, str(image.target), keys)
                self._counts.show(self._series)
        if tag := self._tag_of(image):
            await self._follow_tag(tag, image.target)

    async def images_removed(self, names: Sequence[str]) -> None:
        """See NewsReader."""
        for name in names:
            if (reference := self._sharing.reference(name)) and (tag := self._sharing.tag(reference)):
                try:
                    await self._store.resolve(name)
                except NotFoundError:
                    self._withheld.pop(tag, None)
                    self._remove([tag])

    async def look(self) -> None:
        """See NewsReader. Announces what is new and withdraws what is gone."""
        # What arrives while this runs is decided elsewhere.
        before, known, withheld_before = frozenset(self._announced), self._sharing.known, frozenset(self._withheld)
        wanted: dict[str, None] = {}
        walked: dict[Digest, list[Digest]] = {}  # containerd has three names for an image
        withheld: dict[str, Digest] = {}
        counts = AnnouncedCounts()
        for image in await self._store.images():
            if (reference := self._sharing.reference(image.name)) is None:
                continue
            keys = await self._keys_of(image, walked)
            wanted.update(dict.fromkeys(keys))
            counts.image(reference.registry, str(image.target), keys)
            if tag := self._tag_of(image):
                if await self._whole.images(image.target):
                    wanted[tag] = None
                    counts.tag(tag)
                elif len(withheld) < WITHHELD_MAX:
                    withheld[tag] = image.target
        came = {tag: target for tag, target in self._withheld.items() if tag not in withheld_before}
        self._withheld = withheld | came
        self._series.withheld_tags.set(len(self._withheld))
        # the scan is right where events were missed; what an image added while it ran is counted by the next one
        self._counts = counts
        counts.show(self._series)
        self._sharing.forget(known.difference(*walked.values()))
        gone = await self._gone(before - wanted.keys())
        self._remove(gone)
        await self._add(wanted)
        log.debug("store scanned", keys=len(wanted), gone=len(gone), withheld_tags=len(withheld))

    # --- what could not be decided at once ---------------------------------------------------------------

    async def _decide(self) -> None:
        """Look up the origin of undecided content again. Content that stays without one is left to the next look."""
        while True:
            await self._came.wait()
            self._came.clear()
            while self._undecided:
                await asyncio.sleep(ORIGIN_WAIT_SECONDS[min(self._undecided.values())])
                for digest, tries in list(self._undecided.items()):
                    if await self._sharing.allows(digest):
                        self._undecided.pop(digest, None)
                        await self._add([str(digest)])
                    elif tries + 1 >= len(ORIGIN_WAIT_SECONDS) or await self._sharing.is_known(digest):
                        self._undecided.pop(digest, None)
                    elif digest in self._undecided:
                        self._undecided[digest] = tries + 1

    async def _check_withheld(self) -> None:
        """Announce tags whose images new content has made whole."""
        while True:
            await self._recheck.wait()
            await asyncio.sleep(RECHECK_SECONDS)
            self._recheck.clear()
            try:
                for tag, target in list(self._withheld.items()):
                    if self._withheld.get(tag) == target:
                        await self._follow_tag(tag, target)
            except StoreError as error:
                log.debug("store did not answer, withheld tags are checked with the next look", error=error)

    async def _follow_tag(self, tag: str, target: Digest) -> None:
        """Announce a tag whose image is whole, else withhold it."""
        if await self._whole.images(target):
            self._withheld.pop(tag, None)
            await self._add([tag])
            self._counts.tag(tag)
            self._counts.show(self._series)
        else:
            if tag not in self._withheld:
                log.debug("tag withheld, its image is whole for no platform", tag=tag, key=target)
            if len(self._withheld) < WITHHELD_MAX:
                self._withheld[tag] = target
            self._remove([tag])
        self._series.withheld_tags.set(len(self._withheld))

    # --- keys -------------------------------------------------------------------------------------------

    async def _gone(self, keys: Iterable[str]) -> list[str]:
        """The keys whose content is not in the store or may not be shared. Content of no image may still be there."""
        gone = []
        for key in keys:
            try:
                if not _is_digest(key):
                    raise NotFoundError(key)
                digest = Digest.parse(key)
                await self._store.size(digest)
                if not await self._sharing.allows(digest):
                    raise NotFoundError(key)
            except NotFoundError:
                gone.append(key)
        return gone

    async def _keys_of(self, image: Image, walked: dict[Digest, list[Digest]]) -> list[str]:
        """The content of an image that is in the store and may be shared."""
        if self._sharing.reference(image.name) is None:
            return []
        if image.target not in walked:
            walked[image.target] = await contents(self._store, image.target)
        self._sharing.know(walked[image.target])
        return [str(digest) for digest in walked[image.target]]

    def _tag_of(self, image: Image) -> str | None:
        """The tag in an image's name, if it may be announced."""
        if not self._resolve_tags or (reference := self._sharing.reference(image.name)) is None:
            return None
        return self._sharing.tag(reference)

    async def _add(self, keys: Iterable[str]) -> None:
        if new := [key for key in keys if key not in self._announced]:
            self._announced.update(new)
            await self._router.provide(new)

    def _remove(self, keys: Iterable[str]) -> None:
        if gone := [key for key in keys if key in self._announced]:
            self._announced.difference_update(gone)
            self._router.withdraw(gone)


def _is_digest(key: str) -> bool:
    return key.startswith(("sha256:", "sha512:"))
