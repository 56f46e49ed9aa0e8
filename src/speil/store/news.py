"""Subscribes to the events of the store once, and delivers them to all readers in two ways.

- Changes are delivered at once, in batches of what arrived while the readers were busy. Content comes before images.
  Image names are delivered a few at a time, with new content in between, so a layer never waits for many names.
- A full scan ("look") follows when events may have been lost, when image names were removed, and LOOK_SECONDS after
  the last scan. After a removal the content of the image may be deleted, and containerd sends no event for that.
  The kubelet removes many images in a row, so the scan waits until no more removals come: one scan serves them all.

If a reader fails because the store did not answer, a scan follows later. So no change is lost.
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

LOOK_SECONDS = 10 * 60.0  # garbage collection sends no events; DHT records of removed content live 19 minutes at most
QUIET_SECONDS = 1.0  # without a removal, before a scan
STORM_SECONDS_MAX = 15.0  # a scan starts by then, even if removals continue
RETRY_SECONDS = 5.0  # after a scan that failed although the store is available
REMOVED_AT_ONCE = 16  # names in a batch; each costs a request to containerd, and new content must not wait for many
PENDING_MAX = 10_000  # undelivered changes of one kind; above it they are dropped and a scan follows

T = TypeVar("T")

log = get_log("news")


class NewsReader(Protocol):
    """Each method may raise StoreError; a scan follows then."""

    async def content_added(self, digests: Sequence[Digest]) -> None:
        """Content was committed."""

    async def content_removed(self, digests: Sequence[Digest]) -> None:
        """Content was removed."""

    async def image_added(self, name: str) -> None:
        """An image name was created, or has a new target."""

    async def images_removed(self, names: Sequence[str]) -> None:
        """Image names were removed; a scan follows."""

    async def look(self) -> None:
        """Scan the whole store: anything may have changed."""


class StoreNews:
    """Delivers the events of one store to `readers`, to one after the other, in the given order."""

    def __init__(self, store: ContentStore, series: StoreSeries, readers: Iterable[NewsReader]) -> None:
        self._store, self._series, self._readers = store, series, tuple(readers)
        self._content_added: dict[Digest, None] = {}
        self._content_removed: dict[Digest, None] = {}
        self._images_added: dict[str, None] = {}
        self._images_removed: dict[str, None] = {}
        self._changed, self._look_wanted = asyncio.Event(), asyncio.Event()
        self._reason = "timer"
        self._look_at: float | None = None  # loop time of a scan that is due before the timer; 0.0: now
        self._storm_ends = 0.0

    async def run(self) -> None:
        """Subscribe and deliver, until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._listen())
            group.create_task(self._deliver())
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
                self._request_look_when_quiet()
            case StoreEvent(StoreEventKind.IMAGE_ADDED, image=str() as name):
                self._images_removed.pop(name, None)
                self._images_added[name] = None
            case StoreEvent(StoreEventKind.IMAGE_REMOVED, image=str() as name):
                self._images_added.pop(name, None)
                self._images_removed[name] = None
                self._request_look_when_quiet()
            case _:
                self._request_look("resync")
                return
        self._changed.set()
        for pending in (self._content_added, self._content_removed, self._images_added, self._images_removed):
            if len(pending) > PENDING_MAX:
                pending.clear()
                self._request_look("overflow")

    def _request_look(self, reason: str) -> None:
        self._reason, self._look_at = reason, 0.0
        self._look_wanted.set()

    def _request_look_when_quiet(self) -> None:
        now = asyncio.get_running_loop().time()
        if self._look_at is None:
            self._reason, self._storm_ends = "removed", now + STORM_SECONDS_MAX
        if self._look_at != 0.0:
            self._look_at = min(now + QUIET_SECONDS, self._storm_ends)
            self._look_wanted.set()

    # --- delivering ----------------------------------------------------------------------------------------

    async def _deliver(self) -> None:
        while True:
            await self._changed.wait()
            self._changed.clear()
            await self._deliver_content()
            while self._images_added or self._images_removed:
                if added := _taken(self._images_added, 1):
                    for reader in self._readers:
                        await self._call(reader.image_added(added[0]))
                elif removed := _taken(self._images_removed, REMOVED_AT_ONCE):
                    for reader in self._readers:
                        await self._call(reader.images_removed(removed))
                await self._deliver_content()

    async def _deliver_content(self) -> None:
        if added := _taken(self._content_added):
            for reader in self._readers:
                await self._call(reader.content_added(added))
        if removed := _taken(self._content_removed):
            for reader in self._readers:
                await self._call(reader.content_removed(removed))

    async def _call(self, delivery: Awaitable[None]) -> None:
        try:
            await delivery
        except StoreError as error:
            log.debug("store did not answer: a full scan follows", error=error)
            self._request_look("failed")

    # --- scanning ----------------------------------------------------------------------------------------

    async def _look(self) -> None:
        loop = asyncio.get_running_loop()
        due = loop.time() + LOOK_SECONDS  # the first event of the store is a RESYNC, which starts a scan
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
                log.debug("full scan failed: store did not answer", error=error, available=self._store.available)
                # an unavailable store sends a RESYNC when it is available again
                self._reason, due = "failed", loop.time() + RETRY_SECONDS if self._store.available else due

    async def _wait_for_look(self, due: float) -> None:
        """Wait until `due`, or until a scan is requested, or until the removals have ended."""
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
