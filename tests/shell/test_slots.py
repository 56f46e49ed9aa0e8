"""Nodes whose containerd waits for a slot before each request: nobody waits for a download that can't begin."""

from __future__ import annotations

import asyncio
import math
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass
from random import Random
from typing import Any

import pytest

from speil.claims.asker import SHARE_WAIT_SECONDS
from speil.claims.states import PullState
from speil.http1.message import Headers
from speil.inflight import pulls
from speil.inflight.flight import Flight, key_of
from speil.inflight.held import HeldRequest
from speil.inflight.slots import ASIDES_KEPT_MAX, ASIDES_KEPT_SECONDS, SLOTS, Slots
from speil.mirror.asked import frees_slot
from speil.multiformats.peer_id import PeerId
from speil.multiformats.peer_info import PeerInfo
from speil.oci.digest import Digest
from speil.oci.endpoint import Content
from speil.routing.memory import MemoryRouter
from speil.routing.memory_claims import MemoryClaims
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


@dataclass(frozen=True)
class Row:
    """A request that follows since 10.0, and when it steps aside (None: it stays)."""

    expected: float | None
    times_aside: int = 0
    granted_at: float | None = None  # a download that has not begun
    aside_at: float = -math.inf
    others: int = 0  # requests of the same node
    total: int = 1000
    frees_slot: bool = True
    has_bytes: bool = False
    downloads: int = 0  # that run
    has_begun: bool = False


@pytest.mark.parametrize(
    "row",
    [
        Row(None),
        Row(10.0, granted_at=1.0),
        Row(10.2, granted_at=9.0, aside_at=8.0, times_aside=1),
        Row(None, granted_at=7.0, aside_at=8.0, times_aside=1),  # it is before the request in line
        Row(None, granted_at=9.0, aside_at=8.0, times_aside=2),
        Row(None, granted_at=1.0, has_begun=True),
        Row(None, others=SLOTS - 2),
        Row(10.3, others=SLOTS - 1),
        Row(11.0, others=SLOTS + 5, times_aside=1),
        Row(None, others=SLOTS + 5, times_aside=2),
        Row(10.0, granted_at=1.0, others=SLOTS),
        Row(None, granted_at=1.0, others=SLOTS, total=0),  # no head can be made
        Row(None, granted_at=1.0, others=SLOTS, frees_slot=False),  # containerd up to 2.0
        Row(None, granted_at=1.0, others=SLOTS, has_bytes=True),
        Row(10.3, downloads=SLOTS - 1),
        Row(None, downloads=SLOTS - 2),
    ],
)
def test_when_a_request_steps_aside(row: Row) -> None:
    flight = flight_of(1, row.total)
    flight.frees_slot, flight.times_aside, flight.aside_at, flight.joined_at = (
        row.frees_slot, row.times_aside, row.aside_at, 10.0,
    )  # fmt: skip
    downloads = [flight_of(number, 1000) for number in range(50, row.downloads + 50)]
    for one in downloads:
        one.granted_at, one.request = 1.0, None
    flights = [flight, *downloads, *(flight_of(number, 0) for number in range(2, row.others + 2))]
    granted = flight_of(99, 1000)
    if row.granted_at is not None:
        granted.granted_at, granted.request = row.granted_at, None
        flights.append(granted)
    slots = Slots(
        lambda one: PullState.FETCHING if one in (granted, *downloads) else PullState.JOINING,
        lambda one: int(one in downloads or (one is granted and row.has_begun) or (one is flight and row.has_bytes)),
    )
    assert slots.due(flights) == ([] if row.expected is None else [(row.expected, flight)])


def flight_of(number: int, total: int) -> Flight:
    """A pull whose request is held."""
    digest = Digest.of(str(number).encode())
    content = Content("blobs", "reg.test", "app", digest)
    return Flight(key_of(digest), content, digest, 0.0, 0.0, request=HeldRequest(), total=total)


def test_asides_count_also_where_the_flight_has_ended_until_the_content_is_there_or_given_up() -> None:
    slots = Slots(lambda one: PullState.JOINING, lambda one: 0)
    first, second = flight_of(1, 1000), flight_of(1, 1000)
    slots.steps_aside(first, 5.0)
    second.times_aside = slots.asides(second.key, 100.0)
    slots.steps_aside(second, 100.0)
    assert slots.asides(first.key, 200.0) == 2
    assert slots.asides(first.key, 100.0 + ASIDES_KEPT_SECONDS) == 0
    slots.forget(first.key)
    assert slots.asides(first.key, 200.0) == 0
    for number in range(ASIDES_KEPT_MAX + 5):
        slots.steps_aside(flight_of(number, 1000), 300.0)
    assert len(slots._asides) == ASIDES_KEPT_MAX


async def test_a_line_longer_than_a_dead_runtime_is_silent_fails_no_pull(monkeypatch: pytest.MonkeyPatch) -> None:
    quiet_seconds = 3.0  # both cores may be busy for a second
    monkeypatch.setattr("speil.inflight.downloads.QUIET_SECONDS_MAX", quiet_seconds)
    upstream = Upstream(piece_bytes=20_000, piece_seconds=0.1)
    rng = Random(8)
    digests = [upstream.add(rng.randbytes(100_000)) for _ in range(60)]
    async with asyncio.timeout(60), region(2, upstream) as found:
        started = time.monotonic()
        await pull_all(found, digests, rng)
        assert time.monotonic() - started > quiet_seconds + 1.0, "the line is longer"
        assert dict(upstream.gets) == dict.fromkeys(digests, 1)
        assert found.total("speil_shared_pulls_total", outcome="cancelled") == 0
        await found.ended()


async def test_one_node_may_fetch_all_layers_and_the_others_want_them_in_another_order() -> None:
    upstream = Upstream(piece_bytes=100_000, piece_seconds=0.2)
    rng = Random(12)
    digests = [upstream.add(rng.randbytes(LAYER_BYTES)) for _ in range(24)]
    async with asyncio.timeout(60), region(4, upstream) as found, asyncio.TaskGroup() as group:
        first, *others = found
        first.slots = asyncio.Semaphore(3)
        for digest in digests:
            group.create_task(first.pull(digest))
        fetched = "speil_shared_pulls_total"
        await eventually(
            lambda: first.node.sample(fetched, outcome="fetched") == len(digests), what="it is to fetch all of them"
        )
        for other in others:
            other.slots = asyncio.Semaphore(3)
            for digest in reversed(digests):
                group.create_task(other.pull(digest))
    assert dict(upstream.gets) == dict.fromkeys(digests, 1)


async def test_more_layers_than_all_slots_leave_the_upstream_once() -> None:
    rng, upstream = Random(5), Upstream(piece_bytes=20_000, piece_seconds=0.02)
    digests = [upstream.add(rng.randbytes(40_000)) for _ in range(60)]
    async with asyncio.timeout(60), region(4, upstream) as found:
        await pull_all(found, digests, rng)
        assert dict(upstream.gets) == dict.fromkeys(digests, 1)
        assert found.total("speil_left_sources_total", reason="no_byte") == 0
        await found.ended()


@pytest.mark.parametrize("is_small", [True, False], ids=["small", "large"])
async def test_who_searches_for_peers(monkeypatch: pytest.MonkeyPatch, *, is_small: bool) -> None:
    """In a small region who is to fetch; in a large one each node once, and who is to fetch when it is back."""
    searches = Counter[tuple[PeerId, str]]()
    find = MemoryRouter.find_providers

    def count(self: MemoryRouter, key: str, *, timeout_seconds: float) -> AsyncIterator[PeerInfo]:
        searches[self.local.peer_id, key] += 1
        return find(self, key, timeout_seconds=timeout_seconds)

    monkeypatch.setattr(MemoryRouter, "find_providers", count)
    if not is_small:
        monkeypatch.setattr(MemoryClaims, "nobody_has", lambda self, key: False)
    rng, upstream = Random(3), Upstream(piece_bytes=100_000, piece_seconds=0.1)
    digests = [upstream.add(rng.randbytes(LAYER_BYTES)) for _ in range(LAYERS)]
    async with asyncio.timeout(60), region(2, upstream) as found:
        await pull_all(found, digests, rng)
        assert found.total("speil_stepped_aside_total") > 0
        keys = Counter(key for _, key in searches)
        assert set(keys.values()) == ({1} if is_small else {2}), "the nodes that search for each layer"
        assert searches.total() - len(searches) <= LAYERS, "no request that is back, but of a node that is to fetch"
        hits, misses = (found.total("spegel_mirror_requests_total", cache=cache) for cache in ("hit", "miss"))
        assert (hits, misses) == (LAYERS, LAYERS), "also those that are back"
        await found.ended()


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
