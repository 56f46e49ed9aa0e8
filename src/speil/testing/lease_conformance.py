"""The conformance suite of LeaseLock. A test class derives from it and implements `lease`."""

from __future__ import annotations

import asyncio
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, Protocol

import pytest

from speil.election.record import LeaderElectionRecord, Lease
from speil.lease.base import LeaseConflictError, LeaseLock
from speil.testing.eventually import eventually

WHOLE_SECOND = datetime(2026, 1, 1, 12, 0, 0, tzinfo=UTC)  # without microseconds, which formatters leave out by mistake
RECORD = LeaderElectionRecord("/ip4/10.0.0.1/tcp/5001/p2p/a", 10, WHOLE_SECOND, WHOLE_SECOND, 0, "r")


class Hand(Protocol):
    """Changes the Lease without its version, as kubectl can."""

    async def delete(self) -> None:
        """Delete the Lease."""

    async def annotate(self, key: str, value: str) -> None:
        """Set an annotation of the Lease."""

    async def document(self) -> dict[str, Any]:
        """The Lease's JSON."""


@dataclass(frozen=True, slots=True)
class LeaseFixture:
    """Several locks on one Lease, as of several nodes, and a way to edit it."""

    locks: list[LeaseLock]
    hand: Hand


class LeaseConformance:
    """Derive, and implement `lease`."""

    age_resolution_seconds = 0.02  # the resolution of ages in this store

    def lease(self, locks: int) -> AbstractAsyncContextManager[LeaseFixture]:
        """A Lease that does not exist yet, and so many locks on it."""
        raise NotImplementedError

    async def test_none_is_there_until_one_is_written_and_all_read_what_was_written(self) -> None:
        async with self.lease(2) as fixture:
            one, other = fixture.locks
            assert await one.get() is None
            written = await one.put(RECORD, None)
            assert written.record == RECORD
            assert (await self._get(other)).record == RECORD
            assert (await self._get(other)).version == written.version

    async def test_a_record_comes_back_whole(self) -> None:
        async with self.lease(1) as fixture:
            (lock,) = fixture.locks
            moment = datetime(2026, 5, 6, 7, 8, 9, 1, tzinfo=UTC)
            peers = ("/ip4/10.0.0.1/tcp/5001/p2p/a", "/ip6/fd00::1/tcp/5001/p2p/b")
            record = LeaderElectionRecord("x" * 4000, 60, WHOLE_SECOND, moment, 2**31 - 1, "", 5000, peers)
            assert (await lock.put(record, None)).record == record
            assert (await self._get(lock)).record == record

    async def test_a_write_on_what_was_read_succeeds_and_one_on_an_older_version_changes_nothing(self) -> None:
        async with self.lease(2) as fixture:
            one, other = fixture.locks
            first = await one.put(RECORD, None)
            second = await other.put(replace(RECORD, holder_identity="b"), first)
            assert second.version != first.version
            with pytest.raises(LeaseConflictError):
                await one.put(replace(RECORD, holder_identity="a"), first)
            assert (await self._get(one)).record.holder_identity == "b"

    async def test_the_answer_of_a_write_is_the_base_of_the_next(self) -> None:
        async with self.lease(1) as fixture:
            (lock,) = fixture.locks
            lease: Lease | None = None
            for transitions in range(5):
                lease = await lock.put(replace(RECORD, leader_transitions=transitions), lease)
            assert (await self._get(lock)).record.leader_transitions == 4

    async def test_of_many_that_create_one_succeeds(self) -> None:
        async with self.lease(8) as fixture:
            outcomes = await self._race(fixture.locks, None)
            assert outcomes.count(True) == 1

    async def test_of_many_that_write_on_one_version_one_succeeds(self) -> None:
        async with self.lease(8) as fixture:
            base = await fixture.locks[0].put(RECORD, None)
            outcomes = await self._race(fixture.locks, base)
            assert outcomes.count(True) == 1

    async def test_creating_what_is_there_conflicts(self) -> None:
        async with self.lease(2) as fixture:
            one, other = fixture.locks
            await one.put(RECORD, None)
            with pytest.raises(LeaseConflictError):
                await other.put(RECORD, None)

    async def test_a_lease_that_was_deleted_is_created_again_by_a_write_on_its_last_version(self) -> None:
        async with self.lease(1) as fixture:
            (lock,) = fixture.locks
            base = await lock.put(RECORD, None)
            await fixture.hand.delete()
            assert await lock.get() is None
            again = await lock.put(RECORD, base)
            assert again.record == RECORD
            assert again.version != base.version

    async def test_a_version_of_a_deleted_lease_does_not_fit_its_successor(self) -> None:
        async with self.lease(2) as fixture:
            one, other = fixture.locks
            base = await one.put(RECORD, None)
            await fixture.hand.delete()
            await other.put(RECORD, None)
            with pytest.raises(LeaseConflictError):
                await one.put(RECORD, base)

    async def test_what_others_wrote_into_it_survives(self) -> None:
        async with self.lease(1) as fixture:
            (lock,) = fixture.locks
            await lock.put(RECORD, None)
            await fixture.hand.annotate("example.org/note", "kept")
            await lock.put(replace(RECORD, nodes=3), await self._get(lock))
            annotations = (await fixture.hand.document())["metadata"]["annotations"]
            assert annotations["example.org/note"] == "kept"
            assert annotations["speil.dev/nodes"] == "3"

    async def test_a_released_lease_is_read_without_a_holder(self) -> None:
        async with self.lease(1) as fixture:
            (lock,) = fixture.locks
            base = await lock.put(RECORD, None)
            await lock.put(replace(RECORD, holder_identity="", lease_duration_seconds=1), base)
            assert (await self._get(lock)).record.holder_identity == ""

    async def test_the_age_counts_from_the_last_write_whatever_the_leaders_clock_says(self) -> None:
        wrong = replace(RECORD, renew_time=datetime(2001, 1, 1, tzinfo=UTC))
        async with self.lease(1) as fixture:
            (lock,) = fixture.locks
            base = await lock.put(wrong, None)

            async def aged() -> bool:
                age = (await self._get(lock)).age_seconds
                assert age is not None
                assert 0 <= age < 60
                return age >= 2 * self.age_resolution_seconds

            await eventually(aged, what="it ages")

            async def young() -> bool:
                nonlocal base
                base = await lock.put(replace(wrong, leader_transitions=1), base)
                age = (await self._get(lock)).age_seconds
                return age is not None and age <= self.age_resolution_seconds

            await eventually(young, what="a write makes it young")

    async def _get(self, lock: LeaseLock) -> Lease:
        lease = await lock.get()
        assert lease is not None
        return lease

    async def _race(self, locks: list[LeaseLock], base: Lease | None) -> list[bool]:
        async def put(lock: LeaseLock, number: int) -> bool:
            try:
                await lock.put(replace(RECORD, holder_identity=f"n{number}"), base)
            except LeaseConflictError:
                return False
            return True

        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(put(lock, number)) for number, lock in enumerate(locks)]
        return [task.result() for task in tasks]
