"""The Lease in memory and in a file: the conformance suite, and what is particular to a file."""

from __future__ import annotations

import fcntl
import json
import os
import tempfile
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from speil.lease.base import LeaseDeniedError, LeaseError
from speil.lease.file import FileLease
from speil.lease.memory import MemoryLease
from speil.testing.lease_conformance import RECORD, LeaseConformance, LeaseFixture


class MemoryHand:
    """Edits the document in place."""

    def __init__(self, lease: MemoryLease) -> None:
        self._lease = lease

    async def delete(self) -> None:
        self._lease.document = None

    async def annotate(self, key: str, value: str) -> None:
        document = await self.document()
        annotations = document["metadata"].get("annotations", {}) | {key: value}
        self._lease.edit(document | {"metadata": document["metadata"] | {"annotations": annotations}})

    async def document(self) -> dict[str, Any]:
        assert self._lease.document is not None
        return self._lease.document


class FileHand:
    """Edits the file."""

    def __init__(self, path: Path) -> None:
        self._path = path

    async def delete(self) -> None:
        self._path.unlink()

    async def annotate(self, key: str, value: str) -> None:
        document = await self.document()
        document["metadata"].setdefault("annotations", {})[key] = value
        self._path.write_text(json.dumps(document))

    async def document(self) -> dict[str, Any]:
        document: dict[str, Any] = json.loads(self._path.read_text())
        return document


class TestMemoryLease(LeaseConformance):
    """See LeaseConformance."""

    def lease(self, locks: int) -> AbstractAsyncContextManager[LeaseFixture]:
        @asynccontextmanager
        async def made() -> AsyncIterator[LeaseFixture]:
            lease = MemoryLease()
            yield LeaseFixture([lease] * locks, MemoryHand(lease))

        return made()


class TestFileLease(LeaseConformance):
    """See LeaseConformance."""

    def lease(self, locks: int) -> AbstractAsyncContextManager[LeaseFixture]:
        @asynccontextmanager
        async def made() -> AsyncIterator[LeaseFixture]:
            with tempfile.TemporaryDirectory() as folder:
                path = Path(folder) / "lease.json"
                yield LeaseFixture([FileLease(path) for _ in range(locks)], FileHand(path))
                assert not list(Path(folder).glob(".lease.json.[!l]*")), "no temporary file is left"

        return made()


async def test_garbage_in_the_file_is_nobodys_lease_and_is_written_over(tmp_path: Path) -> None:
    path = tmp_path / "lease"
    for garbage in ("", "{", "[]", '{"metadata": 3, "spec": "x"}', "\x00" * 100):
        path.write_text(garbage)
        lease = await FileLease(path).get()
        assert lease is not None
        assert lease.record.holder_identity == ""
        assert (await FileLease(path).put(RECORD, lease)).record == RECORD


async def test_a_lock_that_somebody_keeps_is_an_error_and_not_a_wait(tmp_path: Path) -> None:
    descriptor = os.open(tmp_path / ".lease.lock", os.O_CREAT | os.O_RDWR)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        with pytest.raises(LeaseError, match="another process"):
            await FileLease(tmp_path / "lease").put(RECORD, None)
    finally:
        os.close(descriptor)
    await FileLease(tmp_path / "lease").put(RECORD, None)


async def test_a_directory_that_is_missing_is_the_operators_to_make(tmp_path: Path) -> None:
    lock = FileLease(tmp_path / "nowhere" / "lease")
    assert await lock.get() is None
    with pytest.raises(LeaseDeniedError, match="must exist"):
        await lock.put(RECORD, None)
