"""More than a node can or wants to give: peers are sent elsewhere and told why, containerd's pulls go on."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from random import Random

import pytest

from speil.mirror import open_requests as open_requests_module
from speil.oci.digest import Digest
from speil.routing.memory import MemoryMesh
from speil.testing.crowd import Crowd
from speil.testing.eventually import eventually
from speil.testing.images import random_image
from tests.shell.mirrors import Mirror, mirror
from tests.shell.nodes import RunningNode, running_node, write_layout

BIG = Random(1).randbytes(8 << 20)
DIGEST = Digest.of(BIG)
PEER = "X-Spegel-Mirrored: true\r\n"


def get(extra: str = "", digest: Digest = DIGEST) -> bytes:
    return f"GET /v2/a/blobs/{digest} HTTP/1.1\r\nHost: x\r\n{extra}\r\n".encode()


@asynccontextmanager
async def open_request(
    target: Mirror, extra: str, source: str = "127.0.0.1"
) -> AsyncIterator[tuple[int, dict[str, str], asyncio.StreamReader]]:
    """A request whose body is not read; (status, headers, the body's stream). `source` is the client's address."""
    reader, writer = await asyncio.open_connection(target.host, target.port, local_addr=(source, 0), limit=1024)
    writer.write(get(extra))
    try:
        lines = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        yield int(lines[0].split(" ")[1]), dict(line.split(": ", 1) for line in lines[1:] if line), reader
    finally:
        writer.transport.abort()


@pytest.fixture
async def holder() -> AsyncIterator[Mirror]:
    """Eight places for uploads, of which two are contested."""
    async with mirror(MemoryMesh(), uploads_max=8, uploads_per_peer_max=6) as found:
        found.store.put(BIG)
        yield found


async def test_places_by_node_and_by_peer_and_the_reasons(holder: Mirror, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "speil.mirror")
    async with AsyncExitStack() as stack:
        for source, reason in (
            ("127.0.0.3", ""),
            *[("127.0.0.2", "")] * 5,
            ("127.0.0.2", "share"),
            ("127.0.0.4", ""),
            ("127.0.0.5", ""),
            ("127.0.0.6", "node"),
        ):
            status, headers, _ = await stack.enter_async_context(open_request(holder, PEER, source))
            assert (status, headers.get("X-Speil-Busy", "")) == (503 if reason else 200, reason)
            if reason:
                assert (headers["Retry-After"], headers["Content-Length"]) == ("1", "0")
                assert holder.sample("speil_refused_uploads_total", reason=reason) == 1
        assert holder.sample("speil_open_uploads") == 8
        status, _, reader = await stack.enter_async_context(open_request(holder, ""))
        assert (status, await reader.readexactly(len(BIG))) == (200, BIG), "containerd of this node is served"
    warnings = [record for record in caplog.records if record.levelno == logging.WARNING]
    assert len(warnings) == 1, "one line for many refusals"
    told = [record for record in caplog.records if record.getMessage() == "asked by a peer"]
    refused = {(one.fields["source"], one.fields["outcome"]) for one in told if one.fields["status"] == 503}  # type: ignore[attr-defined]
    assert refused == {("none", "busy: share"), ("none", "busy: node")}, "a line says what was answered"
    await eventually(lambda: holder.sample("speil_open_uploads") == 0, what="all places are free again")
    async with open_request(holder, PEER, "127.0.0.5") as (status, _, _):
        assert status == 200


async def test_a_busy_peer_is_passed_over_and_asked_again_later() -> None:
    mesh = MemoryMesh()
    async with mirror(mesh, uploads_max=0) as busy, mirror(mesh) as free, mirror(mesh) as asker:
        for one in (busy, free):
            one.store.put(BIG)
            await one.router.provide([str(DIGEST)])
        for _ in range(2):
            async with open_request(asker, "") as (status, _, reader):
                assert (status, await reader.readexactly(len(BIG))) == (200, BIG)
        assert asker.sample("speil_peer_requests_total", outcome="busy") >= 1
        assert asker.sample("spegel_mirror_requests_total", cache="miss") == 0


async def test_too_many_open_requests_send_peers_elsewhere_and_containerd_upstream(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(open_requests_module, "REQUESTS_MAX", 2)
    monkeypatch.setattr(open_requests_module, "OTHERS_REQUESTS_MAX", 1)
    async with AsyncExitStack() as stack:
        holder = await stack.enter_async_context(mirror(MemoryMesh()))
        holder.store.put(BIG)
        assert (await stack.enter_async_context(open_request(holder, "")))[0] == 200
        assert (await stack.enter_async_context(open_request(holder, PEER)))[0] == 200
        status, headers, _ = await stack.enter_async_context(open_request(holder, PEER))
        assert (status, headers["X-Speil-Busy"]) == (503, "requests")
        status, headers, _ = await stack.enter_async_context(open_request(holder, ""))
        assert (status, headers["Content-Length"]) == (404, "0")
        assert holder.sample("speil_refused_uploads_total", reason="requests") == 1


async def test_the_upload_limit_holds_for_peers_alone(each_way: str) -> None:
    async with mirror(MemoryMesh(), upload_limit=16 << 20) as holder:
        holder.store.put(BIG)
        loop = asyncio.get_running_loop()

        async def download(extra: str) -> float:
            started = loop.time()
            async with open_request(holder, extra) as (status, _, reader):
                assert (status, await reader.readexactly(len(BIG))) == (200, BIG)
            return loop.time() - started

        # 3 × 8 MiB at 16 MiB a second, of which 1.6 MiB may go at once: it can't take less, however quick the machine
        started = loop.time()
        async with asyncio.TaskGroup() as group:
            for _ in range(3):
                group.create_task(download(PEER))
        assert loop.time() - started >= (3 * 8 - 1.6) / 16
        assert holder.sample("speil_upload_throttled_seconds_total") > 0
        throttled = holder.sample("speil_upload_throttled_seconds_total")
        await download("")
        assert holder.sample("speil_upload_throttled_seconds_total") == throttled


async def test_peers_that_hang_up_while_they_wait_for_their_turn_leave_nothing() -> None:
    async with mirror(MemoryMesh(), upload_limit=1 << 20) as holder:
        holder.store.put(BIG)
        for _ in range(10):
            async with open_request(holder, PEER) as (status, _, reader):
                assert status == 200
                await reader.readexactly(1000)
            # its FIN may be the end of its requests alone: the next piece is refused, and shows that it is gone
            await eventually(lambda: holder.sample("speil_open_uploads") == 0, what="no upload is left")
        async with open_request(holder, PEER) as (_, _, reader):
            assert await reader.readexactly(300_000) == BIG[:300_000]


# --- many clients at once ------------------------------------------------------------------------------------

RSS_MIB_MAX = 128
PROBE_SECONDS_MAX = 10.0  # the goal is 0.1 s, which the bench measures; this must hold on a machine that does more


async def crowd(node: RunningNode, path: str, count: int) -> Crowd:
    """So many clients at once, from a process of their own."""
    argv = [sys.executable, "-m", "speil.testing.crowd", node.host, str(node.registry_port), path, str(count)]
    process = await asyncio.create_subprocess_exec(*argv, stdout=asyncio.subprocess.PIPE)
    out, _ = await process.communicate()
    return Crowd(**json.loads(out))


async def probe(node: RunningNode, seconds: list[float]) -> None:
    """`/livez` on a new connection each time, as the kubelet does."""
    loop = asyncio.get_running_loop()
    while True:
        started = loop.time()
        reader, writer = await asyncio.open_connection(node.host, node.registry_port)
        try:
            writer.write(b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n")
            assert (await reader.readuntil(b"\r\n")).startswith(b"HTTP/1.1 200")
        finally:
            writer.close()  # it is cancelled in the middle
        seconds.append(loop.time() - started)
        await asyncio.sleep(0.05)


def rss_mib(node: RunningNode) -> float:
    return int(Path(f"/proc/{node.process.pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE") / (1 << 20)


@pytest.mark.parametrize("clients", [80, pytest.param(500, marks=pytest.mark.long)])
async def test_many_clients_at_once(tmp_path: Path, clients: int) -> None:
    image = random_image(5, (2_000_000,))
    layer = max(image.blobs, key=lambda digest: len(image.blobs[digest]))
    path, size = f"/v2/lab/app/blobs/{layer}?ns=reg.test", len(image.blobs[layer])
    await write_layout(tmp_path / "full", image, "reg.test/lab/app:1")
    await write_layout(tmp_path / "other", random_image(6, (10,)))
    # here one node gets all its bodies from one other; the bounds have tests of their own
    flags = ("--mirror-resolve-timeout=5s", "--uploads-max=2000", "--uploads-per-peer-max=2000")
    async with AsyncExitStack() as stack:
        holder = await stack.enter_async_context(running_node(tmp_path, tmp_path / "full", *flags))
        seed = f"--static-bootstrap-peers=/ip4/{holder.host}/tcp/{holder.router_port}"
        ports = (holder.registry_port, holder.router_port, holder.metrics_port)
        asker = await stack.enter_async_context(running_node(tmp_path, tmp_path / "other", seed, *flags, ports=ports))

        async def one_is_served() -> bool:
            return (await crowd(asker, path, 1)).served == 1

        await eventually(one_is_served, timeout_seconds=20, what="the asker finds the holder")
        for node in (holder, asker):
            probes: list[float] = []
            async with asyncio.TaskGroup() as group:
                probing = group.create_task(probe(node, probes))
                done = await crowd(node, path, clients)
                probing.cancel()
            assert (done.served, done.failed, done.size_bytes) == (clients, {}, clients * size)
            assert rss_mib(node) < RSS_MIB_MAX
            assert probes
            assert max(probes) < PROBE_SECONDS_MAX
