"""Follows the ingests of a content directory: containerd's, or an OCI layout that is written like it.

inotify reports what happens. Growth is reported only for ingests that are open: a node that nobody follows is not woken
for each write. Besides, the directory is scanned from time to time: for the rate, and for file systems and limits under
which inotify reports nothing. An ingest that is open and can't be watched is scanned every POLL_SECONDS.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from speil.observe.logs import get_log
from speil.observe.seldom import Seldom
from speil.oci.digest import Digest
from speil.store.base import NotFoundError, StoreError, StoreUnavailableError
from speil.store.blob_directory import BlobDirectory
from speil.store.directory_watch import DirectoryWatch
from speil.store.growing_content import GrowingContent, IngestEnd, IngestRecord
from speil.store.growth_rate import GrowthRate
from speil.store.ingest_events import IngestEvents
from speil.store.ingest_file import IngestFile
from speil.store.ingests import STALL_SECONDS_MAX, Ingest, IngestEvent, IngestEventKind
from speil.store.known_ingest import KnownIngest, NotContentError

INGESTS_MAX = 128  # watched at once, each with two descriptors and a watch; containerd downloads three layers at a time
OPEN_MAX = 64  # readers at once: two followers for each of a few downloads, and some that end
LOOK_SECONDS = 0.25  # between two scans while there are ingests
IDLE_SECONDS = 1.0  # between two scans while there are none
POLL_SECONDS = 0.02  # between two scans while an open ingest can't be watched
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC

log = get_log("ingests")


class IngestDirectory:
    """The ingests below `root()`, which is None as long as the place is unknown.

    `strict`: others may write there, so a symbolic link in place of `ingest` is not followed.
    """

    def __init__(self, root: Callable[[], Path | None], *, strict: bool = False) -> None:
        self._root, self._strict, self._watch = root, strict, DirectoryWatch()
        self._watched: tuple[int | None, Path] | None = None  # the watch of the directory `ingest`
        self._known: dict[str, KnownIngest] = {}  # by the name of the directory
        self._others: set[str] = set()  # names of directories that are no ingests of content
        self._rate, self._events = GrowthRate(), IngestEvents()
        self._open_count = 0
        self._woken = asyncio.Event()
        self._odd = Seldom()

    async def run(self) -> None:
        """See Ingests."""
        self._watch.open(self._on_changes)
        try:
            while True:
                self._look()
                self._woken.clear()
                try:
                    async with asyncio.timeout(self._pause_seconds):
                        await self._woken.wait()
                except TimeoutError:
                    pass
        finally:
            self._watch.close()
            self._watched = None
            for known in list(self._known.values()):
                self._drop(known)
                if known.record is not None:
                    self._end(known.record, IngestEnd.GONE, known.record.size)

    def find(self, digest: Digest) -> Ingest | None:
        """See Ingests."""
        found = self._longest(digest)
        return Ingest.of(found[1], _now()) if found else None

    def current(self) -> list[Ingest]:
        """See Ingests."""
        now = _now()
        return [Ingest.of(known.record, now) for known in self._known.values() if known.record]

    def open(self, digest: Digest, *, stall_seconds: float = STALL_SECONDS_MAX) -> GrowingContent:
        """See Ingests."""
        if (found := self._longest(digest)) is None:
            raise NotFoundError(f"no ingest of {digest}")
        known, record = found
        if record.total is None:
            raise NotFoundError(f"the size of {digest} is not known")
        if Ingest.of(record, _now()).silent_seconds >= stall_seconds:
            raise NotFoundError(f"the ingest of {digest} has stalled")
        if self._open_count >= OPEN_MAX:
            raise StoreUnavailableError(f"{OPEN_MAX} ingests are being read")
        try:
            fd, _ = known.file.open()
        except FileNotFoundError as error:
            raise NotFoundError(f"the ingest of {digest} has ended") from error
        except OSError as error:
            raise StoreUnavailableError(f"an ingest of {digest}: {error.strerror}") from error
        self._open_count += 1
        content = GrowingContent(record, fd, record.total, lambda: self._closed(known))
        self._watch_growth(known)
        self._refresh(known)  # what was written before the watch
        self._woken.set()
        return content

    @property
    def is_readable(self) -> bool:
        """See Ingests."""
        if (root := self._root()) is None:
            return False
        folder = root / "ingest"
        return os.access(folder if folder.exists() else root, os.R_OK | os.X_OK)

    @property
    def growth_bytes_per_second(self) -> float:
        """See Ingests."""
        return self._rate.bytes_per_second(_now())

    def events(self) -> AsyncIterator[IngestEvent]:
        """See Ingests."""
        return self._events.read()

    # --- looking ----------------------------------------------------------------------------------------

    @property
    def _pause_seconds(self) -> float:
        if any(known.is_open and known.watch is None for known in self._known.values()):
            return POLL_SECONDS
        return LOOK_SECONDS if self._known else IDLE_SECONDS

    def _on_changes(self) -> None:
        """The kernel reports changes."""
        if (changed := self._watch.changed()) is None:
            self._look()
            return
        if self._watched and self._watched[0] in changed:
            self._look_for_new()
            if not changed[self._watched[0]]:
                self._watched = None  # `ingest` itself was removed
        for known in [known for known in self._known.values() if known.watch in changed]:
            self._refresh(known)

    def _look(self) -> None:
        self._look_for_new()
        for known in list(self._known.values()):
            self._refresh(known)
            if (record := known.record) and record.size != known.reported_size:
                known.reported_size = record.size
                self._events.send(IngestEventKind.GREW, record)

    def _look_for_new(self) -> None:
        with self._directory() as directory:
            if directory is None:
                return
            names = os.listdir(directory)
            self._others.intersection_update(names)
            for name in names:
                if name not in self._known and name not in self._others:
                    self._begin(name, directory)

    @contextmanager
    def _directory(self) -> Iterator[int | None]:
        """A descriptor of the directory `ingest`; None as long as there is none. It is watched from the first time."""
        root, descriptor = self._root(), -1
        try:
            if root is not None:
                descriptor = os.open(root / "ingest", _DIRECTORY | (os.O_NOFOLLOW if self._strict else 0))
        except OSError as error:
            if not isinstance(error, FileNotFoundError) and self._odd.due(str(error)):
                log.warning("the ingests can't be read", path=root, error=error)
        if root is None or descriptor < 0:
            yield None
            return
        try:
            if self._watched is None or self._watched[1] != root:
                self._watched = self._watch.add(f"/proc/self/fd/{descriptor}"), root
            yield descriptor
        finally:
            os.close(descriptor)

    def _longest(self, digest: Digest) -> tuple[KnownIngest, IngestRecord] | None:
        """The ingest of this content that has the most bytes, as it is on the disk now."""
        self._look_for_new()
        for known in list(self._known.values()):
            if known.record is None or known.record.digest == digest:
                self._refresh(known)
        found = [(known, known.record) for known in self._known.values() if known.record]
        return max((one for one in found if one[1].digest == digest), key=lambda one: one[1].size, default=None)

    # --- one ingest -------------------------------------------------------------------------------------

    def _begin(self, name: str, directory: int) -> None:
        if len(self._known) >= INGESTS_MAX and not self._forget_stalled():
            if self._odd.due("too many"):
                log.warning("too many ingests at once: the others can't be followed", count=INGESTS_MAX)
            return
        try:
            file = IngestFile(name, dir_fd=directory)
        except OSError:  # no directory, or gone again
            return
        known = self._known[name] = KnownIngest(name, file)
        self._watch_growth(known)
        self._identify(known)

    def _forget_stalled(self) -> bool:
        """Make room: what a runtime that was killed left behind stays for a day. Returns whether there is room now."""
        now = _now()
        idle = [(known, known.record) for known in self._known.values() if known.record and not known.is_open]
        stalled = [(known, record) for known, record in idle if now - record.grew_at >= STALL_SECONDS_MAX]
        for known, record in stalled:
            self._others.add(known.name)
            self._drop(known)
            self._end(record, IngestEnd.GONE, record.size)
        return bool(stalled)

    def _identify(self, known: KnownIngest) -> None:
        try:
            if known.identify(_now()) and known.record:
                self._events.send(IngestEventKind.BEGAN, known.record)
        except NotContentError:
            self._others.add(known.name)
            self._drop(known)

    def _refresh(self, known: KnownIngest) -> None:
        if (record := known.record) is None:
            self._identify(known)
        elif (size := known.size()) is None:
            self._left(known, record)
        elif size > record.size:
            self._rate.grew(size - record.size, _now())
            record.grew(size, _now())
        elif size < record.size:
            self._end(record, IngestEnd.SHRUNK, size)
            known.record = None
            self._identify(known)

    def _watch_growth(self, known: KnownIngest) -> None:
        """Watch its directory; its growth too while it is open."""
        known.watch = self._watch.add(known.file.path, growth=known.is_open)

    def _closed(self, known: KnownIngest) -> None:
        self._open_count -= 1
        if self._known.get(known.name) is known:
            self._watch_growth(known)

    def _left(self, known: KnownIngest, record: IngestRecord) -> None:
        """`data` is not there any more: it was committed if the store has the content now, else deleted."""
        last_size = max(known.file.last_size(), record.size)  # it may have grown until it was deleted
        self._drop(known)
        if (size := self._committed_size(record)) is None:
            self._end(record, IngestEnd.GONE, last_size)
            return
        if size > record.size:
            self._rate.grew(size - record.size, _now())
        self._end(record, IngestEnd.COMMITTED, size)

    def _committed_size(self, record: IngestRecord) -> int | None:
        """The size of the committed content, which the readers' descriptors then have; None if there is none."""
        if (root := self._root()) is None:
            return None
        try:
            with BlobDirectory(root, strict=self._strict).open(record.digest) as blob:
                if any(reader.total != blob.size for reader in record.readers):
                    return None
                for reader in record.readers:
                    if not os.path.sameopenfile(reader.fd, blob.fd):
                        reader.replace_file(blob.fd)  # another download of the same content was committed first
                return blob.size
        except (StoreError, OSError):
            return None

    def _end(self, record: IngestRecord, end: IngestEnd, size: int) -> None:
        record.ended(end, size)
        self._events.send(IngestEventKind.ENDED, record, end)

    def _drop(self, known: KnownIngest) -> None:
        del self._known[known.name]
        self._watch.remove(known.watch)
        known.file.close()


def _now() -> float:
    return asyncio.get_running_loop().time()
