"""Both pages in Chromium, on two running regions: a pull under way, a killed leader, a node that is kept out.

The nodes are the demo's: processes on loopback, with a Lease file for each region. Peers send slowly (--upload-limit),
so that what is under way can be seen.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import sys
from collections.abc import AsyncIterator, Iterable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import pytest

from speil.demo.client import PullError
from speil.demo.node import Node, Ports
from speil.demo.pulls import NAME, REGISTRY, Pulls
from speil.demo.region import Region, running
from speil.demo.upstream import REGION_HEADER, Upstream
from speil.http1.client import HttpClient, HttpError
from speil.http1.message import Request
from speil.http1.reply import Outgoing, Reply
from speil.progress import Progress
from speil.testing.eventually import eventually
from speil.testing.images import random_image
from tests.browser.checks import SCREENSHOTS, is_quiet, keep
from tests.browser.chromium import Page, chromium
from tests.shell.nodes import free_ports

pytestmark = pytest.mark.requires("chromium", "axe-core")

FIRST, SECOND = random_image(11, (400_000, 60_000)), random_image(12, (9_000_000, 6_000_000))
SLOW = "--upload-limit=3MiB"
REQUEST_SECONDS_MAX = 120.0
PIECE_BYTES, PIECE_SECONDS = 64 << 10, 0.05


class SlowUpstream(Upstream):
    """One that sends region us no more than PIECE_BYTES in a PIECE_SECONDS for each blob."""

    async def _answer(self, request: Request, reply: Reply) -> None:
        is_slow = request.headers.get(REGION_HEADER) == "us" and request.method == "GET"
        await super()._answer(request, cast(Reply, _Slowly(reply)) if is_slow else reply)


class _Slowly:
    def __init__(self, reply: Reply) -> None:
        self.send = reply.send
        self._reply = reply

    @asynccontextmanager
    async def stream(self, status: int, headers: Iterable[tuple[str, str]], length: int) -> AsyncIterator[_SlowBody]:
        async with self._reply.stream(status, headers, length) as out:
            yield _SlowBody(out)


@dataclass
class _SlowBody:
    out: Outgoing

    async def write(self, data: bytes) -> None:
        for start in range(0, len(data), PIECE_BYTES):
            await self.out.write(data[start : start + PIECE_BYTES])
            await asyncio.sleep(PIECE_SECONDS)


@dataclass
class World:
    """Two regions of three nodes, and what pulls in them."""

    regions: list[Region]
    pulls: Pulls
    folder: Path
    ports: Ports

    @property
    def nodes(self) -> list[Node]:
        return [node for region in self.regions for node in region.nodes]

    @property
    def flags(self) -> list[str]:
        """Where `speil region` has to look."""
        urls, files = (node.metrics_url for node in self.nodes), (str(region.lease_file) for region in self.regions)
        return [f"--metrics-urls={','.join(urls)}", f"--lease-files={','.join(files)}"]


@asynccontextmanager
async def world(folder: Path) -> AsyncIterator[World]:
    async with AsyncExitStack() as stack:
        http = HttpClient(timeout_seconds=REQUEST_SECONDS_MAX, connections_max=64)
        stack.push_async_callback(http.close)
        upstream = SlowUpstream(NAME, {"1": FIRST, "2": SECOND})
        url = await stack.enter_async_context(upstream.serve("127.31.0.254", *free_ports("127.31.0.254", 1)))
        ports = Ports(*free_ports("127.31.1.1", 3))
        flags = (SLOW, "--mirror-resolve-timeout=800ms", "--zone=z1")
        regions = await stack.enter_async_context(running(("eu", "us"), 3, folder, ports, http, *flags))
        for region in regions:
            await region.leader()
        yield World(regions, Pulls(url, http, Progress(quiet=True)), folder, ports)


@asynccontextmanager
async def region_web(flags: list[str]) -> AsyncIterator[str]:
    """`speil region web`; the URL that it prints."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "speil", "region", "web", "--no-browser", "--interval=1s", *flags,
        stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    try:
        assert process.stdout is not None
        async with asyncio.timeout(60):
            line = (await process.stdout.readline()).decode()
        match = re.fullmatch(r"all regions: (http://127\.0\.0\.1:\d+/\?token=\S+)\n", line)
        assert match, line
        yield match[1]
    finally:
        process.terminate()
        async with asyncio.timeout(10):
            assert await process.wait() == 143, "as every command that SIGTERM ends"


@asynccontextmanager
async def stranger(made: World) -> AsyncIterator[Node]:
    """A node of region us that was given a peer of region eu to begin with."""
    known = f"/ip4/{made.regions[0].nodes[0].host}/tcp/{made.ports.router}"
    node = Node(
        "us", "us-9", "127.31.2.9", made.folder, made.ports, made.folder / "none.lease",
        "--bootstrap-kind=static", f"--static-bootstrap-peers={known}",
    )  # fmt: skip
    await node.start()
    try:
        yield node
    finally:
        await node.stop()


async def test_both_pages_show_a_pull_a_killed_leader_and_who_is_kept_out(tmp_path: Path) -> None:
    async with (
        world(tmp_path) as made,
        chromium(tmp_path / "browser") as browser,
        region_web(made.flags) as url,
        browser.page() as regions,
        browser.page() as node,
    ):
        await _before(made, regions, node, url)
        await _a_pull(made, regions, node)
        await _a_roll_out(made, regions, node)
        await _kept_out(made, regions, node)
        await _verified(regions)
        await _a_killed_leader(made, regions, node)
        await is_quiet(regions)


async def _before(made: World, regions: Page, node: Page, url: str) -> None:
    await regions.open(url)
    assert "token" not in await regions.run("location.href"), "the address has no token any more"
    await regions.wait_text("#link", "live")
    for region in made.regions:
        leader = await region.leader()
        await regions.wait_text(f"#region-{region.name} .leader", leader.host)
        await regions.wait_text(f"#region-{region.name}", "3 of 3 ready")
        await regions.wait_text(f"#region-{region.name}", "z1: 3")
    assert await regions.run("document.querySelectorAll('#map circle.node').length") == 6
    assert await regions.run("document.querySelectorAll('#map circle.leader').length") == 2
    assert await regions.run("document.querySelector('#map .border-zero').textContent") == "0 B"
    await regions.wait_text("#rollouts", "No node downloads anything now.")
    await node.open(f"{made.regions[0].nodes[2].metrics_url}/debug/web/")
    await node.wait_text("#link", "live")
    leader = await made.regions[0].leader()
    await node.wait_text("#leader", "this node" if leader is made.regions[0].nodes[2] else leader.host)
    assert "from the Lease" in await node.text("#leader")
    await node.wait_text("#peers", "z1: 2 peers")


async def _a_pull(made: World, regions: Page, node: Page) -> None:
    """In eu one node has the image, and two get it: what is under way is on both pages."""
    first, second, third = made.regions[0].nodes
    await made.pulls.one(first, "2")
    for other in (second, third):
        await made.pulls.known(other, made.regions[0].nodes)
    async with asyncio.TaskGroup() as group:
        pulling = [group.create_task(made.pulls.one(other, "2")) for other in (second, third)]
        await node.wait("document.querySelectorAll('#transfers progress').length > 0")
        shown = await node.text("#transfers")
        assert f"{REGISTRY}/{NAME}" in shown
        assert "peer" in shown
        value = "document.querySelector('#transfers progress').value"
        before = await node.run(value)
        await node.wait(f"!document.querySelector('#transfers progress') || {value} > {before}")
        await keep(node, "node-pull")
        await regions.wait("document.querySelectorAll('#rollouts .tree li ul li').length >= 1")
        tree = await regions.text("#rollouts")
        assert "eu:" in tree
        assert first.host in tree
        await regions.wait("document.querySelectorAll('#map .edge').length >= 1")
        await keep(regions, "regions-pull")
        await asyncio.gather(*pulling)
    await node.wait_text("#requests", f"{REGISTRY}/{NAME}")
    await node.wait_text("#images", f"{REGISTRY}/{NAME}:2")
    await node.wait("document.querySelector('#images td.number').textContent === '3'")
    await regions.wait_text("#region-eu", "KiB" if SECOND.size_bytes < 1 << 20 else "MiB")
    assert await regions.run("document.querySelector('#map .border-zero').textContent") == "0 B"
    assert "0 B crossed" in await regions.text("#border-sum")
    # a trace, on a node that has nothing of it
    other = made.regions[1].nodes[0]
    await node.open(f"{other.metrics_url}/debug/web/measure?image={REGISTRY}/{NAME}@{SECOND.index.digest}")
    await node.wait_text("#link", "live")
    await node.run("document.getElementById('image').focus()")
    await node.press("Enter", 13)
    await node.wait_text("#parts", "from the upstream registry")
    await node.open(f"{second.metrics_url}/debug/web/measure?image={REGISTRY}/{NAME}:2")
    await node.wait_text("#link", "live")
    await node.run("document.getElementById('image').focus()")
    await node.press("Enter", 13)
    await node.wait_text("#trace-status", "a pull downloads nothing", 60)


async def _a_roll_out(made: World, regions: Page, node: Page) -> None:
    """All nodes of us pull at once: one copy from upstream, which the others follow."""
    nodes = made.regions[1].nodes
    await node.open(f"{nodes[0].metrics_url}/debug/web/")
    await node.wait_text("#link", "live")
    async with asyncio.TaskGroup() as group:
        pulling = [group.create_task(made.pulls.one(one, "2")) for one in nodes]
        await regions.wait_text("#rollouts", "downloads from upstream")
        await regions.wait_text("#rollouts", "follows")
        await node.wait("/downloads it|follows a peer/.test(document.querySelector('#transfers').innerText)")
        await node.wait("document.querySelectorAll('#transfers progress').length > 0")
        await regions.screenshot(SCREENSHOTS / "regions-roll-out.png")
        await asyncio.gather(*pulling)
    assert await regions.run("document.querySelector('#map .border-zero').textContent") == "0 B"


async def _kept_out(made: World, regions: Page, node: Page) -> None:
    here, there = made.regions[0].nodes[0], made.regions[1].nodes[0]
    assert await made.pulls.knock(there, here, SECOND) == 404
    await node.open(f"{here.metrics_url}/debug/web/")
    await node.wait_text("#kept", "it sent a request as a node of region us")
    async with stranger(made) as unwanted:
        peer_id = await eventually(lambda: _peer_id(made, unwanted), what="the stranger runs")
        await node.wait_text("#kept", peer_id)
        assert "correct its --region" in await node.text("#kept")
        await regions.wait_text("#kept", peer_id)
        await regions.wait_text("#kept", "correct its --region")
        await regions.wait_text("#kept-sums", "Nothing crossed")
    assert await regions.run("document.querySelector('#map .border-zero').textContent") == "0 B"
    await keep(node, "node-kept-out")


async def _peer_id(made: World, node: Node) -> str:
    with contextlib.suppress(HttpError):
        answer = await made.pulls.http.request("GET", f"{node.metrics_url}/debug/state", answer_bytes_max=1 << 20)
        return str(json.loads(answer.text)["peer_id"])
    return ""


async def _verified(regions: Page) -> None:
    await regions.run("document.getElementById('verify-button').click()")
    await regions.wait_text("#verify-status", "isolated: no check failed", 40)
    assert "every peer of its 3 nodes is one of them" in await regions.text("#findings")
    await regions.open(await regions.run("location.href"))
    await regions.wait_text("#verify-status", "isolated: no check failed")


async def _a_killed_leader(made: World, regions: Page, node: Page) -> None:
    region = made.regions[0]
    leader = await region.leader()
    with contextlib.suppress(PullError):
        await leader.kill()
    await regions.wait_text("#region-eu", "2 of 3 ready")
    await regions.wait_text("#region-eu", "Can't be read")
    await regions.wait("document.querySelectorAll('#map rect.unready').length === 1")
    following = await region.leader(other_than=leader)
    await regions.wait_text("#region-eu .leader", following.host)
    survivor = next(one for one in region.nodes if one not in (leader, following))
    await node.open(f"{survivor.metrics_url}/debug/web/")
    await node.wait_text("#leader", following.host)
    await keep(regions, "regions-leader-killed")
