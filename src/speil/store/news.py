"""One place listens to the store and passes its news on, in two lanes.

- What was added or removed goes to the readers at once, in batches: whatever came while they were busy. Content goes
  before images, and names of images go few at a time with new content in between: a layer never waits for a storm.
- Looks at everything: when the store says that news may have been missed, when names of images went away (what they
  named may go with them, and containerd tells nothing of that), and LOOK_SECONDS after the last look, whatever the
  news. Removals wait until they are over: the kubelet removes many images in a row, and one look serves them all.

A reader that could not follow because the store did not answer gets a look later, so nothing is lost.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Iterable, Sequence
from itertools import islice
from typing import Protocol, TypeVar

from speil.observe.logs import get_log
from speil.oci.digest import Digest
from speil.store.base import ContentStore, StoreError, StoreEvent, StoreEventKind
from speil.store.series import StoreSeries

LOOK_SECONDS = 10 * 60.0  # garbage collection tells nothing; records of what is gone live at most 19 minutes
QUIET_SECONDS = 1.0  # without a removal: the storm is over
STORM_SECONDS_MAX = 15.0  # a storm that goes on is looked at all the same
RETRY_SECONDS = 5.0  # after a look that failed while the store is there
REMOVED_AT_ONCE = 16  # names; each is a question to containerd, and new content goes in between
PENDING_MAX = 10_000  # news that waits for its readers; beyond it a look takes its place

T = TypeVar("T")

log = get_log("news")


class NewsReader(Protocol):
    """Each method may raise StoreError: a look follows then."""

    async def content_added(self, digests: Sequence[Digest]) -> None:
        """Content was committed."""

    async def content_removed(self, digests: Sequence[Digest]) -> None:
        """Content is gone."""

    async def image_added(self, name: str) -> None:
        """An image was named, or its name points elsewhere."""

    async def images_removed(self, names: Sequence[str]) -> None:
        """Names are gone; a look follows."""

    async def look(self) -> None:
        """Anything may have changed: look at all of it."""


class StoreNews:
    """Follows one store for its readers, which are told in their order."""

    def __init__(self, store: ContentStore, series: StoreSeries, readers: Iterable[NewsReader]) -> None:
        self._store, self._series, self._readers = store, series, tuple(readers)
        self._content_added: dict[Digest, None] = {}
        self._content_removed: dict[Digest, None] = {}
        self._images_added: dict[str, None] = {}
        self._images_removed: dict[str, None] = {}
        self._fresh, self._look_wanted = asyncio.Event(), asyncio.Event()
        self._reason = "timer"
        self._look_at: float | None = None  # when the storm of removals ends, as far as is known
        self._storm_ends = 0.0

    async def run(self) -> None:
        """Until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._listen())
            group.create_task(self._tell())
            group.create_task(self._look())

    # --- listening --------------------------------------------------------------------------------------

    async def _listen(self) -> None:
        async for event in self._store.events():
            self._series.events.labels(event.kind).inc()
            self._take(event)

    def _take(self, event: StoreEvent) -> None:
        match event:
            case StoreEvent(StoreEventKind.CONTENT_ADDED, digest=Digest() as digest):
                self._content_removed.pop(digest, None)
                self._content_added[digest] = None
            case StoreEvent(StoreEventKind.CONTENT_REMOVED, digest=Digest() as digest):
                self._content_added.pop(digest, None)
                self._content_removed[digest] = None
                self._want_look_when_quiet()
            case StoreEvent(StoreEventKind.IMAGE_ADDED, image=str() as name):
                self._images_removed.pop(name, None)
                self._images_added[name] = None
            case StoreEvent(StoreEventKind.IMAGE_REMOVED, image=str() as name):
                self._images_added.pop(name, None)
                self._images_removed[name] = None
                self._want_look_when_quiet()
            case _:
                self._want_look("resync")
                return
        self._fresh.set()
        for pending in (self._content_added, self._content_removed, self._images_added, self._images_removed):
            if len(pending) > PENDING_MAX:
                pending.clear()
                self._want_look("overflow")

    def _want_look(self, reason: str) -> None:
        self._reason, self._look_at = reason, 0.0
        self._look_wanted.set()

    def _want_look_when_quiet(self) -> None:
        now = asyncio.get_running_loop().time()
        if self._look_at is None:
            self._reason, self._storm_ends = "removed", now + STORM_SECONDS_MAX
        if self._look_at != 0.0:
            self._look_at = min(now + QUIET_SECONDS, self._storm_ends)
            self._look_wanted.set()

    # --- telling ----------------------------------------------------------------------------------------

    async def _tell(self) -> None:
        while True:
            await self._fresh.wait()
            self._fresh.clear()
            await self._tell_of_content()
            while self._images_added or self._images_removed:
                if added := _taken(self._images_added, 1):
                    for reader in self._readers:
                        await self._follow(reader.image_added(added[0]))
                elif removed := _taken(self._images_removed, REMOVED_AT_ONCE):
                    for reader in self._readers:
                        await self._follow(reader.images_removed(removed))
                await self._tell_of_content()

    async def _tell_of_content(self) -> None:
        if added := _taken(self._content_added):
            for reader in self._readers:
                await self._follow(reader.content_added(added))
        if removed := _taken(self._content_removed):
            for reader in self._readers:
                await self._follow(reader.content_removed(removed))

    async def _follow(self, telling: Awaitable[None]) -> None:
        try:
            await telling
        except StoreError as error:
            log.debug("the store did not answer: a look follows", error=error)
            self._want_look("failed")

    # --- looking ----------------------------------------------------------------------------------------

    async def _look(self) -> None:
        loop = asyncio.get_running_loop()
        due = loop.time() + LOOK_SECONDS  # the store's first news is a resync
        while True:
            await self._wait_for_look(due)
            reason, self._reason, self._look_at = self._reason, "timer", None
            self._look_wanted.clear()
            due = loop.time() + LOOK_SECONDS
            self._series.looks.labels(reason).inc()
            try:
                for reader in self._readers:
                    await reader.look()
            except StoreError as error:
                log.debug("the store did not answer", error=error, available=self._store.available)
                # a store that is away says so when it is back
                self._reason, due = "failed", loop.time() + RETRY_SECONDS if self._store.available else due

    async def _wait_for_look(self, due: float) -> None:
        """Until a look is due, or wanted at once, or a storm of removals is over."""
        loop = asyncio.get_running_loop()
        while (until := due if self._look_at is None else min(due, self._look_at)) > loop.time():
            self._look_wanted.clear()
            try:
                async with asyncio.timeout_at(until):
                    await self._look_wanted.wait()
            except TimeoutError:
                return


def _taken(pending: dict[T, None], count_max: int = PENDING_MAX) -> list[T]:
    found = list(islice(pending, count_max))
    for one in found:
        del pending[one]
    return found
