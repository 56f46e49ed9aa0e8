"""The conformance suite on in-memory ingests and on a directory. containerd is tested in tests/system."""

from __future__ import annotations

import asyncio
import errno
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from speil.oci.digest import Digest
from speil.store import directory_watch
from speil.store.ingest_directory import IngestDirectory
from speil.store.ingest_writer import IngestWriter, VerificationError
from speil.store.ingests import Ingests
from speil.store.inotify import Inotify
from speil.store.memory import MemoryStore
from speil.store.memory_ingests import MemoryIngests
from speil.testing.ingest_conformance import Download, IngestConformance, Runtime


class WrittenDownload:
    """An ingest that is written like containerd's."""

    def __init__(self, writer: IngestWriter) -> None:
        self._writer = writer

    async def write(self, data: bytes) -> None:
        self._writer.write(data)

    async def commit(self) -> None:
        try:
            self._writer.commit()
        except VerificationError:
            self._writer.abort()

    async def abort(self) -> None:
        self._writer.abort()

    async def rewind(self) -> None:
        self._writer.rewind()


class DirectoryRuntime:
    """Writes ingests below a directory."""

    def __init__(self, root: Path) -> None:
        self._root = root

    async def begin(self, digest: Digest, total: int | None) -> Download:
        return WrittenDownload(IngestWriter(self._root, digest, total))


class TestMemoryIngests(IngestConformance):
    """The in-memory twin."""

    @asynccontextmanager
    async def opened(self) -> AsyncIterator[tuple[Ingests, Runtime]]:
        store = MemoryStore()
        ingests = MemoryIngests(store)
        yield ingests, ingests
        ingests.close()
        store.close()


class TestIngestDirectory(IngestConformance):
    """A directory as containerd writes it, with inotify."""

    @pytest.fixture(autouse=True)
    def _directory(self, tmp_path: Path) -> None:
        self.root = tmp_path

    @asynccontextmanager
    async def opened(self) -> AsyncIterator[tuple[Ingests, Runtime]]:
        ingests = IngestDirectory(lambda: self.root, strict=True)
        async with asyncio.TaskGroup() as group:
            running = group.create_task(ingests.run())
            await asyncio.sleep(0)
            yield ingests, DirectoryRuntime(self.root)
            running.cancel()


class TestIngestDirectoryWithoutInotify(TestIngestDirectory):
    """A node whose inotify queues are used up."""

    @pytest.fixture(autouse=True)
    def _no_inotify(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def refuse() -> Inotify:
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

        monkeypatch.setattr(directory_watch, "Inotify", refuse)
