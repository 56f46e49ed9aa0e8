"""The port to content that the container runtime is downloading now: its growing files ("ingests" in containerd).

A growing file can be read and sent while it is written. Its bytes are not verified: the runtime computes the digest of
all of it before the commit. A file that was committed is complete and verified.

    content = ingests.open(digest)           raises StoreError: there is none that can be followed
    await content.wait(more_than=0, timeout_seconds=3.0)
    ...                                      send from `content.fd`, up to `content.size`
    content.close()

The descriptor stays valid when the file is renamed at its commit, when it is deleted, and when the runtime restarts and
resumes the download.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from speil.oci.digest import Digest
from speil.store.growing_content import GrowingContent, IngestEnd, IngestRecord

STALL_SECONDS_MAX = 3.0  # an ingest that did not grow for this long may belong to a runtime that is dead


@dataclass(frozen=True, slots=True)
class Ingest:
    """What is known of an ingest now. `total` is the size it will have, None where the runtime did not record it."""

    digest: Digest
    size: int
    total: int | None
    silent_seconds: float  # since it grew last

    @classmethod
    def of(cls, record: IngestRecord, now: float) -> Ingest:
        """What `record` says at loop time `now`."""
        return cls(record.digest, record.size, record.total, max(0.0, now - record.grew_at))

    @property
    def is_whole(self) -> bool:
        """All bytes are there and it is not committed: its digest is being checked, or was wrong."""
        return self.total is not None and self.size >= self.total


class IngestEventKind(StrEnum):
    """The kinds of events."""

    BEGAN = "began"
    GREW = "grew"  # a few times a second at most
    ENDED = "ended"
    RESYNC = "resync"  # events may have been lost: read `current`


@dataclass(frozen=True, slots=True)
class IngestEvent:
    """An event; RESYNC has no digest. `end` is set for ENDED."""

    kind: IngestEventKind
    digest: Digest | None = None
    size: int = 0
    total: int | None = None
    end: IngestEnd | None = None

    @property
    def is_suspect(self) -> bool:
        """The ingest was deleted with all its bytes: the runtime probably found a wrong digest."""
        return self.end is IngestEnd.GONE and self.total is not None and self.size >= self.total


class Ingests(Protocol):
    """The ingests of a node. Every adapter passes `testing.ingest_conformance`.

    One digest may have several ingests, one for each namespace of containerd: the longest counts.
    """

    async def run(self) -> None:
        """Watch the ingests and deliver events, until cancelled. Nothing can be opened before and after."""

    def find(self, digest: Digest) -> Ingest | None:
        """The ingest of this content, looked up on the disk; None if there is none."""

    def current(self) -> list[Ingest]:
        """All ingests of content with a digest."""

    def open(self, digest: Digest, *, stall_seconds: float = STALL_SECONDS_MAX) -> GrowingContent:
        """Open an ingest for reading; the caller closes it.

        Raises NotFoundError if there is no ingest, if it did not grow for `stall_seconds`, or if the runtime did not
        record its size; StoreUnavailableError if too many are open.
        """

    @property
    def is_readable(self) -> bool:
        """Whether this process may read the ingests; False while it is unknown where they are."""

    @property
    def growth_bytes_per_second(self) -> float:
        """How fast all ingests together grow; the last known rate while none grows, 0.0 before the first."""

    def events(self) -> AsyncIterator[IngestEvent]:
        """Events from now on, without end. The first is a RESYNC. Never raises."""
