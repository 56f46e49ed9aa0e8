"""A roll-out at one instant: 1, 3, 6 and 12 nodes pull an image that is new to the region.

Beside it the same without sharing, and staged: one node first, then the others. Real nodes with a store directory each,
a client that pulls as containerd does, and an upstream with one rate for all. Links have no limit here, and all share
the machine's cores: the same with real containerds over limited links is `make herd`.
"""

from __future__ import annotations

import asyncio
import contextlib
import io
import os
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from bench.fleet import free_ports
from bench.measure import GIB, cpu_seconds
from bench.rollout import PATIENCE
from bench.table import Figure
from bench.upstream import PacedUpstream
from speil.demo.client import PullClient, Target
from speil.demo.main import CONNECTIONS_MAX, REQUEST_SECONDS_MAX
from speil.demo.node import Node, Ports
from speil.demo.pulls import NAME, REGISTRY, Pulls
from speil.demo.region import running
from speil.http1.client import HttpClient
from speil.oci.image_builder import BuiltImage, ImageBuilder
from speil.progress import Progress
from speil.store.oci_layout import OciLayoutStore

SIZES = (1, 3, 6, 12)
LAYERS, LAYER_BYTES = 6, 4 << 20
BYTES_PER_SECOND = 6_000_000.0  # slow enough for twelve clients that hash and write on two cores
FAST_LAYER_BYTES, FAST_BYTES_PER_SECOND = 512 << 20, 100_000_000.0
UPSTREAM_HOST = "127.31.0.254"  # beside the demo's nodes
UNSHARED = "--share-wait=0"


@dataclass(frozen=True, slots=True)
class Pulled:
    """One roll-out."""

    copies: float  # of configs and layers, from the upstream
    first_seconds: float  # from the start until the first node is done
    last_seconds: float

    def __str__(self) -> str:
        return f"{self.copies:.2f} · {self.first_seconds:.1f}, {self.last_seconds:.1f}"


def figures(directory: Path, sizes: Sequence[int] = SIZES) -> list[Figure]:
    """A line for each size, then the CPU of a node that is followed and of one that follows."""
    found = []
    for count in sizes:
        at_once, staged = asyncio.run(_shared(directory / f"shared-{count}", count))
        unshared = asyncio.run(_unshared(directory / f"unshared-{count}", count))
        found.append(
            Figure(
                f"{count} at once, {LAYERS * LAYER_BYTES >> 20} MiB at {BYTES_PER_SECOND / 1e6:.0f} MB/s: "
                "copies · first, last done, s",
                str(at_once),
                f"{unshared} ({UNSHARED}); {staged} (staged)",
                "≤ 1.02 · last ≤ 1.2× one alone",
            )
        )
    source, follower = asyncio.run(_cpu(directory / "cpu"))
    size = f"{FAST_LAYER_BYTES >> 20} MiB at {FAST_BYTES_PER_SECOND / 1e6:.0f} MB/s"
    found.append(
        Figure(f"{size}: CPU-s/GiB of source · follower, while it is downloaded", f"{source:.2f} · {follower:.2f}")
    )
    return found


async def _shared(directory: Path, count: int) -> tuple[Pulled, Pulled]:
    """At once, and staged, each with a new image."""
    async with _region(directory, count, [_image(), _image()]) as region:
        return await region.at_once("0"), await region.staged("1")


async def _unshared(directory: Path, count: int) -> Pulled:
    async with _region(directory, count, [_image()], UNSHARED) as region:
        return await region.at_once("0")


async def _cpu(directory: Path) -> tuple[float, float]:
    """CPU seconds per GiB of the node that fetches and of the one that follows."""
    image = _image(1, FAST_LAYER_BYTES)
    async with _region(directory, 2, [image], rate=FAST_BYTES_PER_SECOND) as region:
        before = {node.name: cpu_seconds([node.pid]) for node in region.nodes}
        await region.at_once("0")
        used = {node.name: cpu_seconds([node.pid]) - before[node.name] for node in region.nodes}
        layer = max(image.blobs, key=lambda digest: len(image.blobs[digest]))
        source = max(used, key=lambda name: region.upstream.sent_bytes[name, layer])
        (follower,) = used.keys() - {source}
        share = len(image.blobs[layer]) / GIB
        return used[source] / share, used[follower] / share


class _Region:
    def __init__(
        self, nodes: list[Node], images: Sequence[BuiltImage], upstream: PacedUpstream, url: str, http: HttpClient
    ) -> None:
        self.nodes, self.upstream = nodes, upstream
        self._images, self._url, self._http = images, url, http

    async def at_once(self, tag: str) -> Pulled:
        """All nodes pull."""
        return await self._rolled_out(tag, self.nodes)

    async def staged(self, tag: str) -> Pulled:
        """The first node pulls; when its content is announced, the others do."""
        started = time.perf_counter()
        first = await self._rolled_out(tag, self.nodes[:1])
        if len(self.nodes) > 1:
            pulls = Pulls(self._url, self._http, Progress(quiet=True))
            await pulls.announced(self.nodes[0], self.nodes[1:], self._images[int(tag)])
            await self._rolled_out(tag, self.nodes[1:])
        return Pulled(self.upstream.copies(self._images[int(tag)]), first.first_seconds, time.perf_counter() - started)

    async def _rolled_out(self, tag: str, nodes: Sequence[Node]) -> Pulled:
        started, ends = time.perf_counter(), []

        async def pull(node: Node) -> None:
            client = PullClient(node.name, OciLayoutStore(node.layout), self._http, lambda count: None)
            await client.pull(Target(REGISTRY, NAME, tag, (node.url, self._url)))
            ends.append(time.perf_counter() - started)

        async with asyncio.TaskGroup() as group:
            for node in nodes:
                group.create_task(pull(node))
        return Pulled(self.upstream.copies(self._images[int(tag)]), min(ends), max(ends))


@asynccontextmanager
async def _region(
    directory: Path, count: int, images: Sequence[BuiltImage], *flags: str, rate: float = BYTES_PER_SECOND
) -> AsyncIterator[_Region]:
    directory.mkdir(parents=True)
    async with AsyncExitStack() as stack:
        http = HttpClient(timeout_seconds=REQUEST_SECONDS_MAX, connections_max=CONNECTIONS_MAX)
        stack.push_async_callback(http.close)
        upstream = PacedUpstream({str(number): image for number, image in enumerate(images)}, rate)
        url = await stack.enter_async_context(upstream.serve(UPSTREAM_HOST, free_ports(UPSTREAM_HOST, 1)[0]))
        ports = Ports(*free_ports("127.31.1.1", 3))
        stack.enter_context(contextlib.redirect_stdout(io.StringIO()))  # the demo prints its progress
        starting = running(["herd"], count, directory, ports, http, PATIENCE, *flags)
        (region,) = await stack.enter_async_context(starting)
        await region.leader()
        yield _Region(region.nodes, images, upstream, url, http)


def _image(layers: int = LAYERS, layer_bytes: int = LAYER_BYTES) -> BuiltImage:
    """One platform, other bytes each time."""
    builder = ImageBuilder()
    packed = [b"".join(os.urandom(1 << 20) for _ in range(layer_bytes >> 20)) for _ in range(layers)]
    return builder.build({"amd64": [builder.layer(data, data) for data in packed]})
