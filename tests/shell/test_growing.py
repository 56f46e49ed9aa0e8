"""Bodies from files that grow: moved in the kernel and copied, for clients and writers of every kind."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from random import Random

import pytest

from speil.oci.digest import Digest
from speil.oci.selection import Selection
from speil.sources import growing as growing_module
from speil.sources.base import BrokeOffError, Opened, Origin
from speil.sources.growing import Growing
from speil.store.memory import MemoryStore
from speil.store.memory_ingests import MemoryIngest, MemoryIngests
from speil.store.sharing import Sharing
from speil.testing.eventually import eventually
from speil.testing.outlets import StreamOutlet, sink_and_client
from speil.testing.source_conformance import blob, manifest
from speil.testing.virtual_time import run_virtual
from speil.wire import holes as holes_module
from speil.wire.holes import Holes
from speil.wire.sink import ClientGoneError, Sink
from speil.wire.turns import Wire

DATA = Random(31).randbytes(3 << 20)
DIGEST = Digest.of(DATA)
PART = 1 << 20  # as containerd writes
SECONDS_MAX = 60.0


class Node:
    """A node whose runtime downloads."""

    def __init__(self, zero_copy: bool) -> None:
        self.store = MemoryStore()
        self.ingests = MemoryIngests(self.store)
        self.wire = Wire(zero_copy=zero_copy)
        self.sharing = Sharing(self.store, Selection(is_open=True))
        self.stall_seconds = 3.0
        self.growing = Growing(self.ingests, self.sharing, stall_seconds=lambda _: self.stall_seconds)

    async def open(self, range_header: str = "") -> Opened:
        opened = await self.growing.open(blob(DIGEST, range_header=range_header))
        assert opened is not None
        return opened

    def close(self) -> None:
        self.ingests.close()
        self.store.close()
        self.wire.close()


@asynccontextmanager
async def a_node(zero_copy: bool = True) -> AsyncIterator[tuple[Node, MemoryIngest]]:
    node = Node(zero_copy)
    yield node, await node.ingests.begin(DIGEST, len(DATA))
    node.close()


@pytest.fixture(params=[True, False], ids=["zero-copy", "copied"])
async def downloading(request: pytest.FixtureRequest) -> AsyncIterator[tuple[Node, MemoryIngest]]:
    """A node that has begun to download, each way that bodies move."""
    async with a_node(request.param) as both:
        yield both


async def test_a_follower_gets_each_byte_as_it_is_written(downloading: tuple[Node, MemoryIngest]) -> None:
    node, download = downloading
    async with sink_and_client(node.wire) as (sink, reader, _), asyncio.TaskGroup() as group:
        async with await node.open() as opened:
            assert (opened.origin, opened.part) == (Origin.INGEST, None)
            assert opened.size == opened.length == len(DATA)
            sending = group.create_task(opened.send(sink))
            for start in range(0, len(DATA), PART):
                await download.write(DATA[start : start + PART])
                assert await reader.readexactly(PART) == DATA[start : start + PART], "before the next part is written"
            await sending
        assert sink.sent == len(DATA), "the last byte did not wait for the commit"
        await download.commit()


@pytest.mark.parametrize(
    ("header", "start", "stop"),
    [
        ("bytes=2000000-", 2_000_000, len(DATA)),
        ("bytes=100-2000000", 100, 2_000_001),
        ("bytes=-10", len(DATA) - 10, None),
    ],
)
async def test_a_range_behind_what_is_there_waits(
    downloading: tuple[Node, MemoryIngest], header: str, start: int, stop: int | None
) -> None:
    node, download = downloading
    await download.write(DATA[:50])
    async with (
        sink_and_client(node.wire) as (sink, reader, _),
        await node.open(header) as opened,
        asyncio.TaskGroup() as group,
    ):
        sending = group.create_task(opened.send(sink))
        reading = group.create_task(reader.readexactly(opened.length))
        for at in range(50, len(DATA), 400_001):
            await download.write(DATA[at : at + 400_001])
            await asyncio.sleep(0)
        await sending
        assert await reading == DATA[start:stop]


async def test_a_commit_in_mid_body_changes_nothing(downloading: tuple[Node, MemoryIngest]) -> None:
    node, download = downloading
    async with (
        sink_and_client(node.wire) as (sink, reader, _),
        await node.open() as opened,
        asyncio.TaskGroup() as group,
    ):
        sending = group.create_task(opened.send(sink))
        await download.write(DATA[:PART])
        assert await reader.readexactly(10) == DATA[:10]
        await download.write(DATA[PART:])
        await download.commit()
        assert await reader.readexactly(len(DATA) - 10) == DATA[10:]
        await sending


@pytest.mark.parametrize("how", ["abort", "rewind"])
async def test_an_ingest_that_ends_breaks_off_with_fin(how: str, downloading: tuple[Node, MemoryIngest]) -> None:
    node, download = downloading
    with socket.create_server(("127.0.0.1", 0)) as listener:
        client = socket.create_connection(listener.getsockname())
        served, _ = listener.accept()
    reader, client_writer = await asyncio.open_connection(sock=client)
    _, writer = await asyncio.open_connection(sock=served)
    sink = Sink(node.wire, StreamOutlet(writer), lambda size: None)
    async with await node.open() as opened, asyncio.TaskGroup() as group:

        async def send() -> None:
            with pytest.raises(BrokeOffError, match=r"gone|shrunk"):
                await opened.send(sink)
            sink.close()
            sink.hang_up()

        sending = group.create_task(send())
        await download.write(DATA[:PART])
        assert await reader.readexactly(PART) == DATA[:PART]
        await getattr(download, how)()
        await sending
        assert await reader.read() == b"", "an end, and no ConnectionResetError"
    client_writer.close()
    for one in (client_writer, writer):
        await one.wait_closed()
    assert await node.growing.open(blob(DIGEST)) is None or how == "rewind"


async def test_what_was_there_at_the_end_is_still_sent(downloading: tuple[Node, MemoryIngest]) -> None:
    node, download = downloading
    async with sink_and_client(node.wire) as (sink, reader, _), await node.open() as opened:
        await download.write(DATA[:PART])
        await download.abort()
        async with asyncio.TaskGroup() as group:
            reading = group.create_task(reader.readexactly(PART))
            with pytest.raises(BrokeOffError, match="gone"):
                await opened.send(sink)
            assert await reading == DATA[:PART]


async def test_a_client_that_is_gone_ends_the_body(downloading: tuple[Node, MemoryIngest]) -> None:
    node, download = downloading
    async with sink_and_client(node.wire) as (sink, _, client), await node.open() as opened:
        client.transport.abort()
        await download.write(DATA[:PART])
        async with asyncio.timeout(SECONDS_MAX):
            with pytest.raises(ClientGoneError):
                await opened.send(sink)


async def test_two_followers_and_one_that_takes_nothing(downloading: tuple[Node, MemoryIngest]) -> None:
    node, download = downloading
    async with (
        sink_and_client(node.wire) as (sink, reader, _),
        sink_and_client(node.wire) as (other, other_reader, _),
        await node.open() as opened,
        await node.open("bytes=1000-") as again,
        asyncio.TaskGroup() as group,
    ):
        sending = [group.create_task(opened.send(sink)), group.create_task(again.send(other))]
        await download.write(DATA)
        assert await reader.readexactly(len(DATA)) == DATA, "although the other one has taken nothing"
        assert await other_reader.readexactly(len(DATA) - 1000) == DATA[1000:]
        for task in sending:
            await task


async def test_an_upload_limit_is_asked_for_what_is_there_alone(downloading: tuple[Node, MemoryIngest]) -> None:
    node, download = downloading

    class Limited:
        is_limited = True

        def __init__(self) -> None:
            self.asked: list[int] = []
            self.given_back = 0

        async def turn(self, size: int) -> int:
            self.asked.append(size)
            return size

        def give_back(self, size: int) -> None:
            self.given_back += size

    pacing = Limited()
    async with sink_and_client(node.wire) as (sink, reader, _), asyncio.TaskGroup() as group:
        sink._pacing = pacing
        async with await node.open() as opened:
            sending = group.create_task(opened.send(sink))
            for start in range(0, len(DATA), PART):
                await download.write(DATA[start : start + PART])
                await reader.readexactly(PART)
            await sending
    assert sum(pacing.asked) - pacing.given_back == len(DATA)
    assert max(pacing.asked) <= PART


@pytest.mark.parametrize("zero_copy", [True, False])
def test_an_ingest_that_does_not_grow_breaks_off_after_its_patience(zero_copy: bool) -> None:
    async def scenario() -> None:
        loop = asyncio.get_running_loop()
        async with a_node(zero_copy) as (node, download), sink_and_client(node.wire) as (sink, reader, _):
            async with await node.open() as opened, asyncio.TaskGroup() as group:
                await download.write(DATA[:1000])
                reading = group.create_task(reader.readexactly(2000))
                group.create_task(_later(2.5, download.write(DATA[1000:2000])))
                began = loop.time()
                with pytest.raises(BrokeOffError, match="did not grow for 3 s"):
                    await opened.send(sink)
                assert loop.time() - began == pytest.approx(5.5, abs=0.01), "3 s after the last byte"
                assert await reading == DATA[:2000]
            assert await node.growing.open(blob(DIGEST)) is None, "and it is not opened again"
            node.stall_seconds = 60.0  # its source is known to live
            again = await node.open()
            await again.close()

    run_virtual(scenario())


async def _later(seconds: float, what: object) -> None:
    await asyncio.sleep(seconds)
    await what  # type: ignore[misc]


def test_an_ingest_that_is_whole_is_sent_once_it_is_committed() -> None:
    async def scenario() -> None:
        loop = asyncio.get_running_loop()
        async with a_node() as (node, download), asyncio.TaskGroup() as group:
            await download.write(DATA)
            request, began = blob(DIGEST), loop.time()
            assert await node.growing.open(request) is None
            assert request.notes.miss == "downloaded, not verified"
            assert loop.time() - began == pytest.approx(growing_module.COMMIT_SECONDS_MAX, abs=0.01)
            group.create_task(_later(0.2, download.commit()))
            async with await node.open() as opened, sink_and_client(node.wire) as (sink, reader, _):
                reading = group.create_task(reader.readexactly(len(DATA)))
                await opened.send(sink)
                assert await reading == DATA

    run_virtual(scenario())


def test_an_ingest_of_wrong_bytes_is_not_sent_once_it_is_whole() -> None:
    async def scenario() -> None:
        async with a_node() as (node, download), asyncio.TaskGroup() as group:
            await download.write(bytes(len(DATA)))
            group.create_task(_later(0.2, download.commit()))
            assert await node.growing.open(blob(DIGEST)) is None

    run_virtual(scenario())


async def test_what_may_not_be_shared_and_manifests_are_not_opened() -> None:
    async with a_node() as (node, _):
        assert await node.growing.open(manifest(DIGEST)) is None
        closed = Growing(node.ingests, Sharing(node.store, Selection()))
        assert await closed.open(blob(DIGEST)) is None
        closed._sharing.know([DIGEST])
        opened = await closed.open(blob(DIGEST))
        assert opened is not None
        await opened.close()


async def test_a_cancelled_body_leaves_nothing(downloading: tuple[Node, MemoryIngest]) -> None:
    node, download = downloading
    async with sink_and_client(node.wire) as (sink, reader, _), asyncio.TaskGroup() as group:

        async def follow() -> None:
            async with await node.open() as opened:
                await opened.send(sink)

        following = group.create_task(follow())
        await download.write(DATA[:PART])
        await reader.readexactly(PART)
        await eventually(lambda: download.record.readers, what="it follows")
        following.cancel()
    assert not download.record.readers


async def test_bytes_that_were_never_written_are_not_sent(downloading: tuple[Node, MemoryIngest]) -> None:
    node, download = downloading
    await download.write(DATA[: 2 * PART])
    os.ftruncate(download.fd, PART)
    os.ftruncate(download.fd, 2 * PART)  # its writer went on before anybody saw that the file was shorter
    async with sink_and_client(node.wire) as (sink, _, _), await node.open(f"bytes={PART - 1}-") as opened:
        with pytest.raises(BrokeOffError, match="truncated"):
            await opened.send(sink)
        assert sink.sent <= 1


async def test_a_file_system_that_finds_holes_slowly_is_not_asked_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, holes = tmp_path / "data", Holes()
    path.write_bytes(b"x" * 4096)
    os.truncate(path, 1 << 20)
    with path.open("rb") as file:
        assert holes.between(file.fileno(), 0, 1 << 20)
        assert not holes.between(file.fileno(), 0, 4096)
        assert holes.between(file.fileno(), 2 << 20, 3 << 20), "behind its end: its writer may go on there"
        monkeypatch.setattr(holes_module, "LOOK_SECONDS_MAX", -1.0)
        assert holes.between(file.fileno(), 0, 1 << 20), "the first slow answer counts"
        assert holes.is_slow
        assert not holes.between(file.fileno(), 0, 1 << 20)
