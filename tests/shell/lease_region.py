"""Electors on one Lease in real time, ten times as fast as usual, and a Lease that can be made to fail."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from random import Random

from speil.border.series import BorderSeries
from speil.election.config import ElectionConfig
from speil.election.ownership import Owner
from speil.election.record import LeaderElectionRecord, Lease
from speil.lease.base import LeaseDeniedError, LeaseError, LeaseLock
from speil.lease.driver import LeaderElection, MeshView
from speil.observe.metrics import Metrics
from speil.region.policy import Layer
from speil.testing.eventually import eventually
from speil.testing.samples import sample

FAST = ElectionConfig(lease_duration_seconds=1, renew_deadline_seconds=0.6, retry_period_seconds=0.2)


class FaultyLease:
    """A lock whose requests hang, fail or are refused while the flag is set."""

    def __init__(self, lock: LeaseLock) -> None:
        self._lock = lock
        self.paused, self.failing, self.denied = False, False, False

    def __str__(self) -> str:
        return str(self._lock)

    async def get(self) -> Lease | None:
        await self._suffer()
        return await self._lock.get()

    async def put(self, record: LeaderElectionRecord, base: Lease | None) -> Lease:
        await self._suffer()
        return await self._lock.put(record, base)

    async def close(self) -> None:
        await self._lock.close()

    async def _suffer(self) -> None:
        if self.denied:
            raise LeaseDeniedError("a Role is missing")
        if self.failing:
            raise LeaseError("connection refused")
        if self.paused:
            await asyncio.Event().wait()


@dataclass
class Member:
    """A node's election and its task."""

    name: str
    election: LeaderElection
    metrics: Metrics
    task: asyncio.Task[None] = field(init=False)

    def metric(self, name: str, **labels: str) -> float:
        """The value of one of its series; 0 while there is none."""
        return sample(self.metrics, name, **labels)

    async def stop(self) -> None:
        """As SIGTERM."""
        self.task.cancel()
        await asyncio.wait([self.task])


@dataclass
class Region:
    """Its members, by name."""

    members: dict[str, Member]
    start: Callable[[str], Member]

    @property
    def leader(self) -> Member | None:
        """The one member that leads and stands in its own view of the Lease."""
        leaders = [member for member in self.members.values() if member.election.leading]
        return leaders[0] if len(leaders) == 1 else None

    async def led(self, *, timeout_seconds: float = 10, other_than: str = "") -> Member:
        """Wait for a leader."""

        def led() -> Member | None:
            leader = self.leader
            return leader if leader and leader.name != other_than else None

        member: Member = await eventually(led, timeout_seconds=timeout_seconds, what="somebody leads")
        return member


@asynccontextmanager
async def region(
    lock: Callable[[str], LeaseLock], size: int, config: ElectionConfig = FAST, name: str = "r"
) -> AsyncIterator[Region]:
    """Running electors; `lock` gives each its way to the Lease."""
    members: dict[str, Member] = {}
    async with asyncio.TaskGroup() as group:

        def start(member_name: str) -> Member:
            metrics = Metrics()
            border = metrics.of(BorderSeries)
            election = LeaderElection(
                lock(member_name),
                config,
                Owner(name),
                metrics,
                Random(member_name),
                partial(border.rejected, Layer.LEASE),
            )
            member = members[member_name] = Member(member_name, election, metrics)
            view = MeshView(size, ("/ip4/10.0.0.9/tcp/5001",))
            member.task = group.create_task(election.run(member_name, lambda: view))
            return member

        for number in range(size):
            start(f"n{number}")
        yield Region(members, start)
        for member in members.values():
            member.task.cancel()
