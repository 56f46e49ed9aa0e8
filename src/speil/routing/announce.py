"""What the node's store holds becomes what the node announces.

Content is announced as it is committed, where it may be shared (`store.sharing`); a tag where the image that it names
is whole for a platform (`store.whole`). The store's news comes from `store.news`, which also says when to look at
everything.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from speil.observe.logs import get_log
from speil.observe.metrics import Gauge, Metrics
from speil.oci.digest import Digest
from speil.oci.selection import Pattern, Selection
from speil.routing.base import Router
from speil.store.base import ContentStore, Image, NotFoundError, StoreError
from speil.store.news import StoreNews
from speil.store.series import StoreSeries
from speil.store.sharing import Sharing
from speil.store.walk import contents
from speil.store.whole import Wholeness

# containerd writes down where content comes from a moment after it tells of it
ORIGIN_WAIT_SECONDS = (0.02, 0.05, 0.1, 0.3, 1.0, 3.0)
UNDECIDED_MAX = 1000  # content whose repository is not known yet; the next look decides about the rest
WITHHELD_MAX = 10_000  # images that are not whole
RECHECK_SECONDS = 0.5  # content comes in bursts: what it makes whole is looked at behind them

log = get_log("announce")


@dataclass(frozen=True, slots=True)
class AnnounceSettings:
    """What may be announced: what matches a filter is not; tags only where they may be resolved."""

    resolve_tags: bool
    registry_filters: tuple[Pattern, ...] = ()
    mirrors: Callable[[str], bool] | None = None  # whether a registry is mirrored; None: all are

    @property
    def selection(self) -> Selection:
        """The rule."""
        if self.mirrors is None:
            return Selection(self.registry_filters, is_open=not self.registry_filters)
        return Selection(self.registry_filters, self.mirrors)


class Announcer:
    """Keeps the router's keys equal to the store's content; a reader of the store's news."""

    def __init__(
        self,
        store: ContentStore,
        router: Router,
        settings: AnnounceSettings,
        metrics: Metrics,
        *,
        sharing: Sharing | None = None,
    ) -> None:
        """`sharing` where others ask it too."""
        self._store, self._router, self._metrics = store, router, metrics
        self._resolve_tags = settings.resolve_tags
        self._sharing = sharing or Sharing(store, settings.selection)
        self._whole = Wholeness(store)
        self._announced: set[str] = set()
        self._undecided: dict[Digest, int] = {}  # how often its origin was asked for
        self._came = asyncio.Event()
        self._withheld: dict[str, Digest] = {}  # tags of images that are not whole
        self._recheck = asyncio.Event()

    async def run(self) -> None:
        """Follow the news of the store for this announcer alone, until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(StoreNews(self._store, self._metrics.of(StoreSeries), [self]).run())
            group.create_task(self.follow_up())

    async def follow_up(self) -> None:
        """Decide later what could not be decided when it came, until cancelled."""
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
            return  # it came and went
        if keys := await self._keys_of(image, {}):
            await self._add(keys)
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
        """See NewsReader: announce what is new, withdraw what is gone."""
        # what comes meanwhile is none of this look's business
        before, known, withheld_before = frozenset(self._announced), self._sharing.known, frozenset(self._withheld)
        wanted: dict[str, None] = {}
        walked: dict[Digest, list[Digest]] = {}  # containerd names an image three ways
        withheld: dict[str, Digest] = {}
        tags, manifests, content = _Counts(), _Counts(), _Counts()
        for image in await self._store.images():
            if (reference := self._sharing.reference(image.name)) is None:
                continue
            keys = await self._keys_of(image, walked)
            wanted.update(dict.fromkeys(keys))
            manifests.add(reference.registry, [str(image.target)])
            content.add(reference.registry, keys)
            if tag := self._tag_of(image):
                if await self._whole.images(image.target):
                    wanted[tag] = None
                    tags.add(reference.registry, [tag])
                elif len(withheld) < WITHHELD_MAX:
                    withheld[tag] = image.target
        came = {tag: target for tag, target in self._withheld.items() if tag not in withheld_before}
        self._withheld = withheld | came
        self._metrics.withheld_tags.set(len(self._withheld))
        tags.show(self._metrics.advertised_image_tags)
        manifests.show(self._metrics.advertised_image_digests)
        content.show(self._metrics.advertised_content_digests)
        self._sharing.forget(known.difference(*walked.values()))
        gone = await self._gone(before - wanted.keys())
        self._remove(gone)
        await self._add(wanted)
        log.debug("looked at the whole store", keys=len(wanted), gone=len(gone), withheld_tags=len(withheld))

    # --- what could not be decided at once ---------------------------------------------------------------

    async def _decide(self) -> None:
        """Ask again where undecided content comes from; what nobody wrote down is left to the next look."""
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
        """Announce tags that new content has made whole."""
        while True:
            await self._recheck.wait()
            await asyncio.sleep(RECHECK_SECONDS)
            self._recheck.clear()
            try:
                for tag, target in list(self._withheld.items()):
                    if self._withheld.get(tag) == target:
                        await self._follow_tag(tag, target)
            except StoreError as error:
                log.debug("the store did not answer; its next news brings a look", error=error)

    async def _follow_tag(self, tag: str, target: Digest) -> None:
        """Announce a tag whose image is whole, withhold it otherwise."""
        if await self._whole.images(target):
            self._withheld.pop(tag, None)
            await self._add([tag])
        else:
            if tag not in self._withheld:
                log.debug("a tag is not announced: its image is whole for no platform", tag=tag, key=target)
            if len(self._withheld) < WITHHELD_MAX:
                self._withheld[tag] = target
            self._remove([tag])
        self._metrics.withheld_tags.set(len(self._withheld))

    # --- keys -------------------------------------------------------------------------------------------

    async def _gone(self, keys: Iterable[str]) -> list[str]:
        """Those keys whose content is not on disk or may not be shared: what belongs to no image may still be there."""
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
        """The content of an image that is here, where it may be shared."""
        if self._sharing.reference(image.name) is None:
            return []
        if image.target not in walked:
            walked[image.target] = await contents(self._store, image.target)
        self._sharing.know(walked[image.target])
        return [str(digest) for digest in walked[image.target]]

    def _tag_of(self, image: Image) -> str | None:
        """The tag that an image's name stands for, where it may be announced."""
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
