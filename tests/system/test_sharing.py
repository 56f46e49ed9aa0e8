"""Sharing in flight: real containerds start the same pull at the same instant, and one copy leaves the upstream."""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from speil.oci.digest import Digest
from speil.store.base import StoreError
from speil.testing.eventually import eventually
from speil.testing.images import random_image
from tests.conftest import need
from tests.system.lab.containerd import ContainerdVersion
from tests.system.lab.doors import Upstream, door
from tests.system.lab.namespaces import namespaces
from tests.system.lab.node import Node

pytestmark = pytest.mark.system

LAYERS = (24_000_000, 9_000_000, 6_000_000, 300_000, 2_000)
BYTES_PER_SECOND = 12_000_000
SLOW_BYTES_PER_SECOND = 2_000_000
IMAGE = random_image(51, LAYERS)
SECONDS_MAX = 120.0


@dataclass(frozen=True, slots=True)
class Herd:
    """Nodes that have nothing, and their upstream."""

    upstream: Upstream
    nodes: list[Node]

    def copies(self) -> dict[str, float]:
        """How many copies of each content left the upstream, by digest."""
        sent = Counter[str]()
        for (_, digest), size in self.upstream.sent.items():
            sent[digest] += size
        return {digest: size / len(IMAGE.blobs[Digest.parse(digest)]) for digest, size in sent.items()}

    @property
    def layer(self) -> str:
        """The largest layer."""
        return str(self.upstream.layer)

    def taken(self, node: Node) -> int:
        """Bytes of the largest layer that the upstream sent to a node."""
        return self.upstream.sent_of_layer(node.namespace.address)

    async def begin(self, group: asyncio.TaskGroup) -> tuple[Node, list[Node], dict[int, asyncio.Task[bool]]]:
        """All pull at once, until the largest layer is followed: the node that fetches it, the others, the pulls."""
        self.upstream.bytes_per_second = SLOW_BYTES_PER_SECOND  # until all nodes are there
        pulls = {id(node): group.create_task(self.outcome(node)) for node in self.nodes}

        def followed() -> list[Node]:
            fetching = [node for node in self.nodes if self.taken(node) > 1 << 20]
            lines = [node.speil.log_text() for node in self.nodes]
            following = sum(f"following a download  component=sharing key={self.layer}" in text for text in lines)
            return fetching if following == len(self.nodes) - 1 else []

        (fetcher,) = await eventually(followed, timeout_seconds=SECONDS_MAX, what="the layer is followed")
        self.upstream.bytes_per_second = BYTES_PER_SECOND
        return fetcher, [node for node in self.nodes if node is not fetcher], pulls

    async def pull(self, node: Node) -> None:
        """Pull as the kubelet does. Raises StoreError."""
        await node.pull("lab/app:1")

    async def outcome(self, node: Node) -> bool:
        """Whether a pull succeeds."""
        try:
            await self.pull(node)
        except StoreError:
            return False
        return True

    def log(self) -> str:
        """The end of each node's log."""
        return "\n".join(f"--- {node.namespace.address}\n{node.speil.log_text()[-6000:]}" for node in self.nodes)


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
    nodes = herd.nodes[:count]
    async with asyncio.timeout(SECONDS_MAX):
        await asyncio.gather(*map(herd.pull, nodes))
    copies = herd.copies()
    assert max(copies.values()) <= 2, f"{copies}\n{herd.log()}"
    sizes = {digest: len(IMAGE.blobs[Digest.parse(digest)]) for digest in copies}
    taken = sum(sizes[digest] * found for digest, found in copies.items())
    assert taken <= 1.02 * sum(sizes.values()), f"{copies}\n{herd.log()}"
    for node in nodes:
        assert set(copies) <= node.containerd.blobs()
    # other layers may be complete before they are asked for
    followed = sum(node.metric("speil_shared_bytes_total", role="follower") for node in nodes)
    assert followed >= LAYERS[0] * (count - 1), herd.log()


async def test_a_node_that_joins_in_the_middle_follows(herd: Herd) -> None:
    first, second, _ = herd.nodes
    async with asyncio.timeout(SECONDS_MAX), asyncio.TaskGroup() as group:
        group.create_task(herd.pull(first))
        await eventually(lambda: herd.taken(first) > 4 << 20, timeout_seconds=SECONDS_MAX, what="the layer comes")
        group.create_task(herd.pull(second))
    assert herd.copies()[herd.layer] == 1, herd.log()


async def test_the_node_that_fetches_dies_and_one_other_fetches_the_rest(herd: Herd) -> None:
    async with asyncio.timeout(SECONDS_MAX), asyncio.TaskGroup() as group:
        fetcher, others, pulls = await herd.begin(group)
        killed_at = time.monotonic()
        fetcher.containerd.process.kill()
        fetcher.speil.kill()
        assert not await pulls[id(fetcher)]
        assert all(await asyncio.gather(*(pulls[id(node)] for node in others))), herd.log()
    print("pulled in seconds after the kill:", round(time.monotonic() - killed_at, 1))
    assert herd.copies()[herd.layer] < 1.7, herd.log()
    assert sum(herd.taken(node) > 0 for node in others) == 1, herd.log()


async def test_a_containerd_that_is_killed_is_left_by_its_followers(herd: Herd) -> None:
    async with asyncio.timeout(SECONDS_MAX), asyncio.TaskGroup() as group:
        fetcher, others, pulls = await herd.begin(group)
        fetcher.containerd.process.kill()
        assert not await pulls[id(fetcher)]
        assert all(await asyncio.gather(*(pulls[id(node)] for node in others))), herd.log()
    assert herd.copies()[herd.layer] < 1.7, herd.log()
    assert sum(herd.taken(node) > 0 for node in others) == 1, herd.log()


async def test_a_pull_that_is_cancelled_moves_its_followers(herd: Herd) -> None:
    async with asyncio.timeout(SECONDS_MAX), asyncio.TaskGroup() as group:
        fetcher, others, pulls = await herd.begin(group)
        pulls[id(fetcher)].cancel()
        assert all(await asyncio.gather(*(pulls[id(node)] for node in others))), herd.log()
    assert herd.copies()[herd.layer] < 1.7, herd.log()
    assert sum(herd.taken(node) > 0 for node in others) == 1, herd.log()


async def test_a_speil_that_is_killed_costs_one_more_fetch_and_fails_no_pull(herd: Herd) -> None:
    async with asyncio.timeout(SECONDS_MAX), asyncio.TaskGroup() as group:
        fetcher, others, pulls = await herd.begin(group)
        fetcher.speil.kill()
        assert all(await asyncio.gather(*pulls.values())), herd.log()
    assert herd.copies()[herd.layer] < 2, herd.log()
    for node in (fetcher, *others):
        assert herd.layer in node.containerd.blobs()


async def test_wrong_bytes_of_the_upstream_fail_each_pull_once(herd: Herd) -> None:
    herd.upstream.corrupt = True
    async with asyncio.timeout(SECONDS_MAX):
        outcomes = await asyncio.gather(*map(herd.pull, herd.nodes), return_exceptions=True)
        assert all(isinstance(one, StoreError) for one in outcomes), herd.log()
        herd.upstream.corrupt = False
        # until it is deleted, containerd itself goes on with what it has
        await eventually(
            lambda: not any(node.containerd.ingests() for node in herd.nodes), timeout_seconds=30, what="it is deleted"
        )
        herd.upstream.sent.clear()
        await asyncio.gather(*map(herd.pull, herd.nodes))
    for node in herd.nodes:
        assert herd.layer in node.containerd.blobs()
        assert herd.taken(node) == len(IMAGE.blobs[herd.upstream.layer]), "each node fetched it by itself"
        assert not node.metric("speil_peer_bans_total")
