"""Follows the ingests of a content directory: containerd's, or an OCI layout that is written like it.

inotify reports what happens. Growth is reported only for ingests that are open: a node that nobody follows is not woken
for each write. Besides, the directory is scanned from time to time: for the rate, and for file systems and limits under
which inotify reports nothing. Without inotify, open ingests are scanned every POLL_SECONDS.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from speil.observe.logs import get_log
from speil.observe.seldom import Seldom
from speil.oci.digest import Digest
from speil.store import inotify
from speil.store.base import NotFoundError, StoreError, StoreUnavailableError
from speil.store.blob_directory import BlobDirectory
from speil.store.growing_content import GrowingContent, IngestEnd, IngestRecord
from speil.store.growth_rate import GrowthRate
from speil.store.ingest_events import IngestEvents
from speil.store.ingest_file import IngestFile
from speil.store.ingests import STALL_SECONDS_MAX, Ingest, IngestEvent, IngestEventKind
from speil.store.inotify import Inotify

INGESTS_MAX = 128  # watched at once, each with a descriptor and a watch; containerd downloads three layers at a time
OPEN_MAX = 64  # readers at once: two followers for each of a few downloads, and some that end
LOOK_SECONDS = 0.25  # between two scans while there are ingests
IDLE_SECONDS = 1.0  # between two scans while there are none
POLL_SECONDS = 0.02  # between two scans while there are readers and no inotify
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_WHERE = inotify.CREATE | inotify.DELETE | inotify.MOVED_FROM | inotify.ONLY_DIRECTORY

log = get_log("ingests")


class IngestDirectory:
    """The ingests below `root()`, which is None as long as the place is unknown.

    `strict`: others may write there, so a symbolic link in place of `ingest` is not followed.
    """

    def __init__(self, root: Callable[[], Path | None], *, strict: bool = False, uses_inotify: bool = True) -> None:
        self._root, self._strict, self._uses_inotify = root, strict, uses_inotify
        self._notify: Inotify | None = None
        self._watched: tuple[int, Path] | None = None  # the watch of the directory `ingest`
        self._known: dict[str, _Known] = {}  # by the name of the directory
        self._by_watch: dict[int, _Known] = {}
        self._others: set[str] = set()  # directories of content without a digest, or that can't be read
        self._rate, self._events = GrowthRate(), IngestEvents()
        self._open_count = 0
        self._woken = asyncio.Event()
        self._odd = Seldom()

    async def run(self) -> None:
        """See Ingests."""
        loop = asyncio.get_running_loop()
        self._notify = self._new_inotify()
        try:
            if self._notify is not None:
                loop.add_reader(self._notify.fd, self._on_notices)
            while True:
                self._look()
                self._woken.clear()
                try:
                    async with asyncio.timeout(self._pause_seconds):
                        await self._woken.wait()
                except TimeoutError:
                    pass
        finally:
            if self._notify is not None:
                loop.remove_reader(self._notify.fd)
                self._notify.close()
            self._notify = self._watched = None
            for known in list(self._known.values()):
                self._drop(known)
                if known.record is not None:
                    self._end(known.record, IngestEnd.GONE, known.record.size)

    def find(self, digest: Digest) -> Ingest | None:
        """See Ingests."""
        known = self._longest(digest)
        return known.snapshot(_now()) if known else None

    def current(self) -> list[Ingest]:
        """See Ingests."""
        now = _now()
        return [known.snapshot(now) for known in self._known.values() if known.record]

    def open(
        self, digest: Digest, size: int | None = None, *, stall_seconds: float = STALL_SECONDS_MAX
    ) -> GrowingContent:
        """See Ingests."""
        known = self._longest(digest)
        if known is None or (record := known.record) is None:
            raise NotFoundError(f"no ingest of {digest}")
        total = size if record.total is None else record.total
        if total is None or size not in (None, total):
            raise NotFoundError(f"an ingest of {digest} has {record.total} bytes in all, not {size}")
        if known.snapshot(_now()).silent_seconds >= stall_seconds:
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
        content = GrowingContent(record, fd, total, lambda: self._closed(known))
        self._watch(known)
        self._refresh(known)  # what was written before the watch
        self._woken.set()
        return content

    @property
    def growth_bytes_per_second(self) -> float:
        """See Ingests."""
        return self._rate.bytes_per_second(_now())

    def events(self) -> AsyncIterator[IngestEvent]:
        """See Ingests."""
        return self._events.read()

    # --- scanning ---------------------------------------------------------------------------------------

    @property
    def _pause_seconds(self) -> float:
        if self._open_count and self._notify is None:
            return POLL_SECONDS
        return LOOK_SECONDS if self._known else IDLE_SECONDS

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
                if self._notify is not None and (self._watched is None or self._watched[1] != root):
                    self._watched = self._notify.add(f"/proc/self/fd/{descriptor}", _WHERE), root
        except OSError as error:
            if not isinstance(error, FileNotFoundError) and self._odd.due(str(error)):
                log.warning("the ingests can't be read", path=root, error=error)
        try:
            yield descriptor if descriptor >= 0 else None
        finally:
            if descriptor >= 0:
                os.close(descriptor)

    def _begin(self, name: str, directory: int) -> None:
        if len(self._known) >= INGESTS_MAX:
            if self._odd.due("too many"):
                log.warning("too many ingests at once: the others can't be followed", count=INGESTS_MAX)
            return
        try:
            file = IngestFile(name, dir_fd=directory)
        except OSError:  # no directory, or gone again
            return
        known = self._known[name] = _Known(name, file)
        self._watch(known)
        self._identify(known)

    def _identify(self, known: _Known) -> None:
        """Read whose content it is, once `data` is there: it is created last."""
        try:
            if (found := known.file.data()) is None:
                return
            digest, total = known.file.digest(), known.file.total()
        except OSError:
            digest = total = None
            found = None
        if digest is None or found is None:
            self._others.add(known.name)
            self._drop(known)
            return
        # a clock that was set back makes files of the future: they count as new
        silent = max(0.0, time.time() - found.st_mtime)
        known.record, known.inode = IngestRecord(digest, total, found.st_size, _now() - silent), found.st_ino
        known.reported_size = found.st_size
        self._events.send(IngestEventKind.BEGAN, known.record)

    def _refresh(self, known: _Known) -> None:
        if (record := known.record) is None:
            self._identify(known)
            return
        try:
            found = known.file.data()
        except OSError:
            found = None
        if found is None or found.st_ino != known.inode:
            self._left(known, record)
        elif found.st_size > record.size:
            now = _now()
            self._rate.grew(found.st_size - record.size, now)
            record.grew(found.st_size, now)
        elif found.st_size < record.size:
            self._end(record, IngestEnd.SHRUNK, found.st_size)
            known.record = None
            self._identify(known)

    def _left(self, known: _Known, record: IngestRecord) -> None:
        """`data` is not there any more: it was committed if the store has the content now, else deleted."""
        self._drop(known)
        if (size := self._committed_size(record)) is None:
            self._end(record, IngestEnd.GONE, record.size)
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

    def _longest(self, digest: Digest) -> _Known | None:
        self._look_for_new()
        for known in list(self._known.values()):
            if known.record is None or known.record.digest == digest:
                self._refresh(known)
        found = [known for known in self._known.values() if known.record and known.record.digest == digest]
        return max(found, key=lambda known: known.record.size if known.record else 0, default=None)

    # --- watching ---------------------------------------------------------------------------------------

    def _new_inotify(self) -> Inotify | None:
        if not self._uses_inotify:
            return None
        try:
            return Inotify()
        except OSError as error:
            log.warning(
                "inotify is not available: ingests are polled; raise fs.inotify.max_user_instances", error=error
            )
            return None

    def _watch(self, known: _Known) -> None:
        """Watch an ingest's directory; its growth too while it is open."""
        if self._notify is None:
            return
        growth = inotify.MODIFY if known.record and known.record.readers else 0
        try:
            known.watch = self._notify.add(known.file.path, _WHERE | growth)
            self._by_watch[known.watch] = known
        except OSError as error:
            if self._odd.due(f"watch {error.errno}"):
                log.warning("an ingest can't be watched: raise fs.inotify.max_user_watches", error=error)

    def _on_notices(self) -> None:
        assert self._notify is not None
        touched: dict[int, None] = {}
        for notice in self._notify.read():
            if notice.mask & inotify.OVERFLOW:
                self._look()
                return
            if notice.mask & inotify.IGNORED and self._watched and notice.watch == self._watched[0]:
                self._watched = None  # `ingest` itself was removed
            touched[notice.watch] = None
        for watch in touched:
            if self._watched is not None and watch == self._watched[0]:
                self._look_for_new()
            elif known := self._by_watch.get(watch):
                self._refresh(known)

    def _closed(self, known: _Known) -> None:
        self._open_count -= 1
        if self._known.get(known.name) is known:
            self._watch(known)

    # --- ends -------------------------------------------------------------------------------------------

    def _end(self, record: IngestRecord, end: IngestEnd, size: int) -> None:
        record.ended(end, size)
        self._events.send(IngestEventKind.ENDED, record, end)

    def _drop(self, known: _Known) -> None:
        del self._known[known.name]
        if known.watch is not None and self._by_watch.get(known.watch) is known:
            del self._by_watch[known.watch]
            if self._notify is not None:
                self._notify.remove(known.watch)
        known.file.close()


class _Known:
    """An ingest that was seen. `record` is None until its content is known."""

    def __init__(self, name: str, file: IngestFile) -> None:
        self.name, self.file = name, file
        self.record: IngestRecord | None = None
        self.watch: int | None = None
        self.inode = 0
        self.reported_size = 0

    def snapshot(self, now: float) -> Ingest:
        assert self.record is not None
        record = self.record
        return Ingest(record.digest, record.size, record.total, max(0.0, now - record.grew_at))


def _now() -> float:
    return asyncio.get_running_loop().time()
