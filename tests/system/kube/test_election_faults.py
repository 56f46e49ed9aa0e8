"""Elections on a real API server while the API, the Lease and the credentials become unavailable and available again.

Leases of three seconds: what takes Spegel's ten works the same, and the tests take a third of the time.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from random import Random

import pytest

from speil.election.config import ElectionConfig
from speil.election.ownership import Owner
from speil.election.record import LeaderElectionRecord, Lease
from speil.lease.base import LeaseLock
from speil.lease.kubernetes import KubernetesLease
from speil.multiformats.multiaddr import Multiaddr
from speil.multiformats.peer_id import PeerId
from speil.multiformats.peer_info import PeerInfo
from speil.observe.metrics import Metrics
from speil.routing.bootstrap.lease import LeaseBootstrapper
from speil.testing.certificates import CertificateAuthority
from speil.testing.eventually import eventually
from tests.shell.lease_region import FaultyLease, Region, region
from tests.system.kube.cluster import KubeCluster, Pod, free_port
from tests.system.kube.test_election_lease import NAME, path

pytestmark = [pytest.mark.system, pytest.mark.requires("kubernetes")]
TIMINGS = ElectionConfig(lease_duration_seconds=3, renew_deadline_seconds=1.5, retry_period_seconds=0.5)
NODES = 3


class SkewedLease:
    """A lock of a node whose clock is wrong."""

    def __init__(self, lock: LeaseLock, skew: timedelta) -> None:
        self._lock, self._skew = lock, skew

    def __str__(self) -> str:
        return str(self._lock)

    async def get(self) -> Lease | None:
        return await self._lock.get()

    async def put(self, record: LeaderElectionRecord, base: Lease | None) -> Lease:
        assert record.renew_time is not None
        return await self._lock.put(record.stamped(record.renew_time + self._skew), base)

    async def close(self) -> None:
        await self._lock.close()


@dataclass
class Running:
    """A region's electors, its API server and their pod."""

    cluster: KubeCluster
    namespace: str
    pod: Pod
    region: Region

    async def record(self) -> LeaderElectionRecord:
        """What stands in the Lease."""
        lock = KubernetesLease(self.pod.api(), NAME, self.namespace)
        try:
            lease = await lock.get()
        finally:
            await lock.close()
        assert lease is not None
        return lease.record

    async def nobody_leads(self) -> None:
        """Wait until all know that they don't lead."""
        await eventually(
            lambda: not any(one.election.leading for one in self.region.members.values()), what="nobody leads"
        )

    async def led(self, *, other_than: str = "") -> str:
        """Wait for a leader that stands in the Lease; its name."""
        leader = await self.region.led(timeout_seconds=30, other_than=other_than)
        assert (await self.record()).holder_identity == leader.name
        return leader.name


@asynccontextmanager
async def running(
    cluster: KubeCluster, namespace: str, wrap: Callable[[str, LeaseLock], LeaseLock] = lambda _, lock: lock
) -> AsyncIterator[Running]:
    """A region of electors with one ServiceAccount; it has a leader."""
    await cluster.region(namespace, NAME)
    pod = await cluster.pod(namespace)

    def lock(name: str) -> LeaseLock:
        return wrap(name, KubernetesLease(pod.api(), NAME, namespace))

    async with region(lock, NODES, TIMINGS) as members:
        made = Running(cluster, namespace, pod, members)
        await made.led()
        yield made


async def test_a_leader_that_stops_hands_over(cluster: KubeCluster, namespace: str) -> None:
    async with running(cluster, namespace) as there:
        first = await there.led()
        await there.region.members[first].stop()
        assert (await there.record()).holder_identity != first
        await there.led(other_than=first)
        assert (await there.record()).leader_transitions == 1


async def test_the_lease_is_deleted(cluster: KubeCluster, namespace: str) -> None:
    async with running(cluster, namespace) as there:
        await cluster.admin("DELETE", path(namespace))
        await eventually(there.record, what="it is written again")  # asserts that it exists
        await there.led()


@pytest.mark.parametrize("holder", ["", "garbage\n{}", "/ip4/10.9.9.9/tcp/5001/p2p/12D3KooWother"])
async def test_the_lease_is_edited_by_hand(cluster: KubeCluster, namespace: str, holder: str) -> None:
    async with running(cluster, namespace) as there:
        leader = await there.led()
        patch = {"spec": {"holderIdentity": holder}}
        await cluster.admin("PATCH", path(namespace), patch, content_type="application/merge-patch+json")
        await eventually(
            lambda: there.region.members[leader].metric("speil_election_events_total", event="lost"), what="it loses"
        )
        await there.led()


async def test_a_storm_of_other_writers_does_not_unseat_the_leader(cluster: KubeCluster, namespace: str) -> None:
    async with running(cluster, namespace) as there:
        leader = await there.led()
        renewed = there.region.members[leader].metric("speil_election_requests_total", verb="put", outcome="ok")
        for number in range(600):
            patch = {"metadata": {"annotations": {"example.org/storm": str(number)}}}
            await cluster.admin("PATCH", path(namespace), patch, content_type="application/merge-patch+json")
        member = there.region.members[leader]
        assert member.metric("speil_election_requests_total", verb="put", outcome="conflict") > 0
        assert member.metric("speil_election_requests_total", verb="put", outcome="ok") > renewed
        assert await there.led() == leader
        assert (await there.record()).leader_transitions == 0


async def test_the_lease_is_said_to_be_another_regions(cluster: KubeCluster, namespace: str) -> None:
    async with running(cluster, namespace) as there:
        patch = {"metadata": {"annotations": {"speil.dev/region": "elsewhere"}}}
        await cluster.admin("PATCH", path(namespace), patch, content_type="application/merge-patch+json")
        await eventually(
            lambda: all(one.election.foreign for one in there.region.members.values()),
            timeout_seconds=20,
            what="all see it",
        )
        await there.nobody_leads()
        assert (await there.record()).region == "elsewhere"


async def test_the_api_pauses_as_often_as_the_region_has_nodes_and_once_more(
    cluster: KubeCluster, namespace: str
) -> None:
    async with running(cluster, namespace) as there:
        for _ in range(NODES + 1):
            cluster.pause()
            try:
                await there.nobody_leads()
            finally:
                cluster.resume()
            await there.led()


async def test_the_api_is_gone_and_comes_back_while_first_peers_are_still_known(
    cluster: KubeCluster, namespace: str
) -> None:
    async with running(cluster, namespace) as there:
        local = PeerInfo(PeerId(bytes((0x12, 32)) + Random(2).randbytes(32)), (Multiaddr.of_tcp("10.0.0.2", 5001),))
        peers = [Multiaddr.parse(text) for text in (await there.record()).peers]
        lock = KubernetesLease(there.pod.api(), NAME, namespace)
        newcomer = LeaseBootstrapper("kubernetes", lock, TIMINGS, Owner("r"), Metrics(), Random(3))
        async with campaigning(newcomer, local):
            assert await newcomer.find(local) == peers != []
            cluster.kill_server()
            try:
                await there.nobody_leads()
                await eventually(lambda: newcomer.election.failure, what="it can't ask")
                assert await newcomer.find(local) == peers
            finally:
                await cluster.start_server()
            await eventually(
                lambda: there.region.leader or newcomer.election.leading, timeout_seconds=30, what="somebody leads"
            )


async def test_refused_and_allowed_again(cluster: KubeCluster, namespace: str) -> None:
    async with running(cluster, namespace) as there:
        binding = f"/apis/rbac.authorization.k8s.io/v1/namespaces/{namespace}/rolebindings/speil"
        await cluster.admin("DELETE", binding)
        await there.nobody_leads()
        failures = {one.election.failure for one in there.region.members.values()}
        # whoever led was refused a write; it may have been refused a read since
        refused = re.compile(rf"not allowed to (update|get) the Lease {NAME} in namespace {namespace}\b")
        assert any(map(refused.search, failures)), failures
        await cluster.region(namespace, NAME)
        leader = await there.region.led(timeout_seconds=120)  # refusals are asked about slowly
        assert leader


async def test_the_token_is_rotated(cluster: KubeCluster, namespace: str) -> None:
    async with running(cluster, namespace) as there:
        accounts = f"/api/v1/namespaces/{namespace}/serviceaccounts"
        await cluster.admin("DELETE", f"{accounts}/speil")
        # the server remembers tokens for ten seconds
        await eventually(
            lambda: any("credentials" in one.election.failure for one in there.region.members.values()),
            timeout_seconds=30,
            what="the old token is refused",
        )
        await cluster.admin("POST", accounts, {"metadata": {"name": "speil", "namespace": namespace}})
        there.pod.write_token(await cluster.token(namespace))
        await there.led()


async def test_the_server_comes_back_with_another_ca_at_another_address(cluster: KubeCluster, namespace: str) -> None:
    async with running(cluster, namespace) as there:
        cluster.kill_server()
        cluster.authority, cluster.port = CertificateAuthority("renewed"), free_port()
        cluster.write_certificates()
        await cluster.start_server()
        await there.nobody_leads()
        cluster.point(there.pod)
        await there.led()


@pytest.mark.parametrize("minutes", [-10, 10])
async def test_clocks_of_nodes_are_off(cluster: KubeCluster, namespace: str, minutes: int) -> None:
    faulty: dict[str, FaultyLease] = {}

    def wrap(name: str, lock: LeaseLock) -> LeaseLock:
        faulty[name] = FaultyLease(SkewedLease(lock, timedelta(minutes=minutes * int(name[1:]))))
        return faulty[name]

    async with running(cluster, namespace, wrap) as there:
        for _ in range(NODES - 1):
            leader = await there.led()
            faulty[leader].paused = True  # it dies without a release: the others have to judge by age
            await there.region.members[leader].stop()
            del there.region.members[leader]
        await there.led()
        assert (await there.record()).leader_transitions == NODES - 1


async def test_two_regions_on_one_server_have_a_leader_each(cluster: KubeCluster, namespace: str) -> None:
    async with running(cluster, namespace) as one, running(cluster, f"{namespace}-b") as other:
        first, second = await one.led(), await other.led()
        await one.region.members[first].stop()
        await one.led(other_than=first)
        assert await other.led() == second
        assert (await other.record()).leader_transitions == 0


@asynccontextmanager
async def campaigning(bootstrapper: LeaseBootstrapper, local: PeerInfo) -> AsyncIterator[None]:
    async with asyncio.TaskGroup() as group:
        task = group.create_task(bootstrapper.run(lambda: local))
        yield
        task.cancel()
