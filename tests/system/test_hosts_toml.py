"""containerd itself reads what `speil configuration` wrote, and what `speil cleanup` brought back."""

from __future__ import annotations

import pytest

from speil.host_config.tree import restore
from speil.testing.images import random_image
from tests.system.conftest import Lab
from tests.system.lab.node import REGISTRY
from tests.system.test_pulls import LAYERS, wanted

pytestmark = pytest.mark.system


async def test_containerd_asks_the_mirror_that_was_written_and_not_after_cleanup(lab: Lab) -> None:
    node = lab.nodes[0]
    image = random_image(20, LAYERS)
    lab.registry.push(image, "lab/hosts", "1")
    await node.pull("lab/hosts:1")
    asked = node.metric("http_request_duration_seconds_count", handler="/v2/*")
    assert asked >= len(wanted(image)), "each object was asked of the mirror first"

    assert restore(node.containerd.certs)
    assert not list(node.containerd.certs.iterdir()), "the directory is as it was: empty"
    hosts = node.containerd.certs / REGISTRY
    hosts.mkdir()
    (hosts / "hosts.toml").write_text(f'server = "{lab.registry.url}"\n\n[host."{lab.registry.url}"]\n')
    other = random_image(21, LAYERS)
    lab.registry.push(other, "lab/hosts", "2")
    await node.pull("lab/hosts:2")
    assert node.metric("http_request_duration_seconds_count", handler="/v2/*") == asked
