"""A staged roll-out: one node pulls an image, then all others at once. What leaves the upstream, and how long it takes.

The demo's parts: real nodes with a store each, a client that pulls as containerd does and verifies every digest, and
an upstream that counts who took what. The single pull beside it goes from the same upstream by no mirror at all. All
share the machine: with twelve nodes twelve clients hash and write at once, which in a cluster each node does alone.
"""

from __future__ import annotations

import asyncio
import contextlib
import io
import random
import time
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

from bench.fleet import free_ports
from bench.table import Figure
from speil.demo.client import PullClient, Target
from speil.demo.main import CONNECTIONS_MAX, REQUEST_SECONDS_MAX
from speil.demo.node import Ports
from speil.demo.pulls import NAME, REGISTRY, Pulls
from speil.demo.region import running
from speil.demo.upstream import Upstream
from speil.http1.client import HttpClient
from speil.oci.image_builder import BuiltImage, ImageBuilder
from speil.progress import Progress
from speil.store.oci_layout import OciLayoutStore

SIZES = (3, 6, 12)
LAYERS, LAYER_BYTES = 5, 20 << 20
UPSTREAM_HOST = "127.31.0.254"  # beside the demo's nodes
TAG = "1"
PATIENCE = "--mirror-resolve-timeout=800ms"  # the machine is everybody's: the usual 20 ms are no measure of a lookup


@dataclass(frozen=True, slots=True)
class Rollout:
    """One roll-out."""

    copies: float  # of each blob, from the upstream; the most that any blob was asked for
    first_seconds: float  # the first node's pull, from the upstream
    others_seconds: float  # from the start of the others to the end of the last
    single_seconds: float  # one pull without any mirror


def figures(
    directory: Path, sizes: tuple[int, ...] = SIZES, layers: int = LAYERS, layer_bytes: int = LAYER_BYTES
) -> list[Figure]:
    """A line for each size of the region."""
    image = make_image(layers, layer_bytes)
    found = []
    for nodes in sizes:
        with contextlib.redirect_stdout(io.StringIO()):  # the demo prints its progress
            got = asyncio.run(roll_out(directory / str(nodes), nodes, image))
        total = got.first_seconds + got.others_seconds
        found.append(
            Figure(
                f"{nodes} nodes, {image.size_bytes >> 20} MiB: upstream copies, at most · first + others, s",
                f"{got.copies:.1f} · {got.first_seconds:.2f} + {got.others_seconds:.2f} = {total:.2f}",
                f"{got.single_seconds:.2f} s (one pull, no mirror)",
                "1.0",
                "1.0",
            )
        )
    return found


def make_image(layers: int, layer_bytes: int) -> BuiltImage:
    """One platform, layers that don't compress."""
    builder, source = ImageBuilder(), random.Random(1)
    packed = [b"".join(source.randbytes(1 << 20) for _ in range(layer_bytes >> 20)) for _ in range(layers)]
    return builder.build({"amd64": [builder.layer(data, data) for data in packed]})


async def roll_out(directory: Path, count: int, image: BuiltImage) -> Rollout:
    """A region of `count` nodes takes up the image. Raises PullError, NodeError."""
    directory.mkdir()
    async with AsyncExitStack() as stack:
        http = HttpClient(timeout_seconds=REQUEST_SECONDS_MAX, connections_max=CONNECTIONS_MAX)
        stack.push_async_callback(http.close)
        plain = Upstream(NAME, {TAG: image})
        url = await stack.enter_async_context(plain.serve(UPSTREAM_HOST, free_ports(UPSTREAM_HOST, 1)[0]))
        client = PullClient("alone", OciLayoutStore(directory / "alone"), http, lambda count: None)
        started = time.perf_counter()
        await client.pull(Target(REGISTRY, NAME, TAG, (url,)))
        single = time.perf_counter() - started

        ports = Ports(*free_ports("127.31.1.1", 3))
        starting = running(["rollout"], count, directory, ports, http, PATIENCE)
        (region,) = await stack.enter_async_context(starting)
        await region.leader()
        pulls = Pulls(url, http, Progress(lines=False))
        first, *others = region.nodes
        await pulls.one(first, TAG)
        await pulls.announced(first, others, image)
        started = time.perf_counter()
        async with asyncio.TaskGroup() as group:
            for node in others:
                group.create_task(pulls.one(node, TAG))
        took = time.perf_counter() - started
        gets = [gone for (name, _), gone in plain.gets.items() if name == region.name]
        if len(gets) != len(image.blobs):
            raise RuntimeError(f"{len(gets)} of {len(image.blobs)} blobs came from the upstream")
        return Rollout(max(gets), pulls.seconds[first.host], took, single)
