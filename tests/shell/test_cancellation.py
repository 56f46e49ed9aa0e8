"""Public coroutines, cancelled at each of their suspensions; and the kit for it, with coroutines that fail it."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import AbstractAsyncContextManager, AsyncExitStack, aclosing, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from speil.mirror.series import MirrorSeries
from speil.mirror.settings import MirrorSettings
from speil.mirror.uploads import Uploads
from speil.observe.metrics import Metrics
from speil.oci.selection import Selection
from speil.sources.growing import Growing
from speil.store.base import ContentStore, NotFoundError
from speil.store.ingest_directory import IngestDirectory
from speil.store.ingest_writer import IngestWriter
from speil.store.memory import MemoryStore
from speil.store.memory_ingests import MemoryIngests
from speil.store.oci_layout import OciLayoutStore
from speil.store.sharing import Sharing
from speil.store.walk import READ_AT_ONCE_BYTES_MAX, contents, read, read_manifest
from speil.testing import cancellation
from speil.testing.cancellation import cancel_at_each_step
from speil.testing.eventually import eventually
from speil.testing.images import random_image
from speil.testing.outlets import sink_and_client
from speil.testing.source_conformance import blob
from speil.wire.turns import Wire
from speil.wire.turnstile import Turnstile
from tests.shell.test_containerd_store import Daemon, following

# --- the kit ------------------------------------------------------------------------------------------------------


async def _tidy() -> None:
    for _ in range(2):
        await asyncio.sleep(0)
    async with asyncio.TaskGroup() as group:
        group.create_task(asyncio.sleep(0))
        group.create_task(asyncio.sleep(0.001))


async def test_a_tidy_coroutine_passes_and_its_suspensions_are_counted() -> None:
    assert await cancel_at_each_step(_tidy) == 3
    assert await cancel_at_each_step(lambda: asyncio.sleep(0)) == 1


async def test_an_endless_coroutine_is_tried_up_to_where_it_waits() -> None:
    async def serve() -> None:
        await _tidy()
        await asyncio.Event().wait()

    assert await cancel_at_each_step(serve, endless=True) == 4


async def _leaves_a_child() -> None:
    child = asyncio.get_running_loop().create_task(asyncio.sleep(0.01))
    await child if child.done() else await asyncio.shield(child)


async def _does_not_wait_for_its_child() -> None:
    async def slow_to_end() -> None:
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.sleep(3600)
        await asyncio.sleep(0.001)

    child = asyncio.get_running_loop().create_task(slow_to_end())
    try:
        await asyncio.sleep(0)
    finally:
        child.cancel()


async def _leaves_a_descriptor_open() -> None:
    number = os.open("/dev/null", os.O_RDONLY)
    await asyncio.sleep(0)
    os.close(number)


async def _loses_a_result_that_has_arrived() -> None:
    arrived: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    asyncio.get_running_loop().call_later(0.001, lambda: arrived.set_result(os.open("/dev/null", os.O_RDONLY)))
    try:
        number = await arrived
    except asyncio.CancelledError:
        arrived.cancel()
        raise
    os.close(number)


async def _ignores_its_cancellation() -> str:
    with contextlib.suppress(asyncio.CancelledError):
        await asyncio.sleep(3600)
    return "a result"


async def _fails_instead() -> None:
    try:
        await asyncio.sleep(3600)
    except asyncio.CancelledError:
        raise ValueError("something else") from None


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (_leaves_a_child, "it ended before its child tasks"),
        (_does_not_wait_for_its_child, "it ended before its child tasks"),
        (_leaves_a_descriptor_open, "it left open .*dev/null"),
        (_loses_a_result_that_has_arrived, "when the result has arrived: it left open .*dev/null"),
        (_ignores_its_cancellation, "it was not cancelled but ended with 'a result'"),
        (_fails_instead, r"it was not cancelled but ended with ValueError\('something else'\)"),
    ],
)
async def test_what_is_left_behind_fails(
    call: Callable[[], Coroutine[Any, Any, Any]], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cancellation, "END_SECONDS_MAX", 0.3)
    before = set(os.listdir("/proc/self/fd"))
    with pytest.raises(AssertionError, match=message):
        await cancel_at_each_step(call)
    for number in set(os.listdir("/proc/self/fd")) - before:
        with contextlib.suppress(OSError):
            if Path(f"/proc/self/fd/{number}").readlink() == Path("/dev/null"):
                os.close(int(number))


async def test_a_coroutine_that_goes_on_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cancellation, "END_SECONDS_MAX", 0.1)
    released = asyncio.Event()

    async def ignores_every_cancellation() -> None:
        while not released.is_set():
            with contextlib.suppress(asyncio.CancelledError):
                await released.wait()

    with pytest.raises(AssertionError, match=r"still running .* s later"):
        await cancel_at_each_step(ignores_every_cancellation, endless=True)
    with pytest.raises(AssertionError, match="pass endless=True"):
        await cancel_at_each_step(ignores_every_cancellation)
    released.set()


async def test_a_failure_of_the_coroutine_itself_is_raised() -> None:
    async def fails() -> None:
        await asyncio.sleep(0)
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await cancel_at_each_step(fails)


async def test_a_task_that_somebody_else_owns_may_live_on() -> None:
    shared: list[asyncio.Task[None]] = []

    async def start() -> None:
        shared.append(asyncio.get_running_loop().create_task(asyncio.sleep(3600)))
        await asyncio.sleep(0)

    async def end() -> None:
        for task in shared:
            task.cancel()
        await asyncio.wait(shared)

    assert await cancel_at_each_step(start, owned=lambda task: task in shared, afterwards=end) == 1


# --- the stores, and what a body waits for ------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Trial:
    """A coroutine to be cancelled at each step, and what has to hold after each round."""

    call: Callable[[], Coroutine[Any, Any, Any]]
    afterwards: Callable[[], Coroutine[Any, Any, None]] | None = None
    endless: bool = False
    steps_max: int = 500


Opened = Callable[[Path], AbstractAsyncContextManager[Trial]]
IMAGE = random_image(31)
DIGEST, DATA = next(iter(IMAGE.blobs.items()))


async def _pieces() -> AsyncIterator[bytes]:
    for position in range(0, len(DATA), 50_000):
        await asyncio.sleep(0)
        yield DATA[position : position + 50_000]


async def _next_events(store: ContentStore) -> None:
    async with aclosing(store.events()) as events:  # type: ignore[type-var]
        async for _ in events:
            pass


@asynccontextmanager
async def ingest(folder: Path) -> AsyncIterator[Trial]:
    async def nothing_is_left() -> None:
        assert not list(folder.glob("ingest/*"))
        with pytest.raises(NotFoundError):
            await OciLayoutStore(folder).size(DIGEST)

    yield Trial(lambda: OciLayoutStore(folder).ingest(DIGEST, len(DATA), _pieces()), nothing_is_left)


@asynccontextmanager
async def layout_run(folder: Path) -> AsyncIterator[Trial]:
    yield Trial(OciLayoutStore(folder).run, endless=True)


@asynccontextmanager
async def layout_events(folder: Path) -> AsyncIterator[Trial]:
    yield Trial(lambda: _next_events(OciLayoutStore(folder)), endless=True, steps_max=3)  # it looks again and again


@asynccontextmanager
async def ingests_run(folder: Path) -> AsyncIterator[Trial]:
    writer = IngestWriter(folder, DIGEST, len(DATA))
    writer.write(DATA[:1000])

    async def follow() -> None:
        ingests = IngestDirectory(lambda: folder)
        async with asyncio.TaskGroup() as group:
            running = group.create_task(ingests.run())
            await asyncio.sleep(0)
            with contextlib.closing(ingests.open(DIGEST)) as content:
                asyncio.get_running_loop().call_soon(writer.write, b"more")
                await content.wait(content.size, 30.0)
            running.cancel()

    yield Trial(follow)
    writer.abort()


@asynccontextmanager
async def send_what_grows(folder: Path) -> AsyncIterator[Trial]:
    store = MemoryStore()
    ingests, wire = MemoryIngests(store), Wire()
    growing = Growing(ingests, Sharing(store, Selection(is_open=True)))
    download = await ingests.begin(DIGEST, len(DATA))

    async def follow() -> None:
        opened = await growing.open(blob(DIGEST))
        assert opened is not None
        async with opened, asyncio.TaskGroup() as group:
            sending = group.create_task(opened.send(sink))
            await download.write(b"more")
            await reader.read(1)
            sending.cancel()

    async def nobody_reads() -> None:
        assert not download.record.readers

    async with sink_and_client(wire) as (sink, reader, _):
        await sink.claim()
        yield Trial(follow, nobody_reads)
    ingests.close()
    store.close()
    wire.close()


@asynccontextmanager
async def memory_events(folder: Path) -> AsyncIterator[Trial]:
    store = MemoryStore()
    yield Trial(lambda: _next_events(store), endless=True)
    store.close()


@asynccontextmanager
async def read_large_content(folder: Path) -> AsyncIterator[Trial]:
    store = MemoryStore()
    digest = store.put(b'{"layers": []' + b" " * (READ_AT_ONCE_BYTES_MAX + 1) + b"}")

    async def all_of_it() -> None:
        await read(store, digest)
        await read_manifest(store, digest)
        await contents(store, digest)

    yield Trial(all_of_it)
    store.close()


@asynccontextmanager
async def running_daemon(folder: Path) -> AsyncIterator[Daemon]:
    daemon = Daemon(folder)
    daemon.images["reg.test/lab/app:1"] = str(DIGEST)
    daemon.labels[str(DIGEST)] = {}
    await daemon.start()
    try:
        yield daemon
    finally:
        await daemon.stop()


@asynccontextmanager
async def containerd_calls(folder: Path) -> AsyncIterator[Trial]:
    async with running_daemon(folder) as daemon, following(daemon) as (store, _):
        await eventually(lambda: store.available, what="containerd is there")

        async def all_of_them() -> None:
            await store.images()
            await store.origins(DIGEST)

        async def others_are_answered() -> None:
            assert len(await store.images()) == 1

        yield Trial(all_of_them, others_are_answered)


@asynccontextmanager
async def containerd_run(folder: Path) -> AsyncIterator[Trial]:
    async with running_daemon(folder) as daemon, following(daemon) as (store, _):
        await eventually(lambda: store.available, what="containerd is there")

        async def run_another() -> None:
            async with AsyncExitStack() as stack:
                other, _ = await stack.enter_async_context(following(daemon))
                await other.wait_available()
                await asyncio.Event().wait()

        yield Trial(run_another, endless=True)


@asynccontextmanager
async def enter_a_turnstile(folder: Path) -> AsyncIterator[Trial]:
    turnstile = Turnstile(1)

    async def third_in_line() -> None:
        await turnstile.enter()
        await turnstile.enter()
        await turnstile.enter("another share")

    async def nobody_waits() -> None:
        await turnstile.enter()
        await eventually(lambda: not turnstile.has_line, what="the line is empty")

    yield Trial(third_in_line, nobody_waits)


@asynccontextmanager
async def wait_for_a_turn(folder: Path) -> AsyncIterator[Trial]:
    uploads = Uploads(MirrorSettings(upload_limit=32 << 20), Metrics().of(MirrorSeries))

    async def six_turns() -> None:
        for _ in range(3):
            await uploads.turn("peer", 1 << 20)
            await uploads.turn("another", 1 << 20)

    async def others_have_their_turn() -> None:
        assert await uploads.turn("peer", 1000) == 1000

    yield Trial(six_turns, others_have_their_turn)


TRIALS: list[Opened] = [
    ingest,
    layout_run,
    layout_events,
    ingests_run,
    send_what_grows,
    memory_events,
    read_large_content,
    containerd_calls,
    containerd_run,
    enter_a_turnstile,
    wait_for_a_turn,
]


@pytest.mark.parametrize("opened", TRIALS, ids=lambda opened: opened.__name__)
async def test_a_call_that_is_cancelled_at_any_step_leaves_nothing_behind(opened: Opened, tmp_path: Path) -> None:
    async with opened(tmp_path) as trial:
        steps = await cancel_at_each_step(
            trial.call, afterwards=trial.afterwards, endless=trial.endless, steps_max=trial.steps_max
        )
    assert steps > 0, "it suspends"
