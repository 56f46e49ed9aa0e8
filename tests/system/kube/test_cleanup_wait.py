"""What the hooks of the chart ask a real API server: the pods of a DaemonSet, and a Lease that nobody renews."""

from __future__ import annotations

import asyncio
import itertools
from typing import Any

import pytest

from speil.cli import cleanup_wait
from speil.cli.cleanup_wait import remove_lease
from speil.kube.api import KubeApi
from speil.kube.daemonset import DaemonSetState, daemonset_state, remove_daemonset, wait_for_daemonset
from speil.kube.error import KubeForbiddenError, KubeNotFoundError
from speil.kube.kubeconfig import KubeconfigAccess
from speil.testing.eventually import eventually
from tests.system.kube.cluster import USER_AGENT, KubeCluster

pytestmark = [pytest.mark.system, pytest.mark.requires("kubernetes")]
MERGE = "application/merge-patch+json"
LABELS = {"app": "cleanup"}
POD_SPEC = {"containers": [{"name": "cleanup", "image": "x"}]}


async def make_daemonset(cluster: KubeCluster, namespace: str) -> str:
    """A DaemonSet and its namespace; its path."""
    await cluster.admin("POST", "/api/v1/namespaces", {"metadata": {"name": namespace}})
    path = f"/apis/apps/v1/namespaces/{namespace}/daemonsets"
    template = {"metadata": {"labels": LABELS}, "spec": POD_SPEC}
    spec = {"selector": {"matchLabels": LABELS}, "template": template}
    await cluster.admin("POST", path, {"metadata": {"name": "cleanup"}, "spec": spec})
    return f"{path}/cleanup"


async def set_status(cluster: KubeCluster, path: str, desired: int, ready: int, generation: int = 1) -> None:
    """What its controller says."""
    counts = {"desiredNumberScheduled": desired, "numberReady": ready, "observedGeneration": generation}
    status = {**counts, "currentNumberScheduled": desired, "numberMisscheduled": 0}
    await cluster.admin("PATCH", f"{path}/status", {"status": status}, content_type=MERGE)


async def make_pod(cluster: KubeCluster, namespace: str, name: str, is_ready: bool, spec: dict[str, Any]) -> None:
    """A pod of it."""
    pods = f"/api/v1/namespaces/{namespace}/pods"
    await cluster.admin("POST", pods, {"metadata": {"name": name, "labels": LABELS}, "spec": POD_SPEC | spec})
    condition = {"type": "Ready", "status": "True" if is_ready else "False"}
    status = {"status": {"phase": "Running", "conditions": [condition]}}
    await cluster.admin("PATCH", f"{pods}/{name}/status", status, content_type=MERGE)


def made_for(node: str) -> dict[str, Any]:
    """A pod that its DaemonSet made for a node, and that no scheduler has bound."""
    field = {"key": "metadata.name", "operator": "In", "values": [node]}
    required = {"nodeSelectorTerms": [{"matchFields": [field]}]}
    return {"affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": required}}}


async def test_nodes_whose_pod_is_not_ready_are_named(cluster: KubeCluster, namespace: str) -> None:
    path = await make_daemonset(cluster, namespace)
    await make_pod(cluster, namespace, "one", True, {"nodeName": "node-1"})
    await make_pod(cluster, namespace, "two", False, {"nodeName": "node-2"})
    await make_pod(cluster, namespace, "three", False, made_for("node-3"))
    api, seen = KubeApi(KubeconfigAccess([cluster.kubeconfig]), USER_AGENT), list[DaemonSetState]()
    try:
        await wait_for_daemonset(api, namespace, "cleanup", 0.0, seen.append)
        assert seen[-1].desired is None, "its controller has not looked yet"
        assert not seen[-1].is_ready

        await set_status(cluster, path, desired=3, ready=1)
        state = await wait_for_daemonset(api, namespace, "cleanup", 0.0, seen.append)
        assert (state.desired, state.ready, state.waiting) == (3, 1, ("node-2", "node-3"))

        async def is_older() -> bool:
            return (await daemonset_state(api, namespace, "cleanup")).age_seconds >= 2

        await eventually(is_older, what="the DaemonSet was made two seconds ago")
        looks = len(seen)
        state = await wait_for_daemonset(api, namespace, "cleanup", 2.0, seen.append, since_creation=True)
        assert (len(seen) - looks, state.ready) == (1, 1), "another has waited for so long"

        async with asyncio.TaskGroup() as tasks:
            waiting = tasks.create_task(wait_for_daemonset(api, namespace, "cleanup", 60.0, seen.append))
            await eventually(lambda: len(seen) > 3, what="it looks again")
            await set_status(cluster, path, desired=3, ready=3)
            assert (await waiting).is_ready
        await remove_daemonset(api, namespace, "cleanup")
        with pytest.raises(KubeNotFoundError):
            await wait_for_daemonset(api, namespace, "cleanup", 60.0, seen.append)
    finally:
        await api.close()


async def test_without_the_right_it_ends_at_once(cluster: KubeCluster, namespace: str) -> None:
    await cluster.region(namespace, "its-lease")
    pod = await cluster.pod(namespace)
    api = pod.api()
    try:
        with pytest.raises(KubeForbiddenError):
            await wait_for_daemonset(api, namespace, "cleanup", 60.0, lambda _: None)
    finally:
        await api.close()


async def test_a_lease_goes_when_nobody_renews_it_and_stays_when_somebody_does(
    cluster: KubeCluster, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cleanup_wait, "GIVEN_UP_SECONDS", 0.5)
    await cluster.admin("POST", "/api/v1/namespaces", {"metadata": {"name": namespace}})
    leases = f"/apis/coordination.k8s.io/v1/namespaces/{namespace}/leases"
    for name, holder in (("released", ""), ("dead", "10.0.0.1"), ("alive", "10.0.0.2")):
        spec = {"holderIdentity": holder, "leaseDurationSeconds": 1, "renewTime": "2026-01-01T00:00:00.000000Z"}
        await cluster.admin("POST", leases, {"metadata": {"name": name}, "spec": spec})
    api = KubeApi(KubeconfigAccess([cluster.kubeconfig]), USER_AGENT)

    turns = itertools.count(1)

    async def renew() -> None:
        spec = {"spec": {"renewTime": f"2026-01-01T00:00:00.{next(turns):06}Z"}}
        await cluster.admin("PATCH", f"{leases}/alive", spec, content_type=MERGE)

    try:
        async with asyncio.TaskGroup() as tasks:
            for name in ("released", "dead", "never-was"):
                tasks.create_task(remove_lease(api, namespace, name))
            removal = tasks.create_task(remove_lease(api, namespace, "alive"))
            while not removal.done():
                await renew()
                await asyncio.sleep(0.2)
        left = [one["metadata"]["name"] for one in (await cluster.admin("GET", leases))["items"]]
        assert left == ["alive"]
    finally:
        await api.close()
