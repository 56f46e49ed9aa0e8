"""Nodes that download the same content at once, with in-memory stores, real HTTP and a made-up upstream."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from random import Random

import pytest

from speil.claims.message import Phase, Reason, Status
from speil.claims.states import PullState
from speil.config import Arguments, ConfigError, build
from speil.inflight.link import link_bytes_per_second
from speil.inflight.serving import FOLLOWERS_PER_CONTENT_MAX
from speil.inflight.settings import SharingSettings
from speil.mirror.filters import compile_filter
from speil.multiformats.peer_info import PeerInfo
from speil.oci.digest import Digest
from speil.region.policy import Policy
from speil.region.proof import bound
from speil.routing.memory import MemoryMesh, MemoryRouter
from speil.routing.memory_claims import ClaimMesh, MemoryClaims
from speil.sources.peer_client import GROWING_HEADER
from speil.sources.peer_error import PeerError
from speil.store.memory_ingests import MemoryIngests
from speil.testing.eventually import eventually
from speil.testing.images import random_image
from speil.wire.connection_pool import Endpoint
from tests.shell.mirrors import Mirror, mirror
from tests.shell.runtime import PullError, Runtime, Upstream
from tests.shell.test_answer_proofs import node_headers, secret_of

SECONDS_MAX = 60.0
LAYER = Random(7).randbytes(9 << 20)  # larger than what is verified first
SMALL = Random(8).randbytes(100_000)
HALF = len(LAYER) // 2


@dataclass(slots=True)
class Region:
    """Nodes, each with a runtime; `stop` ends a node's mirror."""

    claims: ClaimMesh
    upstream: Upstream
    runtimes: list[Runtime]
    stacks: dict[int, AsyncExitStack]

    def __iter__(self):  # type: ignore[no-untyped-def]
        return iter(self.runtimes)

    def total(self, name: str, **labels: str) -> float:
        """A series of all nodes."""
        return sum(one.node.sample(name, **labels) for one in self.runtimes)

    def by_state(self, digest: Digest, *states: PullState) -> list[Runtime]:
        """The runtimes whose pull is in one of these states."""
        return [one for one in self.runtimes if state_of(one, digest) in states]

    async def stop(self, runtime: Runtime) -> None:
        """The mirror of a node ends, and is not reached any more."""
        self.claims.dead.add(runtime.node.router.local.peer_id)
        await self.stacks[id(runtime)].aclose()

    async def ended(self) -> None:
        """Until no pull is left on any node."""
        await eventually(lambda: not any(one.node.inflight.pulls.flights for one in self.runtimes), what="pulls end")


def state_of(runtime: Runtime, digest: Digest) -> PullState | None:
    """The state of a node's pull."""
    pulls = runtime.node.inflight.pulls
    flight = pulls.flight(digest)
    return pulls.state(flight) if flight else None


def offset_of(runtime: Runtime, digest: Digest) -> int:
    """Bytes that a node's runtime has."""
    found = runtime.node.ingests.find(digest)
    return found.size if found else 0


@asynccontextmanager
async def region(
    count: int, upstream: Upstream, *, zones: Sequence[str] = (), **changes: object
) -> AsyncIterator[Region]:
    """Nodes of one region; `zones` are theirs."""
    mesh = MemoryMesh()
    claims = ClaimMesh(mesh)
    async with AsyncExitStack() as all_nodes:
        runtimes, stacks = list[Runtime](), dict[int, AsyncExitStack]()
        for zone in zones or [""] * count:
            stack = await all_nodes.enter_async_context(AsyncExitStack())
            node: Mirror = await stack.enter_async_context(mirror(mesh, claims=claims, zone=zone, **changes))  # type: ignore[arg-type]
            runtimes.append(Runtime(node, upstream))
            stacks[id(runtimes[-1])] = stack
        await asyncio.sleep(0)
        yield Region(claims, upstream, runtimes, stacks)


def paced(**changes: object) -> Upstream:
    """About 50 MB/s."""
    return Upstream(piece_bytes=512 << 10, piece_seconds=0.01, **changes)  # type: ignore[arg-type]


async def all_pull(runtimes: Iterable[Runtime], digest: Digest) -> None:
    """At the same instant."""
    await asyncio.gather(*(one.pull(digest) for one in runtimes))


@pytest.fixture(autouse=True)
async def patience() -> AsyncIterator[None]:
    """Nothing here takes longer."""
    async with asyncio.timeout(SECONDS_MAX):
        yield


# --- one copy ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [2, 3, 6])
async def test_nodes_at_the_same_instant_take_one_copy(count: int) -> None:
    upstream = paced()
    digest = upstream.add(LAYER)
    async with region(count, upstream) as nodes:
        await all_pull(nodes, digest)
        assert upstream.gets[digest] == 1
        assert upstream.sent[digest] == len(LAYER)
        assert nodes.total("speil_shared_bytes_total", role="follower") == (count - 1) * len(LAYER)
        assert nodes.total("speil_shared_bytes_total", role="source") <= (count - 1) * len(LAYER)
        await nodes.ended()
        assert nodes.total("speil_shared_pulls_total", outcome="followed") == count - 1
        assert nodes.total("speil_shared_pulls_total", outcome="fetched") == 1


async def test_small_content_is_verified_and_shared() -> None:
    upstream = Upstream()
    digest = upstream.add(SMALL)
    async with region(4, upstream) as nodes:
        await all_pull(nodes, digest)
        assert upstream.gets[digest] == 1
        await nodes.ended()


async def test_a_manifest_is_fetched_once_and_taken_from_the_store_of_the_node_that_has_it() -> None:
    upstream = Upstream()
    image = random_image(3, (1000,))
    digest = upstream.add(image.blobs[image.index.digest])
    async with region(4, upstream) as nodes:
        await asyncio.gather(*(one.pull(digest, "manifests") for one in nodes))
        assert upstream.gets[digest] <= 2
        await nodes.ended()


async def test_a_slow_manifest_holds_no_request_for_long() -> None:
    upstream = Upstream()
    image = random_image(3, (1000,))
    digest = upstream.add(image.blobs[image.index.digest])
    upstream.opens.clear()
    async with region(3, upstream) as nodes, asyncio.TaskGroup() as group:
        pulls = [group.create_task(one.pull(digest, "manifests")) for one in nodes]
        await eventually(lambda: upstream.gets[digest] == 3, what="each node went upstream")
        upstream.opens.set()
        await asyncio.gather(*pulls)


async def test_an_upstream_that_is_slow_to_answer_is_asked_once() -> None:
    upstream = paced()
    digest = upstream.add(LAYER)
    upstream.opens.clear()
    async with region(3, upstream, share_wait=15.0) as nodes, asyncio.TaskGroup() as group:
        pulls = [group.create_task(one.pull(digest)) for one in nodes]
        await eventually(lambda: len(nodes.by_state(digest, PullState.JOINING)) == 2, what="two nodes wait")
        await eventually(lambda: nodes.claims.messages > 6, timeout_seconds=15, what="they ask whether it is alive")
        upstream.opens.set()
        await asyncio.gather(*pulls)
        assert upstream.gets[digest] == 1


async def test_a_node_that_joins_in_the_middle_follows() -> None:
    upstream = Upstream(holds_at=HALF)
    digest = upstream.add(LAYER)
    async with region(2, upstream) as nodes, asyncio.TaskGroup() as group:
        first, second = nodes
        pulls = [group.create_task(first.pull(digest))]
        await eventually(lambda: offset_of(first, digest) == HALF, what="half of it is there")
        pulls.append(group.create_task(second.pull(digest)))
        await eventually(lambda: offset_of(second, digest) == HALF, what="the follower has that half")
        upstream.goes_on.set()
        await asyncio.gather(*pulls)
        assert upstream.gets[digest] == 1


async def test_a_chain_of_four(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("speil.claims.umpire.places_for", lambda *facts: 1)
    upstream = paced()
    digest = upstream.add(LAYER)
    async with region(4, upstream) as nodes:
        await all_pull(nodes, digest)
        assert upstream.sent[digest] == len(LAYER)
        sent = sorted(one.node.sample("speil_shared_bytes_total", role="source") for one in nodes)
        assert sent == [0, len(LAYER), len(LAYER), len(LAYER)]


# --- who takes no part ---------------------------------------------------------------------------------------


async def test_a_lone_node_goes_upstream_at_once() -> None:
    upstream = Upstream()
    digest = upstream.add(LAYER)
    async with region(1, upstream) as nodes:
        await all_pull(nodes, digest)
        assert nodes.runtimes[0].statuses == [404]
        assert nodes.claims.messages == 0


async def test_without_share_wait_each_node_fetches_and_serves_no_follower() -> None:
    upstream = paced()
    digest = upstream.add(LAYER)
    async with region(2, upstream, share_wait=0.0) as nodes:
        await all_pull(nodes, digest)
        assert upstream.gets[digest] == 2
        assert all(one.node.built.inflight is None for one in nodes)
        assert nodes.claims.messages == 0


async def ask(node: Mirror, method: str, digest: Digest, *headers: str, kind: str = "blobs") -> int:
    """The status of a request."""
    reader, writer = await asyncio.open_connection(node.host, node.port)
    try:
        lines = (f"{method} /v2/app/{kind}/{digest}?ns=reg.test HTTP/1.1", "Host: x", *headers, "", "")
        writer.write("\r\n".join(lines).encode())
        return int((await reader.readuntil(b"\r\n\r\n")).split(b" ", 2)[1])
    finally:
        writer.close()


async def test_neither_head_nor_people_nor_peers_claim() -> None:
    async with region(2, Upstream()) as nodes:
        node = nodes.runtimes[0].node
        digest = Digest.of(LAYER)
        containerd = "User-Agent: containerd/2.4.2"
        assert await ask(node, "HEAD", digest, containerd) == 404
        assert await ask(node, "GET", digest, "User-Agent: curl/8") == 404
        assert await ask(node, "GET", digest, containerd, "X-Spegel-Mirrored: true") == 404
        assert await ask(node, "GET", digest, containerd, "X-Spegel-Mirrored: true", "X-Speil-Follow: true") == 404
        assert await ask(node, "GET", digest, containerd, "Range: bytes=0-9") == 404
        assert not node.inflight.pulls.flights
        assert nodes.claims.messages == 0


async def test_a_claim_without_a_download_is_released() -> None:
    upstream = Upstream()
    digest = upstream.add(LAYER)
    async with region(2, upstream) as nodes:
        first, second = nodes
        assert await ask(first.node, "GET", digest, "User-Agent: containerd/2.4.2") == 404
        await eventually(
            lambda: not first.node.inflight.pulls.flights, timeout_seconds=10, what="the claim is released"
        )
        await second.pull(digest)
        assert second.statuses == [404]


# --- faults --------------------------------------------------------------------------------------------------


async def halfway(
    nodes: Region, digest: Digest, group: asyncio.TaskGroup
) -> tuple[Runtime, list[Runtime], list[asyncio.Task[None]]]:
    """All nodes have the first half: the fetcher, its followers, and all pulls (the fetcher's in front)."""
    tasks = {id(one): group.create_task(one.pull(digest)) for one in nodes}
    await eventually(lambda: all(offset_of(one, digest) == HALF for one in nodes), what="half of it is everywhere")
    (fetcher,) = nodes.by_state(digest, PullState.FETCHING)
    others = [one for one in nodes if one is not fetcher]
    return fetcher, others, [tasks[id(one)] for one in (fetcher, *others)]


async def gave_up(task: asyncio.Task[None]) -> None:
    """End a pull as a runtime does that is stopped."""
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task


async def test_the_source_dies_in_mid_body_and_one_node_fetches_the_rest() -> None:
    upstream = Upstream(holds_at=HALF)
    digest = upstream.add(LAYER)
    async with region(4, upstream) as nodes, asyncio.TaskGroup() as group:
        fetcher, others, pulls = await halfway(nodes, digest, group)
        await gave_up(pulls[0])
        await nodes.stop(fetcher)
        nodes.runtimes.remove(fetcher)
        await eventually(lambda: upstream.gets[digest] == 2, what="another node fetches")
        upstream.goes_on.set()
        await asyncio.gather(*pulls[1:])
        assert upstream.gets[digest] == 2
        assert upstream.sent[digest] == len(LAYER)
        assert all(set(one.statuses) <= {200, 206, 404} for one in others)


async def test_a_pull_that_is_cancelled_at_the_source_moves_its_followers() -> None:
    upstream = Upstream(holds_at=HALF)
    digest = upstream.add(LAYER)
    async with region(3, upstream) as nodes, asyncio.TaskGroup() as group:
        fetcher, _, pulls = await halfway(nodes, digest, group)
        await gave_up(pulls[0])
        await eventually(lambda: upstream.gets[digest] == 2, what="another node fetches")
        assert state_of(fetcher, digest) is None
        upstream.goes_on.set()
        await asyncio.gather(*pulls[1:])
        assert upstream.sent[digest] == len(LAYER)


async def test_a_source_that_stands_still_is_left_by_one_node() -> None:
    """Its runtime and its mirror are frozen: nothing grows, and no question is answered."""
    upstream = Upstream(holds_at=HALF)
    digest = upstream.add(LAYER)
    async with region(4, upstream) as nodes, asyncio.TaskGroup() as group:
        fetcher, others, pulls = await halfway(nodes, digest, group)
        nodes.claims.dead.add(fetcher.node.router.local.peer_id)
        await eventually(lambda: upstream.gets[digest] >= 2, timeout_seconds=20, what="another node fetches")
        fetcher.upstream = Upstream()  # it does not come back
        upstream.goes_on.set()
        await asyncio.gather(*pulls)
        assert upstream.gets[digest] == 2
        assert sum(one.node.sample("speil_left_sources_total") for one in others) <= len(others)


@pytest.mark.parametrize("crawls", [False, True], ids=["stalls", "crawls"])
async def test_the_upstream_of_one_node_stops_and_one_other_fetches_the_rest(crawls: bool) -> None:
    upstream = Upstream(holds_at=HALF, faulty_gets=1, crawls=crawls)
    digest = upstream.add(LAYER)
    async with region(4, upstream) as nodes, asyncio.TaskGroup() as group:
        pulls = [group.create_task(one.pull(digest)) for one in nodes]
        await eventually(lambda: all(offset_of(one, digest) >= HALF for one in nodes), what="half of it is everywhere")
        (fetcher,) = nodes.by_state(digest, PullState.FETCHING)
        others = [pull for pull, one in zip(pulls, nodes, strict=True) if one is not fetcher]
        await asyncio.gather(*others)
        assert upstream.gets[digest] == 2
        upstream.goes_on.set()
        await asyncio.gather(*pulls)
        assert upstream.gets[digest] == 2
        assert nodes.total("speil_left_sources_total", reason="crawling" if crawls else "no_byte") >= 1


async def test_a_download_that_begins_again_is_left() -> None:
    upstream = Upstream(holds_at=HALF, faulty_gets=1)
    digest = upstream.add(LAYER)
    async with region(3, upstream) as nodes, asyncio.TaskGroup() as group:
        fetcher, _, pulls = await halfway(nodes, digest, group)
        await fetcher.node.ingests._ingests[0].rewind()
        await asyncio.gather(*pulls[1:])
        assert upstream.gets[digest] == 2
        pulls[0].cancel()


async def test_the_upstream_stops_and_all_wait_for_the_node_that_fetches() -> None:
    upstream = Upstream(holds_at=HALF)
    digest = upstream.add(LAYER)
    async with region(3, upstream, share_wait=15.0) as nodes, asyncio.TaskGroup() as group:
        _, _, pulls = await halfway(nodes, digest, group)
        before = nodes.claims.messages
        await eventually(lambda: nodes.claims.messages > before + 4, timeout_seconds=15, what="they ask and stay")
        upstream.goes_on.set()
        await asyncio.gather(*pulls)
        assert upstream.gets[digest] == 1


async def test_a_source_that_feeds_as_many_as_it_may_names_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("speil.inflight.serving.FOLLOWERS_PER_CONTENT_MAX", 1)
    upstream = Upstream(holds_at=HALF)
    digest = upstream.add(LAYER)
    async with region(4, upstream) as nodes, asyncio.TaskGroup() as group:
        _, _, pulls = await halfway(nodes, digest, group)
        upstream.goes_on.set()
        await asyncio.gather(*pulls)
        assert upstream.gets[digest] == 1
        refused = nodes.total("speil_refused_followers_total")
        assert refused >= 1
        assert nodes.total("speil_left_sources_total", reason="full") == refused
    assert FOLLOWERS_PER_CONTENT_MAX == 4


async def test_a_follower_that_leaves_makes_room_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("speil.wire.growing_file.CLIENT_LOOK_SECONDS", 60.0)  # it does not look for them
    monkeypatch.setattr("speil.wire.pump.PIECE_SECONDS_MAX", 60.0)
    upstream = Upstream(holds_at=HALF)
    digest = upstream.add(LAYER)
    async with region(2, upstream) as nodes, asyncio.TaskGroup() as group:
        source = nodes.runtimes[0]
        pull = group.create_task(source.pull(digest))
        await eventually(lambda: offset_of(source, digest) == HALF, what="its download stands still")
        for _ in range(3):
            async with AsyncExitStack() as stack:
                for _ in range(FOLLOWERS_PER_CONTENT_MAX):
                    assert await stack.enter_async_context(follow(source, digest)) == "200"
                assert await stack.enter_async_context(follow(source, digest)) == "503"
            await eventually(lambda: source.node.sample("speil_open_followers") == 0, what="they have left")
        upstream.goes_on.set()
        await pull


@asynccontextmanager
async def follow(source: Runtime, digest: Digest) -> AsyncIterator[str]:
    """The status of a follower's request, once it has all bytes that are there."""
    reader, writer = await asyncio.open_connection(source.node.host, source.node.port)
    try:
        head = f"GET /v2/app/blobs/{digest}?ns=reg.test HTTP/1.1\r\nHost: x\r\n"
        writer.write(f"{head}X-Spegel-Mirrored: true\r\nX-Speil-Follow: true\r\n\r\n".encode())
        status = (await reader.readuntil(b"\r\n\r\n")).decode().split(" ")[1]
        if status == "200":
            await reader.readexactly(offset_of(source, digest))
        yield status
    finally:
        writer.close()


async def test_wrong_bytes_of_the_upstream_fail_each_pull_once_and_are_not_shared_again() -> None:
    upstream = paced(corrupt=True)
    digest = upstream.add(LAYER)
    async with region(3, upstream) as nodes:
        outcomes = await asyncio.gather(*(one.pull(digest) for one in nodes), return_exceptions=True)
        assert all(isinstance(one, PullError) for one in outcomes)
        assert all(one.node.inflight.pulls.is_spoiled(digest) for one in nodes)
        upstream.corrupt = False
        for one in nodes:
            one.statuses.clear()
        before = upstream.gets[digest]
        await all_pull(nodes, digest)
        assert upstream.gets[digest] == before + 3, "each node fetches by itself"
        assert not any(one.node.sample("speil_peer_bans_total") for one in nodes)
        assert all(one.statuses == [404] for one in nodes)


async def test_wrong_bytes_of_small_content_reach_no_follower() -> None:
    upstream = Upstream(corrupt=True)
    digest = upstream.add(SMALL)
    async with region(2, upstream) as nodes:
        await asyncio.gather(*(one.pull(digest) for one in nodes), return_exceptions=True)
        assert nodes.total("speil_served_bytes_total", client="node") == 0
        assert all(one.came["mirror"] == 0 for one in nodes)


async def test_a_runtime_that_gives_up_following_leaves_nothing_behind() -> None:
    upstream = Upstream(holds_at=HALF)
    digest = upstream.add(LAYER)
    async with region(3, upstream) as nodes, asyncio.TaskGroup() as group:
        _, others, pulls = await halfway(nodes, digest, group)
        assert nodes.total("speil_open_followers") == 2
        await gave_up(pulls[1])
        await eventually(lambda: not others[0].node.inflight.pulls.flights, what="its pull is over")
        await eventually(lambda: nodes.total("speil_open_followers") == 1, what="its place is free")
        upstream.goes_on.set()
        await asyncio.gather(pulls[0], pulls[2])
        assert upstream.gets[digest] == 1


async def test_two_nodes_that_name_each_other_do_not_wait() -> None:
    upstream = Upstream(holds_at=HALF)
    digest = upstream.add(LAYER)
    async with region(2, upstream) as nodes, asyncio.TaskGroup() as group:
        fetcher, (follower,), pulls = await halfway(nodes, digest, group)
        flight = follower.node.inflight.pulls.flight(digest)
        assert flight is not None
        me = follower.node.inflight.pulls._asker._tag
        actions = follower.node.inflight.pulls._asker.source_said(
            flight.key,
            fetcher.node.router.local.peer_id,
            Status(Phase.FOLLOWING, 5, (me,)),
            asyncio.get_running_loop().time(),
        )
        follower.node.inflight.pulls._carry_out(actions)
        assert follower.node.sample("speil_left_sources_total", reason=Reason.LOOP.name.lower()) == 1
        await eventually(lambda: state_of(follower, digest) is not PullState.RECEIVING or flight.source, what="it asks")
        upstream.goes_on.set()
        await asyncio.gather(*pulls)


# --- the border ------------------------------------------------------------------------------------------------


async def test_followers_prove_themselves_and_strangers_get_nothing(tmp_path: Path) -> None:
    secret = secret_of(tmp_path / "secret", "the secret of the region")
    upstream = Upstream(holds_at=HALF)
    digest = upstream.add(LAYER)
    token = next(iter(node_headers(secret).values()))
    policy = Policy("a", unsaid=False)
    async with region(2, upstream, policy=policy, secret=secret) as nodes, asyncio.TaskGroup() as group:
        for one in nodes:
            one.headers = f"X-Speil-Node-Token: {token}\r\n"
        fetcher, _, pulls = await halfway(nodes, digest, group)
        follows = ("X-Spegel-Mirrored: true", "X-Speil-Follow: true")
        for headers in (follows, (*follows, "X-Speil-Region: a"), (*follows, "X-Speil-Region: b")):
            assert await ask(fetcher.node, "GET", digest, *headers) == 404
        assert fetcher.node.sample("speil_cross_region_rejected_total") == 3
        upstream.goes_on.set()
        await asyncio.gather(*pulls)
        assert upstream.gets[digest] == 1
        assert fetcher.node.sample("speil_shared_bytes_total", role="source") == len(LAYER)


async def test_a_growing_answer_says_so_under_its_proof_and_only_to_followers() -> None:
    upstream = Upstream(holds_at=HALF)
    digest = upstream.add(LAYER)
    async with region(1, upstream) as nodes, asyncio.TaskGroup() as group:
        (fetcher,) = nodes
        pull = group.create_task(fetcher.pull(digest))
        await eventually(lambda: offset_of(fetcher, digest) == HALF, what="half of it is there")
        client = fetcher.node.built.client
        endpoint = Endpoint(fetcher.node.host, fetcher.node.port)
        target = f"/v2/app/blobs/{digest}?ns=reg.test"
        with pytest.raises(PeerError, match="does not have it"):
            await client.request("GET", endpoint, fetcher.node.router.local.peer_id, target)
        response = await client.request("GET", endpoint, fetcher.node.router.local.peer_id, target, follows=True)
        assert response.headers[GROWING_HEADER.lower()] == "true"
        assert GROWING_HEADER.lower() in bound(response.headers.items())
        assert response.left == len(LAYER)
        response.close()
        upstream.goes_on.set()
        await pull


# --- what operators see ----------------------------------------------------------------------------------------


async def test_transfers_are_listed_with_their_progress() -> None:
    upstream = Upstream(holds_at=HALF)
    digest = upstream.add(LAYER)
    async with region(2, upstream) as nodes, asyncio.TaskGroup() as group:
        fetcher, (follower,), pulls = await halfway(nodes, digest, group)
        rows = fetcher.node.inflight.transfers()
        assert {row["role"] for row in rows} == {"fetching", "serving"}
        await eventually(
            lambda: all(row["offset"] == HALF for row in fetcher.node.inflight.transfers()), what="progress is shown"
        )
        (row,) = follower.node.inflight.transfers()
        assert row["role"] == "following"
        assert row["peer"] == str(fetcher.node.router.local.peer_id)
        assert row["total"] == len(LAYER)
        upstream.goes_on.set()
        await asyncio.gather(*pulls)


# --- settings and limits -------------------------------------------------------------------------------------


@pytest.mark.parametrize(("text", "seconds"), [("3s", 3.0), ("0", 0.0), ("0s", 0.0), ("200ms", 0.2), ("15s", 15.0)])
def test_a_share_wait_is_a_duration(text: str, seconds: float) -> None:
    settings = build(SharingSettings, Arguments({"share_wait": [text]}), {})
    assert settings.share_wait == seconds
    assert build(SharingSettings, Arguments(), {"SHARE_WAIT": text}).share_wait == seconds


@pytest.mark.parametrize("text", ["100ms", "1m", "-1s", "3", "soon"])
def test_a_wrong_share_wait_is_refused_with_what_would_be_right(text: str) -> None:
    with pytest.raises(ConfigError, match=r"--share-wait: .*(such as|to 15s)"):
        build(SharingSettings, Arguments({"share_wait": [text]}), {})


def test_the_link_is_that_of_the_fastest_physical_interface(tmp_path: Path) -> None:
    assert link_bytes_per_second(tmp_path / "nothing") == 0
    for name, speed, is_physical in (("eth0", "1000\n", True), ("eth1", "-1\n", True), ("veth1", "10000\n", False)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "speed").write_text(speed)
        if is_physical:
            (tmp_path / name / "device").mkdir()
    (tmp_path / "eth2" / "device").mkdir(parents=True)
    assert link_bytes_per_second(tmp_path) == 125_000_000


async def test_where_ingests_can_not_be_read_nothing_is_claimed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(MemoryIngests, "is_readable", False)
    upstream = paced()
    digest = upstream.add(LAYER)
    async with region(2, upstream) as nodes:
        await all_pull(nodes, digest)
        assert upstream.gets[digest] == 2
        assert nodes.claims.messages == 0


async def test_content_of_a_repository_that_may_be_shared_is_followed_with_filters() -> None:
    upstream = paced()
    digest = upstream.add(LAYER)
    private = upstream.add(LAYER[::-1])
    async with region(2, upstream, registry_filters=(compile_filter("^reg.test/secret/"),)) as nodes:
        await all_pull(nodes, digest)
        assert upstream.gets[digest] == 1
        await asyncio.gather(*(one.pull(private, image="secret/app") for one in nodes))
        assert upstream.gets[private] == 2
        assert nodes.total("speil_shared_bytes_total", role="source") == len(LAYER)


def fails(*args: object) -> None:
    raise RuntimeError("a bug")


async def test_a_bug_of_ours_costs_copies_and_no_pull(monkeypatch: pytest.MonkeyPatch) -> None:
    upstream = Upstream(holds_at=HALF)
    digest = upstream.add(LAYER)
    async with region(3, upstream) as nodes, asyncio.TaskGroup() as group:
        _, others, pulls = await halfway(nodes, digest, group)

        for one in others:
            monkeypatch.setattr(one.node.inflight.pulls._asker, "tick", fails)
            one.node.inflight.pulls._changed.set()
        await eventually(lambda: upstream.gets[digest] == 3, what="all go upstream")
        upstream.goes_on.set()
        await asyncio.gather(*pulls)
        assert nodes.total("speil_shared_pulls_total", outcome="failed") == 2


async def test_a_bug_while_all_shared_pulls_are_ended_costs_no_node(monkeypatch: pytest.MonkeyPatch) -> None:
    upstream = Upstream(holds_at=HALF)
    digest = upstream.add(LAYER)
    async with region(3, upstream) as nodes, asyncio.TaskGroup() as group:
        _, others, pulls = await halfway(nodes, digest, group)

        for one in others:
            sharing = one.node.inflight.pulls
            flight = sharing.flight(digest)
            assert flight is not None
            assert flight.request is not None
            assert flight.request.feed is not None
            monkeypatch.setattr(type(flight.request.feed), "interrupt", fails)
            monkeypatch.setattr(sharing._asker, "tick", fails)
            sharing._changed.set()
        await eventually(lambda: nodes.total("speil_shared_pulls_total", outcome="failed") == 2, what="all are ended")
        monkeypatch.undo()
        upstream.goes_on.set()
        await asyncio.gather(*pulls)
        again = upstream.add(LAYER[1:])
        await all_pull(nodes, again)
        assert upstream.gets[again] == 1, "the nodes share on"


async def test_a_bug_in_what_watches_ingests_costs_no_node(monkeypatch: pytest.MonkeyPatch) -> None:
    upstream = Upstream()
    async with region(2, upstream) as nodes:
        for one in nodes:
            monkeypatch.setattr(one.node.inflight.downloads, "_ended", lambda *args: 1 / 0)
            monkeypatch.setattr(one.node.inflight.downloads, "_settle", lambda *args: 1 / 0)
        await all_pull(nodes, upstream.add(LAYER))
        await nodes.ended()
        assert nodes.total("speil_shared_pulls_total", outcome="failed")
        monkeypatch.undo()
        digest = upstream.add(LAYER[1:])
        await all_pull(nodes, digest)
        assert upstream.gets[digest] == 1, "the nodes share on"
        await nodes.ended()


async def test_ranges_that_resume_a_download_are_followed() -> None:
    upstream = Upstream(holds_at=HALF)
    digest = upstream.add(LAYER)
    async with region(2, upstream) as nodes, asyncio.TaskGroup() as group:
        first, second = nodes
        pull = group.create_task(first.pull(digest))
        await eventually(lambda: offset_of(first, digest) == HALF, what="half of it is there")
        reader, writer = await asyncio.open_connection(second.node.host, second.node.port)
        lines = (
            f"GET /v2/app/blobs/{digest}?ns=reg.test HTTP/1.1",
            "Host: x",
            "User-Agent: containerd/1",
            "Range: bytes=1000-",
        )
        writer.write("\r\n".join((*lines, "", "")).encode())
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        assert head.startswith("HTTP/1.1 206")
        assert f"Content-Range: bytes 1000-{len(LAYER) - 1}/{len(LAYER)}" in head
        upstream.goes_on.set()
        assert await reader.readexactly(len(LAYER) - 1000) == LAYER[1000:]
        writer.close()
        await pull
        assert upstream.gets[digest] == 1


@pytest.mark.parametrize("more", [-1, 1, 100 << 20])
async def test_a_source_that_states_another_size_than_the_runtime_expects_fails_no_pull(
    more: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    upstream = Upstream(holds_at=HALF)
    digest = upstream.add(LAYER)
    async with region(2, upstream) as nodes, asyncio.TaskGroup() as group:
        source, follower = nodes
        begin = source.node.ingests.begin
        monkeypatch.setattr(source.node.ingests, "begin", lambda digest, total: begin(digest, total + more))
        pulls = [group.create_task(source.pull(digest))]
        await eventually(lambda: offset_of(source, digest) == HALF, what="the source is halfway")
        pulls.append(group.create_task(follower.pull(digest)))
        await eventually(lambda: upstream.gets[digest] == 2, what="the follower fetches by itself")
        upstream.goes_on.set()
        await asyncio.gather(*pulls)
        assert follower.statuses == [404]


async def test_a_suspect_that_the_umpire_names_is_not_asked_by_the_search_that_follows(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Nobody else has the content, and the upstream was not tried: its bytes must not be passed on."""
    monkeypatch.setattr(MemoryClaims, "nobody_has", lambda self, key: True)
    upstream = Upstream()
    digest = upstream.add(LAYER)
    async with asyncio.timeout(SECONDS_MAX), region(2, upstream) as found:
        suspect, asker = found.runtimes
        await suspect.pull(digest)
        await found.ended()
        await suspect.node.router.provide([str(digest)])
        trust = asker.node.known.trust
        trust.doubt([suspect.node.router.local.peer_id], asyncio.get_running_loop().time())
        await asker.pull(digest)
        assert asker.came == {"upstream": len(LAYER)}
        assert upstream.gets[digest] == 2
        await found.ended()


async def test_a_holder_that_is_found_after_a_suspect_was_named_is_trusted_as_any_other(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def searched(self: MemoryRouter, key: str, *, timeout_seconds: float) -> AsyncIterator[PeerInfo]:
        for runtime in (suspect, good):
            yield runtime.node.router.local

    upstream = Upstream()
    digest = upstream.add(LAYER)
    async with asyncio.timeout(SECONDS_MAX), region(3, upstream) as found:
        suspect, good, asker = found.runtimes
        for runtime in (suspect, good):
            await runtime.pull(digest)
            await found.ended()
            await runtime.node.router.provide([str(digest)])
        named = [suspect.node.router.local]
        monkeypatch.setattr(MemoryClaims, "nobody_has", lambda self, key: True)
        monkeypatch.setattr(ClaimMesh, "holders", lambda self, key: named)
        monkeypatch.setattr(MemoryRouter, "known_providers", lambda self, key: [])
        monkeypatch.setattr(MemoryRouter, "find_providers", searched)
        trust, peer_id = asker.node.known.trust, good.node.router.local.peer_id
        trust.doubt([named[0].peer_id], asyncio.get_running_loop().time())
        assert not trust.is_proven(peer_id)
        await asker.pull(digest)
        assert asker.came == {"mirror": len(LAYER)}
        assert upstream.gets[digest] == 1
        await eventually(lambda: trust.is_proven(peer_id), what="its bytes were right")
        await found.ended()
