"""The demo's course: make an image, start the nodes, pull it staged, verify it, print the table, judge.

Staged means: one node pulls first, then all others at once. The first finds nobody and takes each blob from the
upstream; the others find it at a peer. At the end every blob is asked for once more from each node's own speil and
its digest checked, so the table's first column shows what a node serves from its own store.
"""

from __future__ import annotations

import asyncio
import socket
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import aiohttp

from speil.demo.client import PullClient, PullError, Target
from speil.demo.image import make_image
from speil.demo.node import Node, NodeError, Ports
from speil.demo.upstream import Upstream
from speil.oci.digest import Digest
from speil.oci.image_builder import BuiltImage
from speil.setting import integer, setting
from speil.store.base import NotFoundError
from speil.store.oci_layout import OciLayoutStore

UPSTREAM_HOST = "127.31.0.254"
REGISTRY, NAME, TAG = "registry.demo", "demo/app", "1"
ANNOUNCE_SECONDS_MAX = 20.0  # a record reaches the mesh in milliseconds
POLL_SECONDS = 0.1


@dataclass(frozen=True, slots=True)
class DemoSettings:
    """The demo's flags."""

    nodes: int = setting(integer, 4, help="How many nodes to start.")
    layers: int = setting(integer, 5, help="Layers of the image for this platform.")
    layer_mib: int = setting(integer, 24, help="MiB of files in each layer, before it is packed.")


@dataclass(slots=True)
class Row:
    """One line of the table; bytes by source, and seconds of the pull."""

    node: str
    own: int = 0
    peers: int = 0
    upstream: int = 0
    seconds: float = 0.0


async def run(settings: DemoSettings) -> int:
    """The whole demo; the exit code. Says what it does on stdout."""
    try:
        with tempfile.TemporaryDirectory(prefix="speil-demo-") as directory:
            return await _run(settings, Path(directory), time.monotonic())
    except* (NodeError, PullError) as group:
        for failure in _leaves(group):
            _say(f"the demo failed: {failure}")
    return 1


async def _run(settings: DemoSettings, directory: Path, started: float) -> int:
    _say(f"making an image of {settings.layers} layers from files of this machine ...")
    image = await asyncio.to_thread(
        make_image, settings.layers, settings.layer_mib << 20, lambda line: _say(f"  {line}")
    )
    upstream = Upstream(image, NAME, TAG)
    async with AsyncExitStack() as stack:
        session = await stack.enter_async_context(aiohttp.ClientSession())
        url = await stack.enter_async_context(upstream.serve(UPSTREAM_HOST, _free_port(UPSTREAM_HOST)))
        _say(f"upstream registry: {url} with {REGISTRY}/{NAME}:{TAG}, {image.size_bytes >> 20} MiB in all")
        nodes = await stack.enter_async_context(_nodes(settings.nodes, directory, session))
        rows = await _pull_staged(nodes, image, url, session)
        _say("asking each node's own speil for everything once more, checking every digest ...")
        async with asyncio.TaskGroup() as group:
            for node in nodes:
                group.create_task(_verify(node, image, session))
        for row, node in zip(rows, nodes, strict=True):
            row.own, row.peers = await _served(node, session, "store"), await _served(node, session, "peer")
            row.upstream = upstream.bytes_by_node[node.name]
    _print_table(rows)
    return _judge(upstream, time.monotonic() - started)


@asynccontextmanager
async def _nodes(count: int, directory: Path, session: aiohttp.ClientSession) -> AsyncIterator[list[Node]]:
    ports = Ports(*_free_ports("127.31.0.1", 3))
    nodes = [Node(number, directory, ports, f"/ip4/127.31.0.1/tcp/{ports.router}") for number in range(1, count + 1)]
    _say(f"starting {count} nodes on 127.31.0.1 to 127.31.0.{count}, registry port {ports.registry} ...")
    try:
        for node in nodes:
            await node.start()
        for node in nodes:
            await node.wait_ready(session)
        yield nodes
    finally:
        await asyncio.gather(*(node.stop() for node in nodes))


async def _pull_staged(nodes: list[Node], image: BuiltImage, url: str, session: aiohttp.ClientSession) -> list[Row]:
    rows = [Row(node.name) for node in nodes]

    async def pull(node: Node, row: Row) -> None:
        progress, began = _Progress(node.name, image.size_bytes), time.monotonic()
        client = PullClient(node.name, OciLayoutStore(node.layout), session, progress.add)
        await client.pull(Target(REGISTRY, NAME, TAG, (node.url, url)))
        row.seconds = time.monotonic() - began
        _say(f"  {node.name}: done in {row.seconds:.2f} s")

    _say(f"{nodes[0].name} pulls first, nobody else has it:")
    await pull(nodes[0], rows[0])
    await _wait_announced(nodes, image, session)
    _say("now the others, all at once:")
    async with asyncio.TaskGroup() as group:
        for node, row in zip(nodes[1:], rows[1:], strict=True):
            group.create_task(pull(node, row))
    return rows


async def _wait_announced(nodes: list[Node], image: BuiltImage, session: aiohttp.ClientSession) -> None:
    """Until every other node finds the index and all blobs that the first node pulled."""
    held = await _held(nodes[0], image)
    async with asyncio.timeout(ANNOUNCE_SECONDS_MAX):
        for node in nodes[1:]:
            for digest in held:
                url = f"{node.url}/v2/{NAME}/{image.kind(digest)}/{digest}"
                while (await session.head(url, params={"ns": REGISTRY})).status != 200:
                    await asyncio.sleep(POLL_SECONDS)


async def _held(node: Node, image: BuiltImage) -> list[Digest]:
    store = OciLayoutStore(node.layout)
    held = []
    for digest in image.blobs:
        try:
            await store.size(digest)
            held.append(digest)
        except NotFoundError:
            continue
    return held


async def _verify(node: Node, image: BuiltImage, session: aiohttp.ClientSession) -> None:
    for digest in await _held(node, image):
        url = f"{node.url}/v2/{NAME}/{image.kind(digest)}/{digest}"
        async with session.get(url, params={"ns": REGISTRY}) as response:
            if response.status != 200 or not digest.matches(await response.read()):
                raise PullError(f"{node.name} served wrong bytes for {digest}")


async def _served(node: Node, session: aiohttp.ClientSession, source: str) -> int:
    samples = await node.samples(session, "speil_served_bytes_total")
    return int(sum(value for labels, value in samples if labels["source"] == source and labels["client"] == "node"))


def _print_table(rows: list[Row]) -> None:
    _say(f"\n{'node':<8}{'own store':>12}{'peers':>12}{'upstream':>12}{'pull':>10}")
    for row in rows:
        sizes = "".join(f"{size / (1 << 20):>8.1f} MiB" for size in (row.own, row.peers, row.upstream))
        _say(f"{row.node:<8}{sizes}{row.seconds:>8.2f} s")


def _judge(upstream: Upstream, seconds: float) -> int:
    repeated = {digest: count for digest, count in upstream.gets.items() if count > 1}
    for digest, count in repeated.items():
        _say(f"the upstream served {digest} {count} times")
    if repeated:
        return 1
    _say(f"\nevery digest is right; the upstream served each of its {len(upstream.gets)} blobs once ({seconds:.0f} s)")
    return 0


class _Progress:
    """A line for each quarter of a pull."""

    def __init__(self, name: str, total: int) -> None:
        self._name, self._step, self._received, self._next = name, total // 4, 0, total // 4

    def add(self, size: int) -> None:
        self._received += size
        if self._received >= self._next:
            _say(f"  {self._name}: {self._received >> 20} MiB")
            self._next = self._received + self._step


def _free_port(host: str) -> int:
    return _free_ports(host, 1)[0]


def _free_ports(host: str, count: int) -> list[int]:
    """Ports that are free on `host` now; nodes use them on addresses nobody else is likely to use."""
    with ExitStack() as stack:
        return [stack.enter_context(socket.create_server((host, 0))).getsockname()[1] for _ in range(count)]


def _leaves(group: BaseExceptionGroup[BaseException]) -> list[BaseException]:
    return [
        leaf
        for item in group.exceptions
        for leaf in (_leaves(item) if isinstance(item, BaseExceptionGroup) else [item])
    ]


def _say(line: str) -> None:
    print(line, flush=True)  # noqa: T201 - the demo speaks to a person
