"""Sharing in flight: real containerds start the same pull at the same instant, and one copy leaves the upstream."""

from __future__ import annotations

import asyncio
import tempfile
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from speil.oci.image_builder import BuiltImage
from speil.testing.images import random_image
from tests.conftest import need
from tests.system.lab.containerd import ContainerdVersion
from tests.system.lab.doors import Upstream, door
from tests.system.lab.namespaces import namespaces
from tests.system.lab.node import Node

pytestmark = pytest.mark.system

LAYERS = (24_000_000, 9_000_000, 6_000_000, 300_000, 2_000)
BYTES_PER_SECOND = 12_000_000
IMAGE = random_image(51, LAYERS)
SECONDS_MAX = 120.0


@dataclass(frozen=True, slots=True)
class Herd:
    """Nodes that have nothing, and their upstream."""

    upstream: Upstream
    nodes: list[Node]

    async def pull_at_once(self, count: int) -> None:
        """`count` nodes pull at the same instant."""
        async with asyncio.timeout(SECONDS_MAX):
            await asyncio.gather(*(node.pull("lab/app:1") for node in self.nodes[:count]))

    def copies(self) -> dict[str, float]:
        """How many copies of each content left the upstream."""
        sent = Counter[str]()
        for (_, digest), size in self.upstream.sent.items():
            sent[digest] += size
        return {
            digest: size / len(self.image.blobs[found])
            for digest, size in sent.items()
            for found in self.image.blobs
            if str(found) == digest
        }

    @property
    def image(self) -> BuiltImage:
        return self.upstream.image


@pytest.fixture
async def herd(version: ContainerdVersion) -> AsyncIterator[Herd]:
    """Three nodes, each with containerd and speil."""
    need("namespaces")
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="speil-lab-")))
        hub, spaces = stack.enter_context(namespaces(3))
        upstream = Upstream(IMAGE, BYTES_PER_SECOND)
        url = await stack.enter_async_context(door(hub, upstream.answer))
        seeds = ",".join(f"/ip4/{space.address}/tcp/5001" for space in spaces[:2])
        flags = ["--log-format=text", "--bootstrap-kind=static", f"--static-bootstrap-peers={seeds}"]
        nodes: list[Node] = []
        for number, space in enumerate(spaces, 1):
            node = Node(space, version, folder / f"n{number}", *flags)
            stack.callback(node.close)
            await node.start(url)
            nodes.append(node)
        yield Herd(upstream, nodes)


@pytest.mark.parametrize("count", [2, 3])
async def test_nodes_that_pull_at_once_take_one_copy(herd: Herd, count: int) -> None:
    await herd.pull_at_once(count)
    copies = herd.copies()
    manifests = {str(digest) for digest in IMAGE.blobs if IMAGE.kind(digest) == "manifests"}
    logs = "\n".join(f"--- {node.namespace.address}\n{node.speil.log_text()[-6000:]}" for node in herd.nodes[:count])
    too_many = {digest: count for digest, count in copies.items() if count > (2 if digest in manifests else 1.0)}
    assert not too_many, f"{too_many}\n{logs}"
    for node in herd.nodes[:count]:
        for digest in copies:
            assert digest in node.containerd.blobs()
    followed = sum(node.metric("speil_shared_bytes_total", role="follower") for node in herd.nodes[:count])
    assert followed > 0.9 * LAYERS[0] * (count - 1), logs  # others may be complete when they are asked for
