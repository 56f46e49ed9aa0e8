"""containerd itself reads what `speil configuration` wrote, and what `speil cleanup` brought back."""

from __future__ import annotations

import pytest

from speil.host_config.tree import restore
from speil.testing.images import random_image
from tests.system.conftest import Lab
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
    (hosts,) = node.containerd.certs.rglob("hosts.toml")
    text = f"server = '{lab.registry.url}'\n\n[host]\n"
    assert hosts.read_text() == text, "what the lab changed in speil's file (where the registry is) is the operator's"
    other = random_image(21, LAYERS)
    lab.registry.push(other, "lab/hosts", "2")
    await node.pull("lab/hosts:2")
    assert node.metric("http_request_duration_seconds_count", handler="/v2/*") == asked
