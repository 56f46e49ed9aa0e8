"""Electors as processes with Spegel's timings: killed, stopped, frozen; and beside client-go's elector on one Lease."""

from __future__ import annotations

import signal

import pytest

from speil.election.record import LeaderElectionRecord
from speil.lease.kubernetes import KubernetesLease
from speil.testing.eventually import eventually
from tests.system.kube.cluster import KubeCluster, Pod
from tests.system.kube.processes import ElectorProcess, electors, go_elector, speil_elector
from tests.system.kube.test_election_lease import NAME, path

pytestmark = [pytest.mark.system, pytest.mark.requires("kubernetes")]
NODES = 3
TAKEOVER_SECONDS_MAX = 30  # of a loaded machine; it takes 9 to 13.4


async def holder(cluster: KubeCluster, namespace: str) -> str:
    """Who stands in the Lease; "" where nobody does."""
    document = await cluster.admin("GET", path(namespace))
    return str(document["spec"].get("holderIdentity") or "")


async def record(pod: Pod, namespace: str) -> LeaderElectionRecord:
    """What speil reads in the Lease."""
    lock = KubernetesLease(pod.api(), NAME, namespace)
    try:
        lease = await lock.get()
    finally:
        await lock.close()
    assert lease is not None
    return lease.record


async def leader_among(
    cluster: KubeCluster,
    pod: Pod,
    namespace: str,
    processes: list[ElectorProcess],
    *,
    other_than: str = "",
    lease: str = NAME,
) -> ElectorProcess:
    """Wait until one of the processes stands in the Lease."""

    async def found() -> ElectorProcess | None:
        lock = KubernetesLease(pod.api(), lease, namespace)
        try:
            seen = await lock.get()
        finally:
            await lock.close()
        name = seen.record.holder_identity if seen else ""
        return next((one for one in processes if one.identity == name != other_than), None)

    process: ElectorProcess = await eventually(
        found, timeout_seconds=TAKEOVER_SECONDS_MAX, what=f"somebody other than {other_than or 'nobody'} leads"
    )
    return process


async def test_killed_stopped_and_frozen_leaders_are_followed(cluster: KubeCluster, namespace: str) -> None:
    await cluster.region(namespace, NAME)
    pod = await cluster.pod(namespace)
    with electors(cluster, pod, namespace, NAME, NODES) as processes:
        first = await leader_among(cluster, pod, namespace, processes)
        assert first.stop() == 0
        assert first.said(msg="lease released", lease=f"{namespace}/{NAME}", region="r")
        second = await leader_among(cluster, pod, namespace, processes, other_than=first.identity)

        again = speil_elector(cluster, pod, namespace, NAME, first.identity)
        processes.append(again)
        second.signal(signal.SIGSTOP)
        third = await leader_among(cluster, pod, namespace, processes, other_than=second.identity)
        second.signal(signal.SIGCONT)
        await eventually(
            lambda: second.said(msg="lease lost") and second.said(msg="new leader", holder=third.identity),
            what="the thawed one has seen that it leads no more",
        )
        assert await holder(cluster, namespace) == third.identity

        for process in processes:
            if process is not second:
                process.kill()
        last = await leader_among(cluster, pod, namespace, [second], other_than=third.identity)
        assert last is second, "who lost a Lease once can win it again"
        assert (await record(pod, namespace)).leader_transitions == 3


@pytest.mark.interop
@pytest.mark.requires("go-election")
async def test_client_go_and_speil_hand_one_lease_over_both_ways(cluster: KubeCluster, namespace: str) -> None:
    await cluster.region(namespace, NAME)
    pod = await cluster.pod(namespace)
    # client-go creates by POST, which a Role limited by name can't allow: the Lease is there before
    await cluster.admin("PUT", path(namespace), {"metadata": {"name": NAME, "namespace": namespace}, "spec": {}})
    started: list[ElectorProcess] = []
    try:
        started.append(speil_elector(cluster, pod, namespace, NAME, "speil"))
        speil = await leader_among(cluster, pod, namespace, started)
        started.append(go_elector(cluster, pod, namespace, NAME, "client-go"))
        go = started[1]
        await eventually(lambda: go.said(event="new_leader", holder="speil"), what="client-go reads our record")

        speil.stop()
        await leader_among(cluster, pod, namespace, [go])
        await eventually(lambda: go.said(event="leading"), what="client-go leads")
        after_release = await record(pod, namespace)
        assert after_release.holder_identity == "client-go"
        assert after_release.region == "r", "client-go keeps our annotations"

        started.append(speil_elector(cluster, pod, namespace, NAME, "speil"))
        speil = started[2]
        await eventually(lambda: speil.said(msg="new leader", holder="client-go"), what="speil reads its record")
        assert go.stop() == 0
        await leader_among(cluster, pod, namespace, [speil])
        handed = await record(pod, namespace)
        assert handed.leader_transitions == after_release.leader_transitions + 1

        started.append(go_elector(cluster, pod, namespace, NAME, "client-go"))
        go = started[3]
        await eventually(lambda: go.said(event="new_leader", holder="speil"), what="client-go follows")
        speil.kill()
        await leader_among(cluster, pod, namespace, [go])

        started.append(speil_elector(cluster, pod, namespace, NAME, "speil"))
        speil = started[4]
        await eventually(lambda: speil.said(msg="new leader", holder="client-go"), what="speil follows")
        go.kill()
        await leader_among(cluster, pod, namespace, [speil])
        assert (await record(pod, namespace)).leader_transitions == handed.leader_transitions + 2
    finally:
        for process in started:
            process.kill()
