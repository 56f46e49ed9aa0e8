"""Followers of this node's downloads: a source for peers that ask for content that may still grow.

A follower is named to this node by the umpire, mostly before the first byte is there: it waits for the runtime's
ingest. A manifest is not sent before it is verified: the follower waits until it is in the store. How long a follower
waits for bytes is the follower's decision; this node only ends a response whose follower has left.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from speil.claims.asker import HOLD_SECONDS_MAX
from speil.inflight.downloads import BEGIN_SECONDS_MAX, LINE_SECONDS_MAX
from speil.inflight.pulls import Pulls
from speil.inflight.series import InflightSeries
from speil.oci.digest import Digest
from speil.sources.base import ContentRequest, Opened
from speil.sources.growing import Growing, GrowingBlob
from speil.sources.own_store import OwnStore
from speil.sources.peer_client import GROWING_HEADER
from speil.store.ingests import STALL_SECONDS_MAX, Ingests
from speil.store.sharing import Sharing

FOLLOWERS_PER_CONTENT_MAX = 4  # the umpire places two; orphans of a node that died may come on top
FOLLOWERS_MAX = 16  # containerd downloads three layers at a time, some nodes several images
BUSY = "followers"  # the reason that a refused follower gets


class Serving:
    """A `Source`, for peers that follow; asked after the store."""

    def __init__(self, pulls: Pulls, ingests: Ingests, own: OwnStore, sharing: Sharing) -> None:
        self._pulls, self._own = pulls, own
        allowed = _SharingUnderWay(pulls, sharing)
        self._growing = Growing(ingests, allowed, stall_seconds=self._stall_seconds)

    async def open(self, request: ContentRequest) -> Opened | None:
        """See Source."""
        digest = request.content.digest
        if digest is None or request.method != "GET":
            return None
        if self._pulls.is_spoiled(digest):
            request.notes.miss = "wrong bytes lately"
            return None
        until = asyncio.get_running_loop().time() + BEGIN_SECONDS_MAX
        while True:
            flight = self._pulls.flight(digest)
            if flight is not None and flight.is_aside:
                request.notes.miss = "not downloaded now"
                return None
            changed = flight.changed if flight else None
            opened = await (self._own if request.content.is_manifest else self._growing).open(request)
            if opened is not None:
                if isinstance(opened, GrowingBlob):
                    opened.headers = ((GROWING_HEADER, "true"),)
                return opened
            if changed is None:
                return None
            try:
                async with asyncio.timeout_at(until):
                    await changed.wait()
            except TimeoutError:
                return None
            if self._pulls.flight(digest) is None:  # it ended: the content is in the store, or was given up
                return await self._own.open(request)

    def _stall_seconds(self, digest: Digest) -> float:
        """While this node's pull is under way its followers decide; an ingest without one may be years old."""
        flight = self._pulls.flight(digest)
        if flight is None:
            return STALL_SECONDS_MAX
        return HOLD_SECONDS_MAX + STALL_SECONDS_MAX if self._pulls.offset(flight) else LINE_SECONDS_MAX


class _SharingUnderWay(Sharing):
    """Content that is being pulled has no repository in the store yet: the one that it was asked for under counts."""

    def __init__(self, pulls: Pulls, sharing: Sharing) -> None:
        self._pulls, self._sharing = pulls, sharing

    async def allows(self, digest: Digest) -> bool:
        return self._pulls.flight(digest) is not None or await self._sharing.allows(digest)


@dataclass(frozen=True, slots=True, eq=False)
class Follower:
    """One follower that is served; `host` is its address, `since` is loop time."""

    opened: Opened
    host: str
    since: float


class Followers:
    """Counts followers; apart from uploads of complete content, so that neither keeps the other out."""

    def __init__(self, series: InflightSeries) -> None:
        self._series = series
        self._of_content: Counter[Digest] = Counter()
        self._open: dict[Follower, None] = {}

    def __iter__(self) -> Iterator[Follower]:
        return iter(list(self._open))

    def dismiss(self, digest: Digest) -> None:
        """End the responses to those that follow this content."""
        for follower in self:
            if follower.opened.digest == digest and isinstance(follower.opened, GrowingBlob):
                follower.opened.abandon()

    @contextmanager
    def admit(self, opened: Opened, host: str) -> Iterator[str | None]:
        """Count one follower while the context lasts; or the reason why it is refused."""
        digest = opened.digest
        if len(self._open) >= FOLLOWERS_MAX or self._of_content[digest] >= FOLLOWERS_PER_CONTENT_MAX:
            self._series.refused_followers.inc()
            yield BUSY
            return
        follower = Follower(opened, host, asyncio.get_running_loop().time())
        self._open[follower] = None
        self._of_content[digest] += 1
        self._series.open_followers.set(len(self._open))
        try:
            yield None
        finally:
            del self._open[follower]
            self._of_content[digest] -= 1
            if not self._of_content[digest]:
                del self._of_content[digest]
            self._series.open_followers.set(len(self._open))
