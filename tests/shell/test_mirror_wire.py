"""Bodies on their way: splice and copy, clients and peers of every kind, and what is left behind (nothing)."""

from __future__ import annotations

import asyncio
import errno
import gc
import logging
import os
import socket
import ssl
import stat
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from pathlib import Path
from random import Random

import pytest

from speil.fetch import peer_health
from speil.fetch.settings import FetchSettings
from speil.multiformats.peer_info import PeerInfo
from speil.oci.digest import Digest
from speil.routing.memory import MemoryMesh
from speil.sources import relayed as relayed_module
from speil.testing.certificates import CertificateAuthority
from speil.testing.eventually import eventually
from speil.testing.outlets import StreamOutlet
from speil.wire import pipes as pipes_module
from speil.wire import pump as pump_module
from speil.wire.connection_pool import IDLE_PER_ENDPOINT_MAX
from speil.wire.file_body import FileBody
from speil.wire.sink import Sink
from speil.wire.turns import ROUND_SECONDS_MAX, SHORT_ROUND_SECONDS_MAX, STARTS_PER_ROUND, Wire
from tests.shell.mirrors import Mirror, mirror, peer_at

BIG = Random(1).randbytes(12 << 20)
BIG_DIGEST = Digest.of(BIG)
SMALL = Random(2).randbytes(100_000)
SMALL_DIGEST = Digest.of(SMALL)
SECONDS_MAX = 120.0  # for whatever is waited for
REQUESTS_PER_SECOND_MIN = 25.0  # on a machine that does more
UNVERIFIED = FetchSettings(verify_bytes_max=0)  # here bodies are moved, however small


@pytest.fixture
async def pair(each_way: str) -> AsyncIterator[tuple[Mirror, Mirror]]:
    """A mirror that holds two blobs, and an empty one."""
    mesh = MemoryMesh()
    async with AsyncExitStack() as stack:
        holder = await stack.enter_async_context(mirror(mesh))
        asker = await stack.enter_async_context(mirror(mesh, fetch=UNVERIFIED))
        holder.store.put(BIG)
        holder.store.put(SMALL)
        await holder.router.provide([str(BIG_DIGEST), str(SMALL_DIGEST)])
        yield holder, asker


def get(digest: Digest) -> bytes:
    return f"GET /v2/a/blobs/{digest} HTTP/1.1\r\nHost: x\r\n\r\n".encode()


async def answer(reader: asyncio.StreamReader) -> bytes:
    """The body of the next answer on a connection."""
    head = await reader.readuntil(b"\r\n\r\n")
    lines = dict(line.split(": ", 1) for line in head.decode().split("\r\n")[1:] if line)
    return await reader.readexactly(int(lines["Content-Length"]))


@asynccontextmanager
async def narrow_client(target: Mirror) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """A client with a small receive buffer that reads nothing by itself."""
    opened = socket.socket()
    opened.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8192)
    opened.setblocking(False)
    await asyncio.get_running_loop().sock_connect(opened, (target.host, target.port))
    reader, writer = await asyncio.open_connection(sock=opened, limit=1024)
    try:
        yield reader, writer
    finally:
        writer.close()


async def read_to_end(reader: asyncio.StreamReader) -> bytes:
    """What comes until the connection ends, by FIN or RST."""
    data = b""
    try:
        async with asyncio.timeout(SECONDS_MAX):
            while piece := await reader.read(1 << 16):
                data += piece
    except ConnectionError:
        pass
    return data


# --- one body ------------------------------------------------------------------------------------------------


async def test_bodies_pass_in_the_kernel_where_they_may(pair: tuple[Mirror, Mirror], each_way: str) -> None:
    _, asker = pair
    async with narrow_client(asker) as (reader, writer):
        writer.write(get(BIG_DIGEST))
        await reader.readuntil(b"\r\n\r\n")
        if each_way == "zero-copy":
            await eventually(lambda: asker.wire.pipes.open_count == 1, what="a pipe is in use")
        assert await reader.readexactly(len(BIG)) == BIG
        assert asker.wire.pipes.open_count == (each_way == "zero-copy")
    assert asker.sample("speil_served_bytes_total", source="peer", client="node") == len(BIG)


async def test_requests_in_a_row_without_waiting_for_answers(pair: tuple[Mirror, Mirror]) -> None:
    for target in pair:
        reader, writer = await asyncio.open_connection(target.host, target.port)
        writer.write(get(SMALL_DIGEST) * 3 + get(BIG_DIGEST) + get(SMALL_DIGEST))
        for wanted in (SMALL, SMALL, SMALL, BIG, SMALL):
            assert await answer(reader) == wanted
        writer.close()


async def test_a_slow_client_is_not_held_against_the_peer(
    pair: tuple[Mirror, Mirror], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(relayed_module, "STALL_SECONDS_MAX", 0.1)
    _, asker = pair
    async with narrow_client(asker) as (reader, writer):
        writer.write(get(BIG_DIGEST))
        for _ in range(4):
            await reader.read(1)
            await asyncio.sleep(0.15)  # longer than a peer may be silent
        await reader.readuntil(b"\r\n\r\n")
        assert (await reader.readexactly(len(BIG)))[-1000:] == BIG[-1000:]
    assert asker.sample("speil_resumed_transfers_total") == 0
    assert asker.sample("speil_peer_requests_total", outcome="timeout") == 0


async def test_a_client_that_takes_nothing_more_is_let_go(
    pair: tuple[Mirror, Mirror], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pump_module, "PIECE_SECONDS_MAX", 0.1)
    monkeypatch.setattr(pump_module, "CLIENT_STALL_SECONDS_MAX", 0.3)
    monkeypatch.setattr("speil.wire.sink.CLIENT_STALL_SECONDS_MAX", 0.3)
    for target in pair:
        async with narrow_client(target) as (reader, writer):
            writer.write(get(BIG_DIGEST))
            await eventually(lambda target=target: target.recent.total == 1, what="it was let go")  # type: ignore[misc]
            assert target.recent.snapshot()[0]["outcome"] == "client gone"
            body = (await read_to_end(reader)).partition(b"\r\n\r\n")[2]
            assert BIG.startswith(body), "nothing but the body may have been sent"
    assert pair[1].sample("speil_resumed_transfers_total") == 0, "the peer is not to blame"


async def test_what_an_aborted_body_left_in_a_pipe_is_in_no_other_body(
    pair: tuple[Mirror, Mirror], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pump_module, "PIECE_SECONDS_MAX", 0.1)
    _, asker = pair
    for number in range(1, 4):
        before = asker.sample("speil_served_bytes_total", source="peer")
        async with narrow_client(asker) as (reader, writer):
            writer.write(get(BIG_DIGEST))
            await reader.readuntil(b"\r\n\r\n")
            # a piece has ended: the client's socket is full, and so is the pipe behind it
            await eventually(lambda before=before: asker.sample("speil_served_bytes_total", source="peer") > before)  # type: ignore[misc]
            writer.transport.abort()
        await eventually(lambda number=number: asker.recent.total == number, what="the request has ended")  # type: ignore[misc]
    reader, writer = await asyncio.open_connection(asker.host, asker.port)
    writer.write(get(SMALL_DIGEST))
    assert await answer(reader) == SMALL
    writer.close()


async def test_a_disk_that_fails_in_mid_body(pair: tuple[Mirror, Mirror]) -> None:
    holder, asker = pair
    asker.store.put(BIG)
    with await asker.store.open(BIG_DIGEST) as content:
        async with narrow_client(asker) as (reader, writer):
            writer.write(get(BIG_DIGEST))
            await reader.readuntil(b"\r\n\r\n")
            os.truncate(f"/proc/self/fd/{content.fd}", len(BIG) // 2)
            start = await reader.read()  # raises ConnectionResetError on RST: it must be a FIN
    assert BIG.startswith(start)
    assert len(start) <= len(BIG) // 2
    assert asker.recent.snapshot()[0]["outcome"].startswith("broke off")
    # containerd's next request is for the rest, and must not be sent to the same disk
    reader, writer = await asyncio.open_connection(asker.host, asker.port)
    writer.write(get(BIG_DIGEST).replace(b"Host: x\r\n", f"Host: x\r\nRange: bytes={len(start)}-\r\n".encode()))
    assert start + await answer(reader) == BIG
    writer.close()
    assert holder.sample("speil_served_bytes_total", client="peer") == len(BIG) - len(start)


@pytest.mark.parametrize("direction", ["from the peer", "to the client"])
async def test_a_kernel_that_does_not_splice(direction: str, monkeypatch: pytest.MonkeyPatch) -> None:
    splice = os.splice

    def refuses(src: int, dst: int, count: int, flags: int = 0) -> int:
        from_socket = stat.S_ISSOCK(os.fstat(src).st_mode)
        if from_socket is (direction == "from the peer"):
            raise OSError(errno.EINVAL, "Invalid argument")
        return splice(src, dst, count, flags=flags)

    monkeypatch.setattr(os, "splice", refuses)
    mesh = MemoryMesh()
    async with mirror(mesh) as holder, mirror(mesh) as asker:
        holder.store.put(BIG)
        await holder.router.provide([str(BIG_DIGEST)])
        reader, writer = await asyncio.open_connection(asker.host, asker.port)
        for _ in range(2):
            writer.write(get(BIG_DIGEST))
            assert await answer(reader) == BIG
        writer.close()
        assert not asker.wire.splices


@pytest.mark.parametrize("bound", ["no pipe", "no descriptor"])
async def test_without_a_pipe_or_a_descriptor_bodies_are_copied(bound: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def exhausted(fd: int) -> int:
        raise OSError(errno.EMFILE, "Too many open files")

    mesh = MemoryMesh()
    async with mirror(mesh) as holder, mirror(mesh) as asker:
        monkeypatch.setattr(*((pipes_module, "PIPES_MAX", 0) if bound == "no pipe" else (os, "dup", exhausted)))
        holder.store.put(BIG)
        await holder.router.provide([str(BIG_DIGEST)])
        reader, writer = await asyncio.open_connection(asker.host, asker.port)
        writer.write(get(BIG_DIGEST))
        assert await answer(reader) == BIG
        writer.close()
        assert asker.wire.pipes.open_count == 0


async def test_over_tls_bodies_go_through_the_transport(tmp_path: Path) -> None:
    authority = CertificateAuthority()
    pair = authority.issue_server("127.0.0.1")
    (tmp_path / "pem").write_bytes(pair.certificate + pair.key)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(tmp_path / "pem")
    (tmp_path / "blob").write_bytes(BIG)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with (tmp_path / "blob").open("rb") as file:
            outlet = StreamOutlet(writer)
            sink = Sink(Wire(), outlet, lambda size: None)
            assert not await sink.claim()
            await FileBody(file.fileno(), 0, len(BIG)).send(sink)
            assert not outlet.moved_bytes
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
    try:
        port = server.sockets[0].getsockname()[1]
        trust = ssl.create_default_context(cadata=authority.pem.decode())
        reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=trust)
        assert await reader.readexactly(len(BIG)) == BIG
        writer.close()
    finally:
        server.close()


async def test_who_is_ready_waits_while_others_have_had_enough_turns_in_a_row() -> None:
    wire, turns, rounds = Wire(), list[int](), 0

    def turn(number: int) -> None:
        turns.append(number)
        deadline = time.monotonic() + ROUND_SECONDS_MAX / 3
        while time.monotonic() < deadline:
            pass

    for number in range(20):
        wire.ready(partial(turn, number))
    assert len(turns) <= 4, "the loop must go round"
    while wire.waiting_count:
        before = len(turns)
        await asyncio.sleep(0)
        assert len(turns) <= before + 4
        rounds += 1
    assert turns == list(range(20)), "first come, first served"
    assert rounds >= 4


async def test_bodies_get_less_while_requests_wait_to_be_begun() -> None:
    wire, turns = Wire(), list[float]()

    def turn() -> None:
        turns.append(time.monotonic())
        while time.monotonic() < turns[-1] + SHORT_ROUND_SECONDS_MAX:
            pass

    async with asyncio.TaskGroup() as group:
        for _ in range(STARTS_PER_ROUND + 1):
            group.create_task(wire.starts.enter())
        await asyncio.sleep(0)
        assert wire.starts.has_line
        for _ in range(3):
            wire.ready(turn)
        assert len(turns) <= 1, "one turn, and the loop goes round"


# --- peers and their connections -----------------------------------------------------------------------------


class OddPeer:
    """A peer with one blob for each way of answering; what it sends is `SMALL`."""

    WAYS = ("whole", "split head", "short", "long", "hangs up afterwards", "not found", "busy")

    def __init__(self, mesh: MemoryMesh) -> None:
        self._mesh = mesh
        self._ways = {str(self.digest(way)): way for way in (*self.WAYS, "dribbles")}
        self._writers: set[asyncio.StreamWriter] = set()
        self.peers: dict[str, PeerInfo] = {}
        self.connections = 0
        self.answers: Counter[str] = Counter()

    @staticmethod
    def digest(way: str) -> Digest:
        return Digest.of(way.encode())

    @asynccontextmanager
    async def serve(self) -> AsyncIterator[None]:
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        for digest, way in self._ways.items():
            # one peer for each way: what one does is not held against the others
            self.peers[way] = peer_at(*server.sockets[0].getsockname()[:2])
            self._mesh.records[digest] = {self.peers[way]: None}
        try:
            yield
        finally:
            server.close()
            for writer in self._writers:
                writer.transport.abort()
            await eventually(lambda: not self._writers, what="the odd peer has ended")

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self._writers.add(writer)
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode()
                if not await self._answer(self._ways[head.split(" ")[1].rpartition("/")[2]], writer):
                    break
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()
            self._writers.discard(writer)

    async def _answer(self, way: str, writer: asyncio.StreamWriter) -> bool:
        """Whether the connection stays."""
        self.answers[way] += 1
        head = f"HTTP/1.1 200 OK\r\nContent-Length: {len(SMALL)}\r\n\r\n".encode()
        match way:
            case "not found":
                writer.write(b"HTTP/1.1 404 X\r\nContent-Length: 0\r\n\r\n")
            case "busy":
                writer.write(b"HTTP/1.1 503 X\r\nContent-Length: 0\r\nRetry-After: 1\r\nX-Speil-Busy: node\r\n\r\n")
            case "split head":
                for piece in (head[:9], head[9:-1], head[-1:] + SMALL[:1], SMALL[1:]):
                    writer.write(piece)
                    await writer.drain()
                    await asyncio.sleep(0)
            case "dribbles":
                writer.write(head)
                for start in range(0, len(SMALL), len(SMALL) // 5):
                    await asyncio.sleep(0.1)
                    writer.write(SMALL[start : start + len(SMALL) // 5])
            case "short":
                writer.write(head + SMALL[: len(SMALL) // 2])
            case "long":
                writer.write(head + SMALL + b"more than was promised")
            case _:
                writer.write(head + SMALL)
        await writer.drain()
        return way not in ("short", "hangs up afterwards")


async def body_until_end(target: Mirror, way: str) -> bytes:
    """All body bytes of one request on a connection of its own, to the FIN."""
    reader, writer = await asyncio.open_connection(target.host, target.port)
    writer.write(get(OddPeer.digest(way)).replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))
    async with asyncio.timeout(SECONDS_MAX):
        data = await reader.read()  # raises ConnectionResetError on RST
    writer.close()
    return data.partition(b"\r\n\r\n")[2]


@pytest.mark.usefixtures("each_way")
async def test_bodies_of_every_length_and_what_becomes_of_the_connection_to_the_peer() -> None:
    mesh = MemoryMesh()
    peer = OddPeer(mesh)
    async with mirror(mesh, fetch=UNVERIFIED) as asker, peer.serve():
        for way in ("whole", "split head", "whole"):
            assert await body_until_end(asker, way) == SMALL
        assert peer.connections == 1, "a connection whose body was taken to its end is used again"
        assert await body_until_end(asker, "long") == SMALL, "not a byte more than was promised"
        assert await body_until_end(asker, "whole") == SMALL
        assert peer.connections == 2, "bytes that nobody asked for end a connection"
        assert await body_until_end(asker, "short") == SMALL[: len(SMALL) // 2]
        assert await body_until_end(asker, "hangs up afterwards") == SMALL
        blamed = asker.sample("speil_peer_requests_total", outcome="broken")
        assert await body_until_end(asker, "whole") == SMALL
        assert asker.sample("speil_peer_requests_total", outcome="broken") == blamed == 1, "only the short body"


@pytest.mark.usefixtures("each_way")
async def test_a_peer_that_pauses_again_and_again_has_not_stalled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(relayed_module, "STALL_SECONDS_MAX", 0.3)
    mesh = MemoryMesh()
    peer = OddPeer(mesh)
    async with mirror(mesh, fetch=UNVERIFIED) as asker, peer.serve():
        assert await body_until_end(asker, "dribbles") == SMALL
        assert asker.sample("speil_peer_requests_total", outcome="timeout") == 0


async def test_a_busy_peer_is_not_blamed() -> None:
    mesh = MemoryMesh()
    peer = OddPeer(mesh)
    async with mirror(mesh, fetch=UNVERIFIED) as asker, peer.serve():
        assert b"could not find peer" in await body_until_end(asker, "busy")
        assert asker.sample("speil_peer_requests_total", outcome="busy") == 1
        assert await body_until_end(asker, "whole") == SMALL


# --- nothing is left behind ----------------------------------------------------------------------------------

WARM_UP, WORKERS = 500, 8


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE")


class Clients:
    """Clients of every manner, well-behaved and not, against a mirror; `requests` counts what they asked."""

    MANNERS = ("reads", "pipelines", "aborts", "hangs up", "half-closes")

    def __init__(self, target: Mirror, peer: OddPeer, rng: Random) -> None:
        self._target, self._peer, self._rng = target, peer, rng
        self.requests = 0

    async def run(self, until: int) -> None:
        """Ask until so many requests are made, several clients at a time."""
        seconds_max = SECONDS_MAX + until / REQUESTS_PER_SECOND_MIN
        async with asyncio.timeout(seconds_max), asyncio.TaskGroup() as group:
            for _ in range(WORKERS):
                group.create_task(self._ask_until(until))

    async def _ask_until(self, until: int) -> None:
        while self.requests < until:
            reader, writer = await asyncio.open_connection(self._target.host, self._target.port)
            try:
                await self._session(self._rng.choice(self.MANNERS), reader, writer)
            except (asyncio.IncompleteReadError, ConnectionError):
                pass  # a body that could not be finished, or a client that closed first
            finally:
                writer.transport.abort()

    async def _session(self, manner: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        match manner:
            case "reads":
                for _ in range(5):
                    await self._ask(writer)
                    await self._check(reader)
            case "pipelines":
                for _ in range(4):
                    await self._ask(writer)
                for _ in range(4):
                    await self._check(reader)
            case "aborts":
                await self._ask(writer)
                await reader.read(1000)
            case "hangs up":
                await self._ask(writer)
            case "half-closes":
                await self._ask(writer)
                writer.write_eof()
                await reader.read()

    async def _check(self, reader: asyncio.StreamReader) -> None:
        body = await answer(reader)
        assert body == SMALL or b"could not find peer" in body

    async def _ask(self, writer: asyncio.StreamWriter) -> None:
        self.requests += 1
        way = self._rng.choice(OddPeer.WAYS)
        # forgiven each time: else a peer that breaks off would hardly be asked
        self._target.known.health.answered(self._peer.peers[way].peer_id, 0.01)
        self._target.known.health.delivered(self._peer.peers[way].peer_id)
        writer.write(get(SMALL_DIGEST if self._rng.random() < 0.25 else OddPeer.digest(way)))
        await writer.drain()


@pytest.mark.parametrize("requests", [600, pytest.param(10_000, marks=pytest.mark.long)])
async def test_thousands_of_requests_of_every_kind_leave_nothing_behind(
    each_way: str, requests: int, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level(logging.ERROR, "speil")  # pytest keeps every line
    monkeypatch.setattr(peer_health, "BROKEN_SECONDS", 0.0)  # who breaks off is asked for the same again
    mesh = MemoryMesh()
    peer = OddPeer(mesh)
    async with mirror(mesh, fetch=UNVERIFIED) as asker, peer.serve():
        asker.store.put(SMALL)
        clients = Clients(asker, peer, Random(3))
        tasks = len(asyncio.all_tasks())
        await clients.run(until=WARM_UP)
        await eventually(lambda: asker.sample("http_requests_inflight") == 0, what="no request is open")
        gc.collect()
        resident, objects, descriptors = resident_bytes(), len(gc.get_objects()), len(os.listdir("/proc/self/fd"))
        await clients.run(until=WARM_UP + requests)
        await eventually(lambda: asker.sample("http_requests_inflight") == 0, what="no request is open")
        # what may stay are the idle connections to the peer, with their task at its other end, and the idle pipes
        await eventually(lambda: len(asyncio.all_tasks()) <= tasks + 10, what="no task is left")
        kept = descriptors + 2 * pipes_module.IDLE_PIPES_MAX + 2 * IDLE_PER_ENDPOINT_MAX
        await eventually(lambda: len(os.listdir("/proc/self/fd")) <= kept, what="no descriptor is left")
        gc.collect()
        assert len(gc.get_objects()) <= objects + max(requests // 10, 300), "a leak is an object for each request"
        assert resident_bytes() <= resident + (16 << 20)
        assert min(peer.answers[way] for way in peer.WAYS) > requests // 100, "each way was met"
        assert asker.wire.waiting_count == 0, "no body is still moving"
        assert asker.wire.pipes.open_count <= pipes_module.IDLE_PIPES_MAX
        assert await body_until_end(asker, "whole") == SMALL
