"""The directory of ingests, where its surroundings are not as usual: links, limits, clocks, lost notices."""

from __future__ import annotations

import asyncio
import errno
import os
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from random import Random

import pytest

from speil.oci.digest import Digest
from speil.store import directory_watch
from speil.store import ingest_directory as module
from speil.store.base import NotFoundError, StoreUnavailableError
from speil.store.build import build_ingests
from speil.store.growing_content import IngestEnd
from speil.store.growth_rate import GrowthRate
from speil.store.ingest_directory import IngestDirectory
from speil.store.ingest_writer import IngestWriter
from speil.store.inotify import Inotify
from speil.store.oci_layout import OciLayoutStore
from speil.testing.eventually import eventually

DATA = Random(23).randbytes(200_000)
DIGEST = Digest.of(DATA)
SECONDS_MAX = 30.0


@asynccontextmanager
async def following(ingests: IngestDirectory) -> AsyncIterator[IngestDirectory]:
    """Running ingests."""
    async with asyncio.TaskGroup() as group:
        running = group.create_task(ingests.run())
        await asyncio.sleep(0)
        yield ingests
        running.cancel()


def of(root: Path) -> IngestDirectory:
    return IngestDirectory(lambda: root, strict=True)


async def test_a_layout_that_is_filled_can_be_followed(tmp_path: Path) -> None:
    store = OciLayoutStore(tmp_path)
    goes_on = asyncio.Event()

    async def chunks() -> AsyncIterator[bytes]:
        yield DATA[:1000]
        await goes_on.wait()
        yield DATA[1000:]

    async with following(build_ingests(store)) as ingests, asyncio.TaskGroup() as group:
        group.create_task(store.ingest(DIGEST, len(DATA), chunks()))
        await eventually(lambda: (found := ingests.find(DIGEST)) and found.size == 1000, what="its first bytes")
        content = ingests.open(DIGEST)
        goes_on.set()
        assert await content.ended(SECONDS_MAX) is IngestEnd.COMMITTED
        assert os.pread(content.fd, content.size, 0) == DATA
        content.close()
    assert list((tmp_path / "ingest").iterdir()) == []


async def test_an_ingest_from_before_the_start_is_found_and_its_age_counts(tmp_path: Path) -> None:
    old, new, future = (Digest.of(name) for name in (b"old", b"new", b"future"))
    for digest, seconds in ((old, -60.0), (new, 0.0), (future, 3600.0)):
        writer = IngestWriter(tmp_path, digest, 10)
        writer.write(b"12345")
        (data,) = (path for path in tmp_path.glob("ingest/*/data") if str(digest) in (path.parent / "ref").read_text())
        os.utime(data, times=(time.time() + seconds,) * 2)
    async with following(of(tmp_path)) as ingests:
        with pytest.raises(NotFoundError, match="stalled"):
            ingests.open(old)
        for digest in (new, future):  # a clock that was set back makes files of the future
            content = ingests.open(digest)
            assert content.size == 5
            content.close()


async def test_directories_that_are_no_ingests_of_content_are_ignored(tmp_path: Path) -> None:
    for name, files in {
        "nothing": {},
        "another": {"ref": "k8s.io/1/something", "data": "x"},
        "no-ref": {"data": "x"},
        "bad-ref": {"ref": "layer-sha256:abc", "data": "x"},
        "long": {"ref": "x" * 10_000 + f"-{DIGEST}", "data": "x"},
    }.items():
        (tmp_path / "ingest" / name).mkdir(parents=True)
        for file, text in files.items():
            (tmp_path / "ingest" / name / file).write_text(text)
    (tmp_path / "ingest" / "file").touch()
    async with following(of(tmp_path)) as ingests:
        assert ingests.current() == []
        assert ingests.find(DIGEST) is None


@pytest.mark.parametrize("total", ["", "0", "-5", "nonsense", "9" * 40])
async def test_a_total_that_is_none_is_unknown(tmp_path: Path, total: str) -> None:
    writer = IngestWriter(tmp_path, DIGEST, 10)
    writer.write(b"12345")
    (file,) = tmp_path.glob("ingest/*/total")
    file.write_text(total)
    async with following(of(tmp_path)) as ingests:
        found = ingests.find(DIGEST)
        assert found is not None
        assert found.total is None


async def test_links_are_not_followed(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("root's")
    root = tmp_path / "layout"
    IngestWriter(root, DIGEST, 6).write(b"12345")
    (data,) = root.glob("ingest/*/data")
    data.unlink()
    data.symlink_to(secret)
    (root / "ingest" / "linked").symlink_to(data.parent)
    async with following(of(root)) as ingests:
        with pytest.raises(NotFoundError):
            ingests.open(DIGEST)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "ingest").symlink_to(root / "ingest")
    async with following(of(elsewhere)) as ingests:
        assert ingests.current() == []


async def test_the_place_may_become_known_later_and_be_made_anew(tmp_path: Path) -> None:
    root: Path | None = None
    async with following(IngestDirectory(lambda: root)) as ingests:
        assert ingests.find(DIGEST) is None
        root = tmp_path
        first = IngestWriter(tmp_path, DIGEST, len(DATA))
        first.write(DATA[:1000])
        content = await eventually(lambda: ingests.find(DIGEST) and ingests.open(DIGEST), what="it is found")
        first.abort()
        (tmp_path / "ingest").rmdir()
        assert await content.ended(SECONDS_MAX) is IngestEnd.GONE
        content.close()
        second = IngestWriter(tmp_path, DIGEST, len(DATA))
        await eventually(lambda: ingests.find(DIGEST), what="the new directory is watched")
        second.abort()
        await eventually(lambda: ingests.find(DIGEST) is None, what="it is gone")


async def test_lost_notices_are_made_up_for(tmp_path: Path) -> None:
    async with following(of(tmp_path)) as ingests:
        writer = IngestWriter(tmp_path, DIGEST, len(DATA))
        writer.write(DATA[:1000])
        content = await eventually(lambda: ingests.find(DIGEST) and ingests.open(DIGEST), what="it is found")
        limit = int(Path("/proc/sys/fs/inotify/max_queued_events").read_text())
        for _ in range(min(limit, 40_000) // 2 + 1):  # the event loop does not run meanwhile
            (tmp_path / "ingest" / "noise").touch()
            (tmp_path / "ingest" / "noise").unlink()
        writer.write(DATA[1000:])
        writer.commit()
        assert await content.ended(SECONDS_MAX) is IngestEnd.COMMITTED
        content.close()


@pytest.mark.parametrize("limit", ["queues", "watches"])
async def test_where_inotify_is_used_up_ingests_are_scanned(
    tmp_path: Path, limit: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(*_: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    if limit == "queues":
        monkeypatch.setattr(directory_watch, "Inotify", refuse)
    else:
        monkeypatch.setattr(Inotify, "add", refuse)
    async with following(of(tmp_path)) as ingests:
        writer = IngestWriter(tmp_path, DIGEST, len(DATA))
        writer.write(DATA[:1000])
        content = await eventually(lambda: ingests.find(DIGEST) and ingests.open(DIGEST), what="it is found")
        writer.write(DATA[1000:])
        assert await content.wait(1000, SECONDS_MAX) == len(DATA)
        writer.commit()
        assert await content.ended(SECONDS_MAX) is IngestEnd.COMMITTED
        content.close()
    assert "fs.inotify.max_user" in caplog.text


async def test_what_is_open_and_watched_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "OPEN_MAX", 2)
    monkeypatch.setattr(module, "INGESTS_MAX", 3)
    writers = [IngestWriter(tmp_path, Digest.of(bytes([number])), 10) for number in range(5)]
    async with following(of(tmp_path)) as ingests:
        assert len(ingests.current()) == 3
        digest = ingests.current()[0].digest
        opened = [ingests.open(digest) for _ in range(2)]
        with pytest.raises(StoreUnavailableError, match="2 ingests"):
            ingests.open(digest)
        opened[0].close()
        ingests.open(digest).close()
        for writer in writers:
            writer.abort()
        assert await opened[1].ended(SECONDS_MAX) is IngestEnd.GONE
        opened[1].close()


async def test_what_killed_runtimes_left_behind_takes_no_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "INGESTS_MAX", 3)
    for number in range(5):
        IngestWriter(tmp_path, Digest.of(bytes([number])), 10).write(b"12345")
    for data in tmp_path.glob("ingest/*/data"):
        os.utime(data, times=(time.time() - 3600,) * 2)
    async with following(of(tmp_path)) as ingests:
        writer = IngestWriter(tmp_path, DIGEST, len(DATA))
        writer.write(DATA[:1000])
        content = await eventually(lambda: ingests.find(DIGEST) and ingests.open(DIGEST), what="it is found")
        content.close()
        writer.abort()


async def test_a_runtime_that_was_killed_resumes_in_the_same_file(tmp_path: Path) -> None:
    async with following(of(tmp_path)) as ingests:
        writer = IngestWriter(tmp_path, DIGEST, len(DATA))
        writer.write(DATA[:1000])
        content = await eventually(lambda: ingests.find(DIGEST) and ingests.open(DIGEST), what="it is found")
        (path,) = tmp_path.glob("ingest/*/data")
        with path.open("ab") as resumed:
            resumed.write(DATA[1000:])
        assert await content.wait(1000, SECONDS_MAX) == len(DATA)
        blob = tmp_path / "blobs" / "sha256" / DIGEST.hex
        blob.parent.mkdir(parents=True)
        path.rename(blob)
        assert await content.ended(SECONDS_MAX) is IngestEnd.COMMITTED
        assert os.pread(content.fd, content.size, 0) == DATA
        content.close()
        writer.abort()


async def test_nothing_stays_open_after_the_end(tmp_path: Path) -> None:
    def descriptors() -> int:
        return len(os.listdir("/proc/self/fd"))

    before = descriptors()
    async with following(of(tmp_path)) as ingests:
        writer = IngestWriter(tmp_path, DIGEST, len(DATA))
        writer.write(DATA[:1000])
        content = await eventually(lambda: ingests.find(DIGEST) and ingests.open(DIGEST), what="it is found")
    assert content.end is IngestEnd.GONE, "nobody watches it any more"
    content.close()
    writer.abort()
    assert descriptors() == before


def test_the_rate_is_that_of_the_last_seconds_and_is_remembered() -> None:
    rate = GrowthRate()
    assert rate.bytes_per_second(0.0) == 0.0
    for tick in range(100):
        rate.grew(1_000, tick / 10)
    assert rate.bytes_per_second(9.9) == pytest.approx(10_000, rel=0.15)
    assert rate.bytes_per_second(500.0) == pytest.approx(10_000, rel=0.15), "while nothing grows, the last one"
    rate.grew(50, 600.0)
    assert rate.bytes_per_second(600.0) == 50, "a download that just began is not overestimated"
