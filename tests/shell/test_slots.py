"""Nodes whose containerd waits for a slot before each request: nobody waits for a download that can't begin."""

from __future__ import annotations

import asyncio
import time
from random import Random

import pytest

from speil.claims.asker import SHARE_WAIT_SECONDS
from speil.http1.message import Headers
from speil.mirror.asked import frees_slot
from tests.shell.runtime import Runtime, Upstream
from tests.shell.test_inflight import region

LAYERS, LAYER_BYTES = 12, 300_000


@pytest.mark.parametrize(("nodes", "seed"), [(1, 1), (2, 2), (4, 3), (4, 4), (6, 5)])
async def test_layers_in_any_order_leave_the_upstream_once(nodes: int, seed: int) -> None:
    rng = Random(seed)
    upstream = Upstream(piece_bytes=100_000, piece_seconds=0.1)
    digests = [upstream.add(rng.randbytes(LAYER_BYTES)) for _ in range(LAYERS)]

    async def pull_all(runtime: Runtime) -> None:
        runtime.slots = asyncio.Semaphore(3)
        order = rng.sample(digests, LAYERS)
        async with asyncio.TaskGroup() as group:
            for digest in order:
                group.create_task(runtime.pull(digest))

    async with asyncio.timeout(60), region(nodes, upstream) as found:
        started = time.monotonic()
        async with asyncio.TaskGroup() as group:
            for runtime in found:
                group.create_task(pull_all(runtime))
        seconds = time.monotonic() - started
        assert dict(upstream.gets) == dict.fromkeys(digests, 1), f"in {seconds:.1f} s"
        assert found.total("speil_left_sources_total") == 0, "nobody waited in vain"
        assert (found.total("speil_stepped_aside_total") > 0) == (nodes > 1)
        await found.ended()
    assert seconds < SHARE_WAIT_SECONDS * 4


@pytest.mark.parametrize(
    ("agent", "expected"),
    [
        ("containerd/2.1.0", True),
        ("containerd/2.4.2+unknown", True),
        ("containerd/v2.2.1-k3s1", True),
        ("containerd/3.0.0", True),
        ("containerd/2.0.5", False),
        ("containerd/1.6.20~ds1", False),
        ("containerd/", False),
        ("containerd/git", False),
        ("curl/8.1", False),
        ("", False),
    ],
)
def test_containerds_that_wait_for_a_slot_before_each_request(agent: str, expected: bool) -> None:
    assert frees_slot(Headers([(b"user-agent", agent.encode())])) is expected
