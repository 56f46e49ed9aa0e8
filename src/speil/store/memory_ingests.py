"""In-memory ingests for tests: what a runtime writes is in anonymous files. It works in virtual time."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator

from speil.oci.digest import Digest
from speil.store.base import NotFoundError
from speil.store.growing_content import GrowingContent, IngestEnd, IngestRecord
from speil.store.growth_rate import GrowthRate
from speil.store.ingest_events import IngestEvents
from speil.store.ingests import STALL_SECONDS_MAX, Ingest, IngestEvent, IngestEventKind
from speil.store.memory import MemoryStore


class MemoryIngests:
    """Ingests that a test writes with `begin`. Committed content goes to `store`."""

    def __init__(self, store: MemoryStore) -> None:
        self._store = store
        self._ingests: list[MemoryIngest] = []
        self._rate, self._events = GrowthRate(), IngestEvents()

    async def begin(self, digest: Digest, total: int | None) -> MemoryIngest:
        """Begin a download."""
        record = IngestRecord(digest, total, 0, _now())
        ingest = MemoryIngest(self, record)
        self._ingests.append(ingest)
        self._events.send(IngestEventKind.BEGAN, record)
        return ingest

    async def run(self) -> None:
        """See Ingests. There is nothing to watch."""
        await asyncio.Event().wait()

    def find(self, digest: Digest) -> Ingest | None:
        """See Ingests."""
        ingest = self._longest(digest)
        return Ingest.of(ingest.record, _now()) if ingest else None

    def current(self) -> list[Ingest]:
        """See Ingests."""
        return [Ingest.of(ingest.record, _now()) for ingest in self._ingests]

    def open(self, digest: Digest, *, stall_seconds: float = STALL_SECONDS_MAX) -> GrowingContent:
        """See Ingests."""
        if (ingest := self._longest(digest)) is None:
            raise NotFoundError(f"no ingest of {digest}")
        record = ingest.record
        if record.total is None:
            raise NotFoundError(f"the size of {digest} is not known")
        if Ingest.of(record, _now()).silent_seconds >= stall_seconds:
            raise NotFoundError(f"the ingest of {digest} has stalled")
        fd = os.open(f"/proc/self/fd/{ingest.fd}", os.O_RDONLY | os.O_CLOEXEC)
        return GrowingContent(record, fd, record.total, lambda: None)

    @property
    def is_readable(self) -> bool:
        """See Ingests."""
        return True

    @property
    def growth_bytes_per_second(self) -> float:
        """See Ingests."""
        return self._rate.bytes_per_second(_now())

    def events(self) -> AsyncIterator[IngestEvent]:
        """See Ingests."""
        return self._events.read()

    def close(self) -> None:
        """End all downloads."""
        for ingest in list(self._ingests):
            self._leave(ingest, IngestEnd.GONE, ingest.record.size)

    def _longest(self, digest: Digest) -> MemoryIngest | None:
        found = [ingest for ingest in self._ingests if ingest.record.digest == digest]
        return max(found, key=lambda ingest: ingest.record.size, default=None)

    # --- for MemoryIngest -------------------------------------------------------------------------------

    def _grew(self, record: IngestRecord, size: int) -> None:
        self._rate.grew(size - record.size, _now())
        record.grew(size, _now())
        self._events.send(IngestEventKind.GREW, record)

    def _shrank(self, ingest: MemoryIngest, size: int) -> None:
        old = ingest.record
        ingest.record = IngestRecord(old.digest, old.total, size, _now())
        old.ended(IngestEnd.SHRUNK, size)
        self._events.send(IngestEventKind.ENDED, old, IngestEnd.SHRUNK)
        self._events.send(IngestEventKind.BEGAN, ingest.record)

    def _leave(self, ingest: MemoryIngest, end: IngestEnd, size: int) -> None:
        self._ingests.remove(ingest)
        os.close(ingest.fd)
        ingest.record.ended(end, size)
        self._events.send(IngestEventKind.ENDED, ingest.record, end)


class MemoryIngest:
    """A download: the writer's side."""

    def __init__(self, ingests: MemoryIngests, record: IngestRecord) -> None:
        self.fd = os.memfd_create(record.digest.short, os.MFD_CLOEXEC)
        self.record, self._ingests = record, ingests

    def data(self) -> bytes:
        """The bytes so far."""
        return os.pread(self.fd, self.record.size, 0)

    async def write(self, data: bytes) -> None:
        """Write the next bytes."""
        os.pwrite(self.fd, data, self.record.size)
        self._ingests._grew(self.record, self.record.size + len(data))

    async def rewind(self) -> None:
        """Begin again at the first byte, in the same file."""
        os.ftruncate(self.fd, 0)
        self._ingests._shrank(self, 0)

    async def commit(self) -> None:
        """Commit the content if it is right; else delete it, as the runtime does."""
        if self.record.digest.matches(self.data()):
            self._ingests._store.put(self.data())
        await self.abort()

    async def abort(self) -> None:
        """Delete it, unless it was committed. A second call does nothing."""
        if self not in self._ingests._ingests:
            return
        try:
            with await self._ingests._store.open(self.record.digest) as blob:
                if not self.record.digest.matches(self.data()):
                    for reader in self.record.readers:
                        reader.replace_file(blob.fd)  # another download of the same content was committed first
                self._ingests._leave(self, IngestEnd.COMMITTED, blob.size)
        except NotFoundError:
            self._ingests._leave(self, IngestEnd.GONE, self.record.size)


def _now() -> float:
    return asyncio.get_running_loop().time()
