"""Real pulls: three nodes, each with a real containerd, pull through speil as the kubelet makes them."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable

import pytest

from speil.oci.image_builder import BuiltImage
from speil.testing.eventually import eventually
from speil.testing.images import random_image
from tests.system.conftest import Lab
from tests.system.lab.node import REGISTRY, Node

pytestmark = pytest.mark.system
LAYERS = (3_000_000, 700_000, 40_000, 500)


def wanted(image: BuiltImage) -> set[str]:
    """What a pull for amd64 takes: index, manifest, config and layers."""
    blobs = {str(digest) for digest in image.blobs}
    arm64 = image.manifests["arm64"].digest
    only_arm64 = {str(arm64)} | {str(digest) for digest in image.blobs if str(digest) in image.blobs[arm64].decode()}
    shared = {digest for digest in only_arm64 if digest in image.blobs[image.manifests["amd64"].digest].decode()}
    return blobs - (only_arm64 - shared)


async def announced(node: Node, others: list[Node], digests: set[str]) -> None:
    """Until the other nodes have provider records that answer for all of `digests`."""

    def found(other: Node, digest: str) -> Callable[[], bool]:
        def check() -> bool:
            kind = "manifests" if other.get(f"http://127.0.0.1:5000/v2/a/blobs/{digest}")[0] == 404 else "blobs"
            return other.get(f"http://127.0.0.1:5000/v2/a/{kind}/{digest}")[0] == 200

        return check

    for other in others:
        for digest in digests:
            await eventually(found(other, digest), timeout_seconds=20, what=f"{digest} of {node.namespace.address}")


async def test_after_the_first_node_no_blob_leaves_the_upstream_again(lab: Lab) -> None:
    image = random_image(1, LAYERS)
    lab.registry.push(image, "lab/app", "1")
    first, *others = lab.nodes
    await first.pull("lab/app:1")
    taken = lab.registry.gets()
    assert set(taken) == wanted(image), "the first node takes all of its platform from upstream"
    assert set(taken.values()) == {1}
    assert wanted(image) <= first.containerd.blobs()

    await announced(first, others, wanted(image))
    lab.registry.forget()
    await asyncio.gather(*(node.pull("lab/app:1") for node in others))
    assert not lab.registry.gets(), "the others find everything at a peer"
    for node in others:
        assert wanted(image) <= node.containerd.blobs()
        assert node.metric("speil_served_bytes_total", source="peer", client="node") > sum(LAYERS)
        assert node.metric("spegel_mirror_requests_total", registry=REGISTRY, cache="hit") >= len(wanted(image))


async def test_a_pull_by_digest_goes_through_peers_too(lab: Lab) -> None:
    image = random_image(2, LAYERS)
    lab.registry.push(image, "lab/by-digest", "1")
    first, *others = lab.nodes
    await first.pull(f"lab/by-digest@{image.index.digest}")
    await announced(first, others, wanted(image))
    lab.registry.forget()
    await others[0].pull(f"lab/by-digest@{image.index.digest}")
    assert not lab.registry.gets()


async def test_a_deleted_image_is_not_served_and_the_pull_succeeds(lab: Lab) -> None:
    image = random_image(3, LAYERS)
    lab.registry.push(image, "lab/deleted", "1")
    first, second, _ = lab.nodes
    await first.pull("lab/deleted:1")
    await announced(first, [second], wanted(image))
    await first.containerd.remove(f"{REGISTRY}/lab/deleted:1")
    await eventually(
        lambda: not wanted(image) & first.containerd.blobs(), timeout_seconds=30, what="containerd collects the blobs"
    )
    lab.registry.forget()
    await second.pull("lab/deleted:1")
    assert set(lab.registry.gets()) == wanted(image), "the records were stale: everything came from upstream"


async def test_with_speil_killed_pulls_go_upstream(lab: Lab) -> None:
    image = random_image(4, LAYERS)
    lab.registry.push(image, "lab/killed", "1")
    node = lab.nodes[0]
    node.speil.kill()
    await node.pull("lab/killed:1")
    assert set(lab.registry.gets()) == wanted(image)


async def test_a_dead_peer_does_not_fail_a_pull(lab: Lab) -> None:
    image = random_image(5, LAYERS)
    lab.registry.push(image, "lab/dead", "1")
    first, second, _ = lab.nodes
    await first.pull("lab/dead:1")
    await announced(first, [second], wanted(image))
    first.namespace.set_link(up=False)
    await second.pull("lab/dead:1")
    assert wanted(image) <= second.containerd.blobs()


async def test_speil_waits_for_containerd_and_recovers_from_its_restart(lab: Lab) -> None:
    first, second, _ = lab.nodes
    image = random_image(6, LAYERS)
    lab.registry.push(image, "lab/restart", "1")
    first.containerd.process.kill()
    await eventually(lambda: first.metric("speil_store_available") == 0, what="speil sees that containerd is away")
    assert first.ready(), "a containerd that is away makes no node unready"
    await first.containerd.start()
    await eventually(lambda: first.metric("speil_store_available") == 1, timeout_seconds=30, what="speil is back")
    await first.pull("lab/restart:1")
    await announced(first, [second], wanted(image))
    log = first.speil.log_text()
    assert log.count("containerd is away: waiting") == 1
    assert log.count("containerd is back") == 1
    assert "Traceback" not in log


async def test_speil_starts_before_its_containerd(lab: Lab) -> None:
    node = lab.nodes[2]
    assert node.speil.stop() == 0, "SIGTERM ends a node well"
    node.containerd.process.kill()
    node.containerd.socket.unlink(missing_ok=True)
    await node.start_speil()
    await eventually(lambda: "containerd is away" in node.speil.log_text(), what="it says that it waits")
    await node.containerd.start()
    await eventually(lambda: node.metric("speil_store_available") == 1, timeout_seconds=30, what="it found containerd")


async def test_a_frozen_peer_costs_a_bounded_wait(lab: Lab) -> None:
    image = random_image(7, LAYERS)
    lab.registry.push(image, "lab/frozen", "1")
    first, second, _ = lab.nodes
    await first.pull("lab/frozen:1")
    await announced(first, [second], wanted(image))
    first.speil.signal(signal.SIGSTOP)
    try:
        async with asyncio.timeout(60):
            await second.pull("lab/frozen:1")
    finally:
        first.speil.signal(signal.SIGCONT)
    assert wanted(image) <= second.containerd.blobs()
