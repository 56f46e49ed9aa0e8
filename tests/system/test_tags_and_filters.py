"""What a node may say of its images, against real containerds: tags that moved, filters, removals in a row."""

from __future__ import annotations

import asyncio
import subprocess
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from speil.testing.eventually import eventually
from speil.testing.images import random_image
from tests.conftest import need
from tests.system.conftest import Lab
from tests.system.lab.containerd import ContainerdVersion
from tests.system.lab.namespaces import namespaces
from tests.system.lab.node import REGISTRY, Node
from tests.system.lab.registry import Registry
from tests.system.test_pulls import announced, wanted

pytestmark = pytest.mark.system
LAYERS = (50_000, 3_000)


@asynccontextmanager
async def two_nodes(
    version: ContainerdVersion, *, first: tuple[str, ...] = (), second: tuple[str, ...] = (), discard: bool = False
) -> AsyncIterator[tuple[Registry, Node, Node]]:
    """Two nodes with flags of their own; `discard`: the first one's containerd drops layers once they are unpacked."""
    need("namespaces")
    need("registry")
    with tempfile.TemporaryDirectory(prefix="speil-lab-") as folder, namespaces(2) as (hub, spaces):
        registry = Registry(hub, Path(folder) / "registry")
        seed = f"--static-bootstrap-peers=/ip4/{spaces[0].address}/tcp/5001"
        flags = ("--log-format=text", "--bootstrap-kind=static", seed)
        nodes = [
            Node(space, version, Path(folder) / f"n{number}", *flags, *own)
            for number, (space, own) in enumerate(zip(spaces, (first, second), strict=True))
        ]
        try:
            await registry.start()
            if discard:
                file = nodes[0].containerd.config_file
                file.write_text(
                    file.read_text().replace("discard_unpacked_layers = false", "discard_unpacked_layers = true")
                )
            for node in nodes:
                await node.start(registry.url)
            yield registry, nodes[0], nodes[1]
        finally:
            for node in nodes:
                node.close()
            registry.close()


def ctr(node: Node, *argv: str) -> None:
    subprocess.run(
        ["ip", "netns", "exec", node.namespace.name, "ctr", "-a", str(node.containerd.socket), "-n", "k8s.io", *argv],
        check=True, capture_output=True, timeout=120,
    )  # fmt: skip


async def test_a_moved_tag_is_pulled_though_a_node_holds_the_old_one_s_manifests(version: ContainerdVersion) -> None:
    async with two_nodes(version, discard=True) as (registry, first, second):
        old, new = random_image(50, LAYERS), random_image(51, LAYERS)
        registry.push(old, "lab/moving", "1")
        await first.pull("lab/moving:1")
        tag = f"http://127.0.0.1:5000/v2/lab/moving/manifests/1?ns={REGISTRY}"
        await eventually(
            lambda: first.get(tag)[0] == 404, what="the layers are discarded, the tag is no longer answered"
        )
        registry.remove(old)
        registry.push(new, "lab/moving", "1")
        await second.pull("lab/moving:1")
        assert wanted(new) <= second.containerd.blobs()


async def test_a_node_of_another_architecture_is_not_sent_to_a_tag_it_can_not_use(version: ContainerdVersion) -> None:
    async with two_nodes(version, second=("--node-platforms=linux/arm64",)) as (registry, first, second):
        old, new = random_image(52, LAYERS), random_image(53, LAYERS)
        registry.push(old, "lab/moving", "1")
        await first.pull("lab/moving:1")
        await announced(first, [second], {str(old.index.digest)})
        registry.remove(old)
        registry.push(new, "lab/moving", "1")
        certs = str(second.containerd.certs)
        image = f"{REGISTRY}/lab/moving:1"
        ctr(second, "content", "fetch", "--hosts-dir", certs, "--platform", "linux/arm64", image)
        assert str(new.manifests["arm64"].digest) in second.containerd.blobs()
        assert second.metric("speil_tag_answers_total", outcome="not_whole") >= 1


@pytest.mark.parametrize(
    "flag",
    [
        "--registry-filters=^reg[.]test/private/",
        r"--registry-filters=/private/\pL+$",
        "--mirrored-registries=https://docker.io",
    ],
)
async def test_what_is_kept_back_is_neither_announced_nor_served(version: ContainerdVersion, flag: str) -> None:
    async with two_nodes(version, first=(flag,)) as (registry, first, second):
        image = random_image(54, LAYERS)
        registry.push(image, "private/app", "1")
        await first.pull("private/app:1")
        await eventually(lambda: first.metric("speil_store_events_total", kind="image_added") >= 1, what="its news")
        looks = first.metric("speil_store_looks_total")
        await first.containerd.remove(f"{REGISTRY}/private/app:1")
        await eventually(lambda: first.metric("speil_store_looks_total") > looks, what="a look behind the news")
        await first.pull("private/app:1")
        assert first.metric("speil_provided_keys") == 0
        for digest in wanted(image) & first.containerd.blobs():
            for kind in ("blobs", "manifests"):
                path = f"http://127.0.0.1:5000/v2/library/x/{kind}/{digest}"
                for node, query in ((first, ""), (first, "?ns=docker.io"), (second, "?ns=docker.io")):
                    assert node.get(path + query)[0] == 404


async def test_names_removed_in_a_row_cost_one_look_and_hold_up_no_pull(lab: Lab) -> None:
    first, second, _ = lab.nodes
    image, other = random_image(55, LAYERS), random_image(56, LAYERS)
    lab.registry.push(image, "lab/app", "1")
    lab.registry.push(other, "lab/other", "1")
    await first.pull("lab/app:1")
    names = [f"{REGISTRY}/lab/app:x{number}" for number in range(120)]
    ctr(first, "images", "tag", f"{REGISTRY}/lab/app:1", *names)
    await eventually(lambda: first.metric("speil_provided_keys") >= len(names), what="the names are announced")
    looks = first.metric("speil_store_looks_total", reason="removed")
    remove = asyncio.get_running_loop().run_in_executor(None, ctr, first, "images", "rm", *names)
    await first.pull("lab/other:1")
    started = time.monotonic()
    await announced(first, [second], {str(other.index.digest)})
    assert time.monotonic() - started < 5, "a pull is announced meanwhile"
    await remove
    await eventually(lambda: first.metric("speil_provided_keys") < len(names), what="the names are withdrawn")
    await eventually(lambda: first.metric("speil_store_looks_total", reason="removed") > looks, what="the look")
    assert first.metric("speil_store_looks_total", reason="removed") - looks <= 3


async def test_a_containerd_that_comes_and_goes_is_announced_again(lab: Lab) -> None:
    first, second, _ = lab.nodes
    for number in (57, 58, 59):
        image = random_image(number, LAYERS)
        lab.registry.push(image, f"lab/app{number}", "1")
        await first.pull(f"lab/app{number}:1")
        await announced(first, [second], {str(image.index.digest)})
        first.containerd.process.kill()
        await eventually(lambda: first.metric("speil_store_available") == 0, what="speil sees that it is away")
        first.containerd.socket.unlink(missing_ok=True)
        await first.containerd.start()
        await eventually(lambda: first.metric("speil_store_available") == 1, what="speil sees that it is back")
    assert first.speil.log_text().count("containerd is away: waiting for it") == 3, "once for each outage"
    assert first.speil.log_text().count("containerd is back") == 3
