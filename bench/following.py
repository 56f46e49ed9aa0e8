"""How far a follower is behind the writer of a growing blob, and what each of its sources spends on it.

Three processes: the writer (as containerd writes: 1 MiB at a time), the source that follows its file, and the client,
which notes when each megabyte has arrived.
"""

from __future__ import annotations

import asyncio
import json
import os
import resource
import socket
import subprocess
import sys
import time
from pathlib import Path

from bench.measure import GIB, percentile
from bench.table import Figure
from speil.oci.digest import Digest
from speil.oci.endpoint import Content
from speil.oci.selection import Selection
from speil.sources.base import ContentRequest
from speil.sources.growing import Growing
from speil.store.ingest_directory import IngestDirectory
from speil.store.ingest_writer import IngestWriter
from speil.store.memory import MemoryStore
from speil.store.sharing import Sharing
from speil.testing.eventually import eventually
from speil.testing.outlets import StreamOutlet
from speil.wire.sink import Sink
from speil.wire.turns import Wire

PART_BYTES = 1 << 20
PARTS = 512
BYTES_PER_SECOND = 60_000_000
SECONDS_MAX = 300.0
DIGEST = Digest.of(b"the bench never commits it")


def figures(directory: Path) -> list[Figure]:
    """One follower and two, at 60 MB/s."""
    found = []
    for count in (1, 2):
        root = directory / str(count)
        latencies_ms, cpu_seconds = _follow(root, count)
        sent = count * PARTS * PART_BYTES / GIB
        name = f"{count} follower{'s' * (count > 1)} of a download at {BYTES_PER_SECOND / 1e6:.0f} MB/s"
        behind = f"{percentile(latencies_ms, 50):.1f} / {percentile(latencies_ms, 99):.1f} ms"
        found.append(Figure(f"{name}: behind the writer, p50 / p99", behind))
        found.append(Figure(f"{name}: CPU-s/GiB of the source", f"{cpu_seconds / sent:.2f}"))
    return found


def _follow(root: Path, count: int) -> tuple[list[float], float]:
    """Milliseconds by which each megabyte came after it was written, sorted, and the CPU of the source."""
    root.mkdir(parents=True)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port, fd = listener.getsockname()[1], listener.fileno()
        source = _start("source", str(root), str(fd), str(count), pass_fds=(fd,))
    writer = _start("writer", str(root))
    clients = [_start("client", str(port)) for _ in range(count)]
    written = json.loads(_output(writer))
    came = [json.loads(_output(client)) for client in clients]
    cpu_seconds = float(_output(source))
    return sorted(1e3 * (at - by) for one in came for at, by in zip(one, written, strict=True)), cpu_seconds


def _start(*arguments: str, pass_fds: tuple[int, ...] = ()) -> subprocess.Popen[bytes]:
    argv = [sys.executable, "-m", "bench.following", *arguments]
    return subprocess.Popen(argv, stdout=subprocess.PIPE, pass_fds=pass_fds)


def _output(process: subprocess.Popen[bytes]) -> bytes:
    try:
        out, _ = process.communicate(timeout=SECONDS_MAX)
    except subprocess.TimeoutExpired:
        process.kill()
        raise
    if process.returncode:
        raise ChildProcessError(f"{process.args!r}: {process.returncode}")
    return out


def _write(root: Path) -> list[float]:
    """When each part had been written."""
    writer, part, times = IngestWriter(root, DIGEST, PARTS * PART_BYTES), os.urandom(PART_BYTES), []
    time.sleep(1.0)  # both clients are there
    began = time.monotonic()
    for number in range(PARTS):
        time.sleep(max(0.0, began + number * PART_BYTES / BYTES_PER_SECOND - time.monotonic()))
        writer.write(part)
        times.append(time.monotonic())
    return times


async def _serve(root: Path, fd: int, count: int) -> float:
    """Serve `count` followers; the CPU seconds that this took."""
    store, wire, ingests, served = MemoryStore(), Wire(), IngestDirectory(lambda: root), asyncio.Semaphore(0)
    before: list[float] = []  # from the first byte on: waiting for the others to start is not counted
    growing = Growing(ingests, Sharing(store, Selection(is_open=True)))

    async def follow(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await eventually(lambda: ingests.find(DIGEST), what="the download begins")
        opened = await growing.open(ContentRequest(Content("blobs", "reg.test", "a", DIGEST), "GET"))
        assert opened is not None
        before.append(_cpu_seconds())
        async with opened:
            sink = Sink(wire, StreamOutlet(writer), lambda size: None)
            await opened.send(sink)
            sink.close()
        writer.close()
        served.release()

    async with asyncio.TaskGroup() as group:
        running = group.create_task(ingests.run())
        async with await asyncio.start_server(follow, sock=socket.socket(fileno=fd)):
            for _ in range(count):
                await served.acquire()
        running.cancel()
    return _cpu_seconds() - before[0]


def _cpu_seconds() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def _receive(port: int) -> list[float]:
    """When each megabyte had arrived."""
    times, size, scratch = [], 0, bytearray(PART_BYTES)
    with socket.create_connection(("127.0.0.1", port)) as connection:
        while count := connection.recv_into(scratch, PART_BYTES - size % PART_BYTES, socket.MSG_TRUNC):
            size += count
            if not size % PART_BYTES:
                times.append(time.monotonic())
    return times


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["writer", root]:
            result: object = _write(Path(root))
        case ["source", root, fd, count]:
            result = asyncio.run(_serve(Path(root), int(fd), int(count)))
        case ["client", port]:
            result = _receive(int(port))
        case _:
            sys.exit("started by the bench alone")
    sys.stdout.write(json.dumps(result))
