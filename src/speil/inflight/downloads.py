"""Reports to `Pulls` what the runtime of this node downloads: from the events of its ingests, and of the store.

containerd opens an ingest before it asks for content. So a pull that was sent upstream and has no ingest soon after is
none: the request came from a person, or the content was there already. It holds no claim then.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from speil.claims.states import PullState
from speil.inflight.flight import Flight, key_of
from speil.inflight.pulls import Pulls
from speil.observe.logs import get_log
from speil.oci.digest import Digest
from speil.store.base import ContentStore, NotFoundError, StoreError
from speil.store.growing_content import IngestEnd
from speil.store.ingests import IngestEvent, IngestEventKind, Ingests

LOOK_SECONDS = 0.5  # between two looks at pulls whose requests have ended
BEGIN_SECONDS_MAX = 2.0  # from the end of a request until its ingest is there, or its content
QUIET_SECONDS_MAX = 60.0  # a runtime of which no ingest grew for longer is dead
LINE_SECONDS_MAX = 30 * 60.0  # an ingest that did not grow for longer is not what the runtime downloads now

log = get_log("sharing")


class Downloads:
    """A `NewsReader`. Run it."""

    def __init__(self, ingests: Ingests, store: ContentStore) -> None:
        self._ingests, self._store = ingests, store
        self.pulls: Pulls  # set before it runs

    async def run(self) -> None:
        """Follow the events of ingests, until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._ingests.run())
            group.create_task(self._read_events())
            group.create_task(self._look_often())

    def look_at(self, flight: Flight) -> None:
        """Report what the runtime has of a flight now."""
        try:
            found = self._ingests.find(flight.digest)
        except OSError as error:  # the answer to a follower must not fail
            log.debug("the ingests can't be read", error=error)
            return
        if found is not None:
            self._grew(flight, found.size, found.total)

    async def _read_events(self) -> None:
        async for event in self._ingests.events():
            if event.kind is not IngestEventKind.RESYNC and event.digest is not None:
                try:
                    self._take(event.digest, event)
                except Exception as error:
                    self.pulls.failed(error)

    def _take(self, digest: Digest, event: IngestEvent) -> None:
        flight = self.pulls.flight(digest)
        if event.kind is IngestEventKind.ENDED:
            self._ended(digest, event, flight)
        elif flight is not None:
            self._grew(flight, event.size, event.total)
            if event.kind is IngestEventKind.BEGAN:
                flight.wake()

    def _grew(self, flight: Flight, size: int, total: int | None) -> None:
        flight.total = total or flight.total
        if flight.request is None:  # otherwise the request reports what containerd got
            flight.idle_since = _now()
            if self.pulls.state(flight) is not PullState.DELIVERED:
                self.pulls.received(flight, size)

    def _ended(self, digest: Digest, event: IngestEvent, flight: Flight | None) -> None:
        match event.end:
            case IngestEnd.COMMITTED:
                self.pulls.completed(key_of(digest))
            case IngestEnd.GONE if self._ingests.find(digest) is None:
                if event.is_suspect:
                    self.pulls.spoiled(digest)
                else:
                    self.pulls.gone(digest)

    async def _look_often(self) -> None:
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            try:
                await self._look_at_those_without_request()
            except Exception as error:
                self.pulls.failed(error)

    async def _look_at_those_without_request(self) -> None:
        waiting = [flight for flight in self.pulls.flights if flight.request is None]
        if not waiting:
            return
        current = {ingest.digest: ingest for ingest in self._ingests.current()}
        is_alive = any(ingest.silent_seconds < QUIET_SECONDS_MAX for ingest in current.values())
        for flight in waiting:
            ingest = current.get(flight.digest)
            if ingest is not None:
                if is_alive and ingest.silent_seconds < LINE_SECONDS_MAX:  # it may wait in line for a slot
                    flight.idle_since = _now()
                else:
                    self.pulls.cancelled(flight)
            elif _now() - flight.idle_since > BEGIN_SECONDS_MAX:
                await self._settle(flight)

    async def _settle(self, flight: Flight) -> None:
        """It has no ingest: it is in the store, or it is not downloaded."""
        try:
            await self._store.size(flight.digest)
        except StoreError as error:
            if not flight.ended:
                log.debug("no download came after the request", key=flight.digest, error=error)
                self.pulls.cancelled(flight)
        else:
            self.pulls.completed(flight.key)

    # --- news of the store -------------------------------------------------------------------------------

    async def content_added(self, digests: Sequence[Digest]) -> None:
        """See NewsReader."""
        for digest in digests:
            self.pulls.completed(key_of(digest))

    async def content_removed(self, digests: Sequence[Digest]) -> None:
        """See NewsReader."""

    async def image_added(self, name: str) -> None:
        """See NewsReader."""

    async def images_removed(self, names: Sequence[str]) -> None:
        """See NewsReader."""

    async def look(self) -> None:
        """See NewsReader."""
        for flight in self.pulls.flights:
            if flight.request is None:
                try:
                    await self._store.size(flight.digest)
                except NotFoundError:
                    continue
                self.pulls.completed(flight.key)


def _now() -> float:
    return asyncio.get_running_loop().time()
