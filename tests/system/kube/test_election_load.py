"""What a region's election costs the API server, in the server's own count, and how soon a leader is followed."""

from __future__ import annotations

import asyncio
import time

import pytest

from speil.election.config import DEFAULT_CONFIG
from speil.lease.base import LeaseLock
from speil.lease.kubernetes import KubernetesLease
from speil.testing.eventually import eventually
from tests.shell.lease_region import FaultyLease, region
from tests.system.kube.cluster import KubeCluster
from tests.system.kube.test_election_lease import NAME

pytestmark = [pytest.mark.system, pytest.mark.requires("kubernetes")]
RENEWALS = 10  # the window: twenty seconds of Spegel's timings
GETS_PER_SECOND_MAX = 9  # six on average; the window is short
CLIENT_GO_GETS_PER_SECOND = 0.313  # of each follower, measured with Spegel 0.0.28


@pytest.mark.parametrize("nodes", [3, 30, 200])
async def test_the_api_servers_load_does_not_grow_with_the_region(
    cluster: KubeCluster, namespace: str, nodes: int, capsys: pytest.CaptureFixture[str]
) -> None:
    await cluster.region(namespace, NAME)
    pod = await cluster.pod(namespace)
    faulty: dict[str, FaultyLease] = {}

    def lock(name: str) -> LeaseLock:
        faulty[name] = FaultyLease(KubernetesLease(pod.api(), NAME, namespace))
        return faulty[name]

    async with region(lock, nodes, DEFAULT_CONFIG) as there:
        leader = await there.led(timeout_seconds=30)
        await asyncio.gather(*(one.election.known() for one in there.members.values()))

        def renewed() -> float:
            return leader.metric("speil_election_requests_total", verb="put", outcome="ok")

        start = renewed()
        await eventually(lambda: renewed() >= start + 2, timeout_seconds=30, what="the first looks are over")
        before, started, first = await cluster.lease_requests(), time.monotonic(), renewed()
        await eventually(lambda: renewed() >= first + RENEWALS, timeout_seconds=60, what="the window is over")
        seconds = time.monotonic() - started
        after = await cluster.lease_requests()
        rates = {verb: sum(after[key] - before.get(key, 0) for key in after if key[0] == verb) / seconds
                 for verb in ("GET", "PUT")}  # fmt: skip

        newcomer = there.start("newcomer")
        joined = time.monotonic()
        await newcomer.election.known()
        to_first_peer = time.monotonic() - joined

        died = time.monotonic()
        faulty[leader.name].paused = True
        await there.led(timeout_seconds=60, other_than=leader.name)
        failover = time.monotonic() - died
        faulty[leader.name].paused = False
    with capsys.disabled():
        print(
            f"\n  {nodes} nodes: {rates['GET']:.2f} GET/s + {rates['PUT']:.2f} PUT/s (client-go: "
            f"{CLIENT_GO_GETS_PER_SECOND * (nodes - 1):.1f} GET/s), failover {failover:.1f} s, "
            f"a newcomer's first peer {to_first_peer * 1000:.0f} ms"
        )
    assert rates["GET"] <= GETS_PER_SECOND_MAX
    assert rates["PUT"] <= 1
