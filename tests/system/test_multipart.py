"""A containerd that fetches layers in parts: it gets one stream, which it repairs after a break."""

from __future__ import annotations

import pytest

from speil.testing.images import random_image
from tests.conftest import need
from tests.requirements import tool_path
from tests.system.conftest import Lab
from tests.system.lab.containerd import ContainerdVersion
from tests.system.test_pulls import announced, wanted

pytestmark = pytest.mark.system


@pytest.fixture
def version() -> ContainerdVersion:
    """containerd 2 with 8 MiB parts."""
    need("containerd-2")
    return ContainerdVersion("containerd 2, multipart", str(tool_path("containerd")), 2, multipart=True)


async def test_layers_from_peers_come_in_one_stream_each(lab: Lab) -> None:
    image = random_image(8, (30_000_000, 20_000_000, 40_000))
    lab.registry.push(image, "lab/parts", "1")
    first, second, _ = lab.nodes
    await first.pull("lab/parts:1")
    largest = str(max(image.blobs, key=lambda digest: len(image.blobs[digest])))
    assert lab.registry.gets()[largest] > 1, "from the upstream it takes parts"
    await announced(first, [second], wanted(image))
    lab.registry.forget()
    before = second.metric("http_request_duration_seconds_count", method="GET", code="200", handler="/v2/*")
    await second.pull("lab/parts:1")
    assert not lab.registry.gets()
    assert wanted(image) <= second.containerd.blobs()
    after = second.metric("http_request_duration_seconds_count", method="GET", code="200", handler="/v2/*")
    assert after - before == len(wanted(image)), "one request for each"
    for code in ("206", "499"):
        assert second.metric("http_request_duration_seconds_count", code=code) == 0
