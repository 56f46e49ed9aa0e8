"""Nodes that follow a download: CRI pulls of real containerds, through each way in which the download can end."""

from __future__ import annotations

import asyncio
import itertools
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest

from speil.observe.metrics import Metrics
from speil.oci.selection import Selection
from speil.sources.growing import Growing
from speil.store.base import StoreError
from speil.store.build import build_ingests
from speil.store.containerd.store import ContainerdStore
from speil.store.ingest_directory import IngestDirectory
from speil.store.ingests import STALL_SECONDS_MAX, IngestEvent, IngestEventKind
from speil.store.series import StoreSeries
from speil.store.sharing import Sharing
from speil.testing.eventually import eventually
from speil.testing.images import random_image
from speil.wire.turns import Wire
from tests.conftest import need
from tests.requirements import tool_path
from tests.system.lab.containerd import Containerd, ContainerdVersion
from tests.system.lab.doors import GrowingDoor, Upstream, door
from tests.system.lab.namespaces import Namespace, namespaces
from tests.system.lab.node import REGISTRY

pytestmark = pytest.mark.system

LAYER_BYTES = 24_000_000
BYTES_PER_SECOND = 12_000_000
IMAGE = random_image(41, (LAYER_BYTES, 1_000))
NAME = f"{REGISTRY}/lab/app:1"
SECONDS_MAX = 90.0


class FollowedNode:
    """A containerd, and the door to what it downloads."""

    def __init__(self, containerd: Containerd, namespace: Namespace, upstream: Upstream) -> None:
        self.containerd, self.namespace, self.upstream = containerd, namespace, upstream
        self.store = ContainerdStore(str(containerd.socket), "k8s.io", "", Metrics().of(StoreSeries))
        self.ingests: IngestDirectory = build_ingests(self.store)
        self.stall_seconds = STALL_SECONDS_MAX
        sharing = Sharing(self.store, Selection(is_open=True))
        growing = Growing(self.ingests, sharing, stall_seconds=lambda _: self.stall_seconds)
        self.wire = Wire()
        self.door = GrowingDoor(growing, self.wire)
        self.url = ""
        self.ended: list[IngestEvent] = []
        self.ended_at = 0.0  # the last of them

    @asynccontextmanager
    async def running(self) -> AsyncIterator[FollowedNode]:
        """Start it."""
        await self.containerd.start()
        async with asyncio.TaskGroup() as group, door(self.namespace, self.door.answer) as self.url:
            tasks = [group.create_task(self.store.run())]
            await self.store.wait_available()
            tasks += [group.create_task(self.ingests.run()), group.create_task(self._listen())]
            yield self
            for task in tasks:
                task.cancel()
        self.wire.close()

    def configure(self, *hosts: str) -> None:
        """hosts.toml: these in turn."""
        folder = self.containerd.certs / REGISTRY
        folder.mkdir(exist_ok=True)
        blocks = [f'[host."{host}"]\ncapabilities = ["pull", "resolve"]\n' for host in hosts]
        (folder / "hosts.toml").write_text(f'server = "{hosts[-1]}"\n' + "".join(blocks))

    async def pull(self) -> None:
        """Pull as the kubelet does. Raises StoreError."""
        await self.containerd.pull(NAME)

    @property
    def layer_size(self) -> int:
        """Bytes of the layer that its runtime has."""
        found = self.ingests.find(self.upstream.layer)
        return found.size if found else 0

    @property
    def has_layer(self) -> bool:
        return str(self.upstream.layer) in self.containerd.blobs()

    async def end(self) -> IngestEvent:
        """The news of the first end of its download."""
        await eventually(lambda: self.ended, timeout_seconds=SECONDS_MAX, what="the end is news")
        return self.ended[0]

    async def _listen(self) -> None:
        async for event in self.ingests.events():
            if event.kind is IngestEventKind.ENDED and event.digest == self.upstream.layer:
                self.ended.append(event)
                self.ended_at = time.monotonic()


@pytest.fixture
async def nodes(version: ContainerdVersion) -> AsyncIterator[list[FollowedNode]]:
    """Three nodes; each follows the one before it, the first one has the upstream alone."""
    need("namespaces")
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="speil-lab-")))
        hub, spaces = stack.enter_context(namespaces(3))
        upstream = Upstream(IMAGE, BYTES_PER_SECOND)
        url = await stack.enter_async_context(door(hub, upstream.answer))
        found: list[FollowedNode] = []
        for number, space in enumerate(spaces):
            containerd = Containerd(version, space, folder / f"n{number}")
            stack.callback(containerd.close)
            node = FollowedNode(containerd, space, upstream)
            await stack.enter_async_context(node.running())
            node.configure(*([found[-1].url] if found else []), url)
            found.append(node)
        yield found


async def growing(node: FollowedNode) -> None:
    """Until the layer grows on a node."""
    await eventually(lambda: node.layer_size > 1 << 20, timeout_seconds=SECONDS_MAX, what="the layer grows")


async def followed(node: FollowedNode) -> None:
    """Until bytes of the node's download went to a follower."""
    await eventually(lambda: node.door.sent > 1 << 20, timeout_seconds=SECONDS_MAX, what="it is followed")


def taken(node: FollowedNode) -> int:
    """What the upstream sent it of the layer."""
    return node.upstream.sent_of_layer(node.namespace.address)


async def pulled_right(node: FollowedNode) -> None:
    """The layer is in its store, with its bytes."""
    with await node.store.open(node.upstream.layer) as content:
        assert content.peek(content.size) == IMAGE.blobs[node.upstream.layer]


async def test_a_chain_takes_one_copy_and_is_done_together(nodes: list[FollowedNode]) -> None:
    first, second, third = nodes
    async with asyncio.timeout(SECONDS_MAX), asyncio.TaskGroup() as group:
        pulls = [group.create_task(first.pull())]
        await growing(first)
        pulls.append(group.create_task(second.pull()))
        await growing(second)
        pulls.append(group.create_task(third.pull()))
    size = len(IMAGE.blobs[first.upstream.layer])
    assert [taken(node) for node in nodes] == [size, 0, 0], "one copy left the upstream"
    assert first.door.sent == second.door.sent == size
    assert not first.door.broke_off
    for node in nodes:
        await pulled_right(node)
        assert [event.end for event in node.ended] == ["committed"]
    lags = [after.ended_at - before.ended_at for before, after in itertools.pairwise(nodes)]
    print("committed after the node that it follows, in ms:", [round(lag * 1000, 1) for lag in lags])


async def test_a_containerd_that_fetches_in_parts_follows_in_one_stream(nodes: list[FollowedNode]) -> None:
    if nodes[0].containerd.version.major == 1:
        pytest.skip("containerd 1.6 has no parts")
    first, second, _ = nodes
    second.containerd.close()
    need("containerd-2")
    version = ContainerdVersion("containerd 2, multipart", str(tool_path("containerd")), 2, multipart=True)
    parts = Containerd(version, second.namespace, second.containerd.directory.parent / "parts")
    parts.certs.rmdir()
    upstream = (first.containerd.certs / REGISTRY / "hosts.toml").read_text().split('"')[1]
    (parts.certs / REGISTRY).mkdir(parents=True)
    (parts.certs / REGISTRY / "hosts.toml").write_text(
        f'server = "{upstream}"\n[host."{first.url}"]\ncapabilities = ["pull", "resolve"]\n'
    )
    await parts.start()
    try:
        async with asyncio.timeout(SECONDS_MAX), asyncio.TaskGroup() as group:
            group.create_task(first.pull())
            await growing(first)
            await parts.pull(NAME)
        assert str(first.upstream.layer) in parts.blobs()
        assert [
            asked.range_header for asked in first.door.followed if asked.reference == str(first.upstream.layer)
        ] == ["bytes=0-"]
        assert taken(second) == 0
    finally:
        parts.close()


async def test_a_pull_that_is_cancelled_hands_its_follower_to_the_upstream(nodes: list[FollowedNode]) -> None:
    first, second, _ = nodes
    async with asyncio.timeout(SECONDS_MAX), asyncio.TaskGroup() as group:
        pulling = group.create_task(first.pull())
        await growing(first)
        following = group.create_task(second.pull())
        await followed(first)
        pulling.cancel()
        await following
    await pulled_right(second)
    # containerd deletes it within 0.3 s, on a loaded machine later than a follower waits
    assert first.door.broke_off[0] in ("the ingest is gone", "it did not grow for 3 s")
    assert 0 < taken(second) < LAYER_BYTES, "it went on at the byte where it was"
    assert not any(event.is_suspect for event in first.ended)


async def test_an_upstream_that_resets_fails_one_pull_alone(nodes: list[FollowedNode]) -> None:
    first, second, _ = nodes
    first.upstream.reset_at = LAYER_BYTES // 2
    async with asyncio.timeout(SECONDS_MAX), asyncio.TaskGroup() as group:
        pulling = group.create_task(_fails(first))
        await growing(first)
        following = group.create_task(second.pull())
        await followed(first)
        await pulling
        await following
    await pulled_right(second)
    assert 0 < taken(second) < LAYER_BYTES


async def test_a_containerd_that_is_killed_costs_its_follower_three_seconds(nodes: list[FollowedNode]) -> None:
    first, second, _ = nodes
    async with asyncio.timeout(SECONDS_MAX), asyncio.TaskGroup() as group:
        pulling = group.create_task(_fails(first))
        await growing(first)
        following = group.create_task(second.pull())
        await followed(first)
        first.containerd.process.kill()
        await pulling
        await following
    await pulled_right(second)
    assert first.door.broke_off == ["it did not grow for 3 s"]
    assert 0 < taken(second) < LAYER_BYTES


async def test_a_containerd_that_resumes_is_followed_on(nodes: list[FollowedNode]) -> None:
    first, second, _ = nodes
    first.stall_seconds = SECONDS_MAX  # however long the restart takes
    async with asyncio.timeout(SECONDS_MAX), asyncio.TaskGroup() as group:
        pulling = group.create_task(_fails(first))
        await growing(first)
        following = group.create_task(second.pull())
        await followed(first)
        first.containerd.process.kill()
        await pulling
        await first.containerd.start()
        await first.pull()
        await following
    for node in (first, second):
        await pulled_right(node)
    assert taken(second) == 0
    assert not first.door.broke_off
    assert taken(first) < 2 * LAYER_BYTES, "it resumed"


async def test_an_upstream_that_stalls_costs_the_follower_three_seconds(nodes: list[FollowedNode]) -> None:
    first, second, _ = nodes
    first.upstream.stall_at = LAYER_BYTES // 2
    async with asyncio.timeout(SECONDS_MAX), asyncio.TaskGroup() as group:
        pulling = group.create_task(first.pull())
        await growing(first)
        following = group.create_task(second.pull())
        await eventually(lambda: first.door.broke_off, timeout_seconds=SECONDS_MAX, what="it breaks off")
        assert first.door.broke_off == ["it did not grow for 3 s"]
        await following
        first.upstream.goes_on.set()
        await pulling
    for node in (first, second):
        await pulled_right(node)
    assert 0 < taken(second) < LAYER_BYTES


async def test_wrong_bytes_fail_the_pulls_they_would_have_failed_and_are_news(nodes: list[FollowedNode]) -> None:
    first, second, third = nodes
    first.upstream.corrupt = True
    async with asyncio.timeout(SECONDS_MAX), asyncio.TaskGroup() as group:
        pulls = [group.create_task(_fails(first))]
        await growing(first)
        pulls.append(group.create_task(_fails(second)))
        for pull in pulls:
            await pull
    for node in (first, second):
        assert (await node.end()).is_suspect
    first.upstream.corrupt = False
    await third.pull()
    for node in (first, second):
        await node.pull()
        await pulled_right(node)


async def _fails(node: FollowedNode) -> None:
    with pytest.raises(StoreError):
        await node.pull()
