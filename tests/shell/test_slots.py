"""Nodes whose containerd waits for a slot before each request: nobody waits for a download that can't begin."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable
from random import Random
from typing import Any

import pytest

from speil.claims.asker import SHARE_WAIT_SECONDS
from speil.claims.states import PullState
from speil.http1.message import Headers
from speil.inflight import pulls
from speil.inflight.flight import Flight
from speil.mirror.asked import frees_slot
from speil.multiformats.peer_id import PeerId
from speil.oci.digest import Digest
from speil.testing.eventually import eventually
from tests.shell.runtime import Runtime, Upstream
from tests.shell.test_inflight import region

LAYERS, LAYER_BYTES = 12, 300_000


async def pull_all(runtimes: Iterable[Runtime], digests: list[Digest], rng: Random) -> None:
    """Every node pulls all layers at once, each in an order of its own, with three slots."""

    async def pull(runtime: Runtime) -> None:
        runtime.slots = asyncio.Semaphore(3)
        order = rng.sample(digests, len(digests))
        async with asyncio.TaskGroup() as group:
            for digest in order:
                group.create_task(runtime.pull(digest))

    async with asyncio.TaskGroup() as group:
        for runtime in runtimes:
            group.create_task(pull(runtime))


def source_of(runtime: Runtime, digest: Digest) -> PeerId | None:
    """Whom a node follows."""
    flight = runtime.node.inflight.pulls.flight(digest)
    return flight.source.peer_id if flight and flight.source else None


@pytest.mark.parametrize(("nodes", "seed"), [(1, 1), (2, 2), (4, 3), (4, 4), (6, 5)])
async def test_layers_in_any_order_leave_the_upstream_once(nodes: int, seed: int) -> None:
    rng = Random(seed)
    upstream = Upstream(piece_bytes=100_000, piece_seconds=0.1)
    digests = [upstream.add(rng.randbytes(LAYER_BYTES)) for _ in range(LAYERS)]
    async with asyncio.timeout(60), region(nodes, upstream) as found:
        started = time.monotonic()
        await pull_all(found, digests, rng)
        seconds = time.monotonic() - started
        assert dict(upstream.gets) == dict.fromkeys(digests, 1), f"in {seconds:.1f} s"
        assert found.total("speil_left_sources_total") == 0, "nobody waited in vain"
        assert (found.total("speil_stepped_aside_total") > 0) == (nodes > 1)
        await found.ended()
    assert seconds < SHARE_WAIT_SECONDS * 4


async def test_followers_of_a_node_that_steps_aside_get_another_source_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("speil.claims.umpire.places_for", lambda *facts: 1)  # a chain
    upstream = Upstream()
    digest = upstream.add(Random(9).randbytes(9 << 20))
    upstream.opens.clear()
    async with asyncio.timeout(60), region(3, upstream) as found, asyncio.TaskGroup() as group:
        for runtime in found:
            runtime.slots = asyncio.Semaphore(1)
            group.create_task(runtime.pull(digest))
        await eventually(lambda: len(found.by_state(digest, PullState.JOINING)) == 2, what="two nodes follow")
        sources = {runtime: source_of(runtime, digest) for runtime in found.by_state(digest, PullState.JOINING)}
        last, middle = next(
            (one, other)
            for one in sources
            for other in sources
            if sources[one] == other.node.router.local.peer_id
        )  # fmt: skip
        assert middle.slots is not None
        flight = middle.node.inflight.pulls.flight(digest)
        assert flight is not None
        slot = group.create_task(middle.slots.acquire())  # the next in line: its request is not back for long
        await asyncio.sleep(0)
        middle.node.inflight.pulls._step_aside(flight)
        started = time.monotonic()
        await eventually(lambda: source_of(last, digest) == sources[middle], what="it follows the node that downloads")
        assert time.monotonic() - started < SHARE_WAIT_SECONDS
        assert last.node.sample("speil_left_sources_total", reason="gone") == 1
        upstream.opens.set()
        await eventually(lambda: last.came["mirror"] == len(upstream.blobs[digest]), what="it has the content")
        await slot
        middle.slots.release()
    assert upstream.gets[digest] == 1
    assert not middle.came["upstream"]


async def test_a_node_at_its_limit_of_pulls_keeps_no_new_request(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pulls, "PULLS_MAX", 2)
    kept: list[int] = []
    begin = pulls.Pulls.begin

    def count(self: pulls.Pulls, *args: Any, **kwargs: Any) -> Flight | None:
        flight = begin(self, *args, **kwargs)
        kept.append(len(self.flights))
        return flight

    monkeypatch.setattr(pulls.Pulls, "begin", count)
    rng, upstream = Random(6), Upstream(piece_bytes=100_000, piece_seconds=0.1)
    digests = [upstream.add(rng.randbytes(LAYER_BYTES)) for _ in range(LAYERS)]
    async with asyncio.timeout(60), region(4, upstream) as found:
        await pull_all(found, digests, rng)
        assert max(kept) == 2
        assert found.total("speil_shared_pulls_total", outcome="alone", why="limit") > 0
        await found.ended()


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
