"""Delivery of store events: when a full scan runs, and that new content never waits for it. In virtual time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from speil.observe.metrics import Metrics
from speil.oci.digest import Digest
from speil.store.base import NotFoundError, StoreEvent, StoreEventKind, StoreUnavailableError
from speil.store.memory import MemoryStore
from speil.store.news import LOOK_SECONDS, PENDING_MAX, QUIET_SECONDS, RETRY_SECONDS, STORM_SECONDS_MAX, StoreNews
from speil.store.series import StoreSeries
from speil.testing.samples import sample
from speil.testing.virtual_time import run_virtual

RESYNC = StoreEvent(StoreEventKind.RESYNC)
DAY_SECONDS = 24 * 3600.0


class Reader:
    """Records each call with its time."""

    def __init__(self) -> None:
        self.looks: list[float] = []
        self.told: list[tuple[float, str, str]] = []
        self.look_seconds = self.image_seconds = self.name_seconds = 0.0
        self.failing = False

    async def content_added(self, digests: Sequence[Digest]) -> None:
        self._told("content", *map(str, digests))

    async def content_removed(self, digests: Sequence[Digest]) -> None:
        self._told("gone", *map(str, digests))

    async def image_added(self, name: str) -> None:
        await asyncio.sleep(self.image_seconds)
        self._told("image", name)

    async def images_removed(self, names: Sequence[str]) -> None:
        await asyncio.sleep(len(names) * self.name_seconds)
        self._told("removed", *names)

    async def look(self) -> None:
        self.looks.append(now())
        await asyncio.sleep(self.look_seconds)
        if self.failing:
            raise StoreUnavailableError("no answer")

    def when(self, kind: str, what: str) -> float:
        return next(at for at, said, name in self.told if (said, name) == (kind, what))

    def _told(self, kind: str, *names: str) -> None:
        if self.failing:
            raise NotFoundError("no answer")
        self.told += [(now(), kind, name) for name in names]


def now() -> float:
    return asyncio.get_running_loop().time()


@asynccontextmanager
async def following(store: MemoryStore, metrics: Metrics | None = None) -> AsyncIterator[Reader]:
    reader = Reader()
    async with asyncio.TaskGroup() as group:
        task = group.create_task(StoreNews(store, (metrics or Metrics()).of(StoreSeries), [reader]).run())
        await asyncio.sleep(1)
        yield reader
        task.cancel()
    store.close()


def test_everything_is_looked_at_every_ten_minutes_whatever_the_news() -> None:
    async def scenario() -> None:
        store = MemoryStore()
        async with following(store) as reader:
            while now() < DAY_SECONDS:
                await asyncio.sleep(300)
                store.tag("reg.test/lab/app:1", Digest.of(b"1"))  # imagePullPolicy Always updates names all day
                store.put(str(now()).encode())
        gaps = [after - before for before, after in zip(reader.looks, reader.looks[1:], strict=False)]
        assert max(gaps) <= LOOK_SECONDS
        assert len(reader.looks) == 1 + int(DAY_SECONDS // LOOK_SECONDS)

    run_virtual(scenario())


def test_a_hundred_removed_names_cost_one_look() -> None:
    async def scenario() -> None:
        store, metrics = MemoryStore(), Metrics()
        names = [f"reg.test/lab/app:{number}" for number in range(360)]
        for name in names:
            store.tag(name, Digest.of(b"1"))
        async with following(store, metrics) as reader:
            before = len(reader.looks)
            for name in names:
                store.untag(name)
                await asyncio.sleep(0.02)
            await asyncio.sleep(QUIET_SECONDS + 0.1)
            assert len(reader.looks) - before == 1
            assert [name for _, kind, name in reader.told if kind == "removed"] == names
        assert sample(metrics, "speil_store_looks_total", reason="removed") == 1

    run_virtual(scenario())


def test_a_storm_without_end_is_looked_at_all_the_same() -> None:
    async def scenario() -> None:
        store = MemoryStore()
        async with following(store) as reader:
            started, before = now(), len(reader.looks)
            while now() < started + 10 * STORM_SECONDS_MAX:
                store.tag("reg.test/lab/app:1", Digest.of(b"1"))
                store.untag("reg.test/lab/app:1")
                await asyncio.sleep(QUIET_SECONDS / 2)
            assert 9 <= len(reader.looks) - before <= 11

    run_virtual(scenario())


def test_a_layer_waits_neither_for_a_look_nor_for_the_names_before_it() -> None:
    async def scenario() -> None:
        store = MemoryStore()
        async with following(store) as reader:
            reader.look_seconds, reader.image_seconds = 60.0, 0.5
            store.tell(RESYNC)
            for number in range(100):
                store.tag(f"reg.test/lab/app:{number}", Digest.of(b"1"))
            await asyncio.sleep(0.1)
            started, layer = now(), store.put(b"a layer")
            await asyncio.sleep(5)
            assert reader.when("content", str(layer)) - started <= reader.image_seconds
            assert len(reader.looks) == 2, "the look goes on beside it"

    run_virtual(scenario())


def test_a_layer_does_not_wait_for_names_that_are_removed() -> None:
    async def scenario() -> None:
        store = MemoryStore()
        names = [f"reg.test/lab/app:{number}" for number in range(360)]
        for name in names:
            store.tag(name, Digest.of(b"1"))
        async with following(store) as reader:
            reader.name_seconds = 0.003  # a containerd under load
            for name in names:
                store.untag(name)
            await asyncio.sleep(0.001)
            started, layer = now(), store.put(b"a layer")
            await asyncio.sleep(5)
            assert reader.when("content", str(layer)) - started <= 0.05
            assert [name for _, kind, name in reader.told if kind == "removed"] == names

    run_virtual(scenario())


def test_what_comes_and_goes_at_once_is_told_by_its_end() -> None:
    async def scenario() -> None:
        store = MemoryStore()
        async with following(store) as reader:
            store.put(b"1")
            store.remove(Digest.of(b"1"))
            store.tag("reg.test/lab/app:1", Digest.of(b"1"))
            store.untag("reg.test/lab/app:1")
            store.tag("reg.test/lab/app:2", Digest.of(b"1"))
            await asyncio.sleep(0.1)
            assert [(kind, name) for _, kind, name in reader.told] == [
                ("gone", str(Digest.of(b"1"))),
                ("image", "reg.test/lab/app:2"),
                ("removed", "reg.test/lab/app:1"),
            ]

    run_virtual(scenario())


def test_news_that_could_not_be_followed_and_a_look_that_failed_are_made_up_for() -> None:
    async def scenario() -> None:
        store = MemoryStore()
        async with following(store) as reader:
            reader.failing = True
            store.put(b"1")
            await asyncio.sleep(3 * RETRY_SECONDS + 0.1)
            failed = len(reader.looks)
            assert 3 <= failed <= 5, "again and again, but not in a loop"
            store.available = False
            await asyncio.sleep(10 * RETRY_SECONDS)
            assert len(reader.looks) <= failed + 1, "a store that is away says when it is back"
            store.available, reader.failing = True, False
            store.tell(RESYNC)
            await asyncio.sleep(0.1)
            assert len(reader.looks) > failed

    run_virtual(scenario())


def test_more_news_than_readers_can_take_becomes_a_look() -> None:
    async def scenario() -> None:
        store, metrics = MemoryStore(), Metrics()
        async with following(store, metrics) as reader:
            reader.image_seconds = 3600.0
            store.tag("reg.test/lab/app:1", Digest.of(b"1"))
            await asyncio.sleep(1)
            for number in range(PENDING_MAX + 10):
                store.tag(f"reg.test/lab/app:x{number}", Digest.of(b"1"))
            await asyncio.sleep(1)
            assert len(reader.looks) == 2
        assert sample(metrics, "speil_store_looks_total", reason="overflow") == 1

    run_virtual(scenario())
