"""Elections on a Lease in memory and in a file: real tasks, real time, short leases."""

from __future__ import annotations

import asyncio
import io
import json
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import pytest

from speil.election.ownership import Owner
from speil.election.record import LeaderElectionRecord
from speil.lease.base import LeaseLock
from speil.lease.driver import LeaderElection, MeshView
from speil.lease.file import FileLease
from speil.lease.memory import MemoryLease
from speil.observe import logs
from speil.observe.metrics import Metrics
from speil.testing.eventually import eventually
from tests.shell.lease_region import FAST, FaultyLease, region


@pytest.fixture(params=["memory", "file"])
def lock(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[str], LeaseLock]:
    """A Lease that is there for all."""
    if request.param == "memory":
        lease = MemoryLease()
        return lambda _: lease
    return lambda _: FileLease(tmp_path / "lease")


@pytest.fixture
def lines() -> Callable[[], list[dict[str, Any]]]:
    """The log so far, as JSON objects."""
    stream = io.StringIO()
    logs.configure("DEBUG", "json", stream)
    return lambda: [json.loads(line) for line in stream.getvalue().splitlines()]


async def test_one_leads_and_when_it_stops_another_follows_at_once(lock: Callable[[str], LeaseLock]) -> None:
    async with region(lock, 3) as members:
        first = await members.led()
        await first.stop()
        lease = await lock("x").get()
        assert lease is not None
        assert lease.record.holder_identity != first.name
        second = await members.led(other_than=first.name)
        assert second.election.lease is not None
        assert second.election.lease.record.leader_transitions == 1
        assert second.election.lease.record.region == "r"
        assert second.election.lease.record.peers == ("/ip4/10.0.0.9/tcp/5001",)
    lease = await lock("x").get()
    assert lease is not None
    assert lease.record.holder_identity == "", "the last one released it"


async def test_a_leader_that_loses_the_store_is_followed_and_campaigns_again() -> None:
    lease = MemoryLease()
    faulty: dict[str, FaultyLease] = {}

    def lock(name: str) -> FaultyLease:
        return faulty.setdefault(name, FaultyLease(lease))

    async with region(lock, 3) as members:
        for fault in ("paused", "failing", "paused", "failing"):
            leader = await members.led()
            setattr(faulty[leader.name], fault, True)
            successor = await members.led(other_than=leader.name)
            assert not leader.election.leading
            setattr(faulty[leader.name], fault, False)
            await eventually(
                lambda leader=leader, successor=successor: (  # type: ignore[misc]
                    leader.election.lease and leader.election.lease.record.holder_identity == successor.name
                ),
                what="it follows",
            )


async def test_a_store_that_stalls_for_all_leaves_a_leader_each_time() -> None:
    faulty = FaultyLease(MemoryLease())
    async with region(lambda _: faulty, 3) as members:
        for _ in range(3):  # its size
            await members.led()
            faulty.paused = True
            await eventually(lambda: not any(one.election.leading for one in members.members.values()), what="all lost")
            faulty.paused = False
        await members.led()


async def test_the_lease_deleted_and_edited_by_hand() -> None:
    lease = MemoryLease()
    async with region(lambda _: lease, 3) as members:
        leader = await members.led()
        lease.document = None
        await eventually(lambda: lease.document and members.leader, what="it is written again")
        current = await lease.get()
        assert current is not None
        await lease.put(LeaderElectionRecord("garbage", 1), current)
        await eventually(lambda: not leader.election.leading or leader.metric("speil_election_transitions") > 0)
        await members.led()


async def test_the_cycle_is_in_the_log_and_in_the_metrics(lines: Callable[[], list[dict[str, Any]]]) -> None:
    faulty = FaultyLease(MemoryLease("spegel-leader-election-r", "spegel-r"))
    async with region(lambda _: faulty, 1) as members:
        leader = await members.led()
        await eventually(lambda: any(line["msg"] == "lease renewed" for line in lines()), what="it renews")
        assert leader.metric("speil_election_state", state="leader") == 1
        assert leader.metric("speil_election_state", state="follower") == 0
        assert 0 <= leader.metric("speil_election_renewal_age_seconds") < 1
        faulty.failing = True
        await eventually(lambda: not leader.election.leading, what="it loses")
        assert leader.election.failure == "connection refused"
        faulty.failing = False
        await members.led()
        assert leader.election.failure == ""
        assert leader.metric("speil_election_requests_total", verb="put", outcome="error") >= 1
        assert leader.metric("speil_election_events_total", event="lost") == 1
    cycle = [line["msg"] for line in lines() if line["component"] == "election" and line["level"] != "DEBUG"]
    assert cycle[:3] == ["election joined", "lease acquired", "new leader"]
    assert cycle[-1] == "lease released"
    assert cycle.count("lease lost") == 1
    assert cycle.count("lease request failed, trying again") == 1
    assert cycle.count("lease request succeeded again") == 1
    acquired = next(line for line in lines() if line["msg"] == "lease acquired")
    assert acquired["lease"] == "spegel-r/spegel-leader-election-r"
    assert (acquired["region"], acquired["holder"], acquired["transitions"]) == ("r", "n0", 0)


async def test_a_refusal_is_one_line_and_slow(lines: Callable[[], list[dict[str, Any]]]) -> None:
    faulty = FaultyLease(MemoryLease())
    faulty.denied = True
    async with region(lambda _: faulty, 1) as members:
        await asyncio.wait_for(members.members["n0"].election.known(), 5)
        assert members.members["n0"].election.failure == "a Role is missing"
        assert members.members["n0"].election.lease is None
    assert len([line for line in lines() if line["msg"].startswith("lease request failed")]) == 1


async def test_another_regions_lease_is_named_with_what_to_do(lines: Callable[[], list[dict[str, Any]]]) -> None:
    lease = MemoryLease()
    async with region(lambda _: lease, 1, name="west") as west:
        await west.led()
        async with region(lambda _: lease, 1, name="east") as east:
            await eventually(lambda: east.members["n0"].election.foreign, what="it sees")
            assert not east.members["n0"].election.leading
            assert east.members["n0"].metric("speil_cross_region_rejected_total", layer="lease") == 1
    error = next(line for line in lines() if line["level"] == "ERROR")
    assert "'west'" in error["detail"]
    for setting in ("--leader-election-name", "--leader-election-namespace", "--lease-file", "--region"):
        assert setting in error["what_to_do"]


async def test_cancelled_at_any_await_it_releases_or_leaves_the_lease_to_run_out() -> None:
    """The n-th call of the store is the last before the cancellation."""
    for last_call in range(1, 6):
        lease = MemoryLease()
        reached = asyncio.Event()

        class Counting(FaultyLease):
            calls = 0

            async def _suffer(self, last_call: int = last_call, reached: asyncio.Event = reached) -> None:
                Counting.calls += 1
                if Counting.calls == last_call:
                    reached.set()
                    await asyncio.Event().wait()

        election = LeaderElection(Counting(lease), FAST, Owner("r"), Metrics(), Random(1))
        async with asyncio.TaskGroup() as group:
            task = group.create_task(election.run("a", MeshView))
            await reached.wait()
            task.cancel()
        current = await lease.get()
        assert current is None or current.record.holder_identity == "", f"call {last_call}"
