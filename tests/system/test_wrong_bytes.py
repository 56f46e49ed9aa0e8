"""A node of the mesh whose disk lies: what a real containerd makes of it."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from speil.oci.image_builder import BuiltImage
from speil.store.base import StoreError
from speil.testing.eventually import eventually
from speil.testing.images import random_image
from tests.shell.nodes import write_layout
from tests.system.conftest import Lab
from tests.system.lab.node import REGISTRY
from tests.system.lab.processes import LabProcess

pytestmark = pytest.mark.system
LARGE = random_image(41, (6_000_000, 300_000))
SMALL = random_image(42, (2_000_000, 300_000))


@asynccontextmanager
async def liar(lab: Lab, directory: Path, image: BuiltImage, name: str) -> AsyncIterator[str]:
    """The first node serves the image from a directory, where each bit of its largest layer is flipped."""
    node, largest = lab.nodes[0], max(image.blobs, key=lambda digest: len(image.blobs[digest]))
    node.speil.stop()
    await write_layout(directory, image, f"{REGISTRY}/{name}")
    file = directory / "blobs" / "sha256" / largest.hex
    file.chmod(0o644)
    file.write_bytes(bytes(byte ^ 255 for byte in image.blobs[largest]))
    argv = [
        sys.executable, "-m", "speil", "registry", "--log-format=text", "--store-kind=oci-layout",
        f"--oci-layout-path={directory}", "--bootstrap-kind=static",
        f"--static-bootstrap-peers=/ip4/{lab.nodes[1].namespace.address}/tcp/5001",
    ]  # fmt: skip
    process = LabProcess(node.namespace, argv, directory / "speil.log")
    process.start()
    try:
        await eventually(
            lambda: lab.nodes[1].metric("speil_provider_records") >= len(image.blobs) + 1,
            timeout_seconds=60,
            what="it is the provider of everything",
        )
        yield str(largest)
    finally:
        process.stop()


async def test_wrong_bytes_of_a_small_blob_never_reach_containerd(lab: Lab, tmp_path: Path) -> None:
    lab.registry.push(SMALL, "lab/small", "1")
    puller = lab.nodes[1]
    async with liar(lab, tmp_path, SMALL, "lab/small:1") as layer:
        await puller.pull("lab/small:1")
        assert layer in puller.containerd.blobs()
        assert lab.registry.gets()[layer] == 1, "it came from upstream"
        assert puller.metric("speil_peer_bans_total") == 1
        assert "a peer sent wrong bytes: banned" in puller.speil.log_text()


async def test_wrong_bytes_of_a_large_blob_fail_one_pull_and_not_two(lab: Lab, tmp_path: Path) -> None:
    lab.registry.push(LARGE, "lab/large", "1")
    puller = lab.nodes[1]
    async with liar(lab, tmp_path, LARGE, "lab/large:1") as layer:
        with pytest.raises(StoreError, match=r"digest|verification"):
            await puller.pull("lab/large:1")
        # before its collector has run, containerd commits what it has once more, and asks nobody
        await eventually(lambda: not puller.containerd.ingests(), what="the wrong bytes are gone")
        await puller.pull("lab/large:1")
        assert layer in puller.containerd.blobs()
        assert lab.registry.gets()[layer] == 1
        assert "its senders are suspect" in puller.speil.log_text()
