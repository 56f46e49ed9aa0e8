"""The Lease of a real API server: the conformance suite as a pod with the narrow Role, and what refusals say."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from speil.kube.error import KubeForbiddenError
from speil.lease.base import LeaseDeniedError, LeaseError, LeaseLock
from speil.lease.kubernetes import KubernetesLease
from speil.testing.eventually import eventually
from speil.testing.lease_conformance import RECORD, LeaseConformance, LeaseFixture
from tests.system.kube.cluster import KubeCluster, Pod

pytestmark = [pytest.mark.system, pytest.mark.requires("kubernetes")]
NAME = "spegel-leader-election"


def path(namespace: str, name: str = NAME) -> str:
    """A Lease's path."""
    return f"/apis/coordination.k8s.io/v1/namespaces/{namespace}/leases/{name}"


@asynccontextmanager
async def lock(pod: Pod, namespace: str, name: str = NAME) -> AsyncIterator[LeaseLock]:
    """A lock as a pod, closed afterwards."""
    made = KubernetesLease(pod.api(), name, namespace)
    try:
        yield made
    finally:
        await made.close()


class AdminHand:
    """kubectl."""

    def __init__(self, cluster: KubeCluster, namespace: str) -> None:
        self._cluster, self._path = cluster, path(namespace)

    async def delete(self) -> None:
        await self._cluster.admin("DELETE", self._path)

    async def annotate(self, key: str, value: str) -> None:
        patch = {"metadata": {"annotations": {key: value}}}
        merge, manager = "application/merge-patch+json", {"fieldManager": "kubectl-annotate"}
        await self._cluster.admin("PATCH", self._path, patch, content_type=merge, params=manager)

    async def document(self) -> dict[str, Any]:
        return await self._cluster.admin("GET", self._path)


class TestKubernetesLease(LeaseConformance):
    """See LeaseConformance."""

    age_resolution_seconds = 1.0

    @pytest.fixture(autouse=True)
    def _in(self, cluster: KubeCluster, namespace: str) -> None:
        self._cluster, self._namespace = cluster, namespace

    def lease(self, locks: int) -> AbstractAsyncContextManager[LeaseFixture]:
        @asynccontextmanager
        async def made() -> AsyncIterator[LeaseFixture]:
            await self._cluster.region(self._namespace, NAME)
            pod = await self._cluster.pod(self._namespace)
            async with AsyncExitStack() as stack:
                many = [await stack.enter_async_context(lock(pod, self._namespace)) for _ in range(locks)]
                yield LeaseFixture(many, AdminHand(self._cluster, self._namespace))

        return made()


async def test_the_age_is_the_servers_though_the_leaders_clock_is_ten_minutes_off_and_others_annotate(
    cluster: KubeCluster, namespace: str
) -> None:
    await cluster.region(namespace, NAME)
    async with lock(await cluster.pod(namespace), namespace) as lease:
        for wrong in (timedelta(minutes=10), -timedelta(minutes=10)):
            base = await lease.get()
            written = await lease.put(replace(RECORD, renew_time=datetime.now(UTC) + wrong), base)
            assert written.age_seconds is not None
            assert 0 <= written.age_seconds <= 2

        async def aged() -> bool:
            await AdminHand(cluster, namespace).annotate("example.org/at", str(datetime.now(UTC)))
            seen = await lease.get()
            return seen is not None and seen.age_seconds is not None and seen.age_seconds >= 4

        await eventually(aged, what="it ages although its annotations change")


async def test_a_region_is_refused_what_is_not_its_own_in_one_sentence(cluster: KubeCluster, namespace: str) -> None:
    other = f"{namespace}-other"
    await cluster.region(namespace, NAME)
    await cluster.region(other, NAME)
    pod = await cluster.pod(namespace)
    for its_namespace, name in ((other, NAME), (namespace, "another"), ("nowhere", NAME)):
        async with lock(pod, its_namespace, name) as lease:
            for verb, request in (("get", lease.get()), ("update", lease.put(RECORD, None))):
                with pytest.raises(LeaseDeniedError) as raised:
                    await request
                message = str(raised.value)
                assert f"not allowed to {verb} the Lease {name} in namespace {its_namespace}" in message
                assert "Role" in message
                assert "\n" not in message
    async with lock(pod, namespace) as own:
        await own.put(RECORD, None)


async def test_namespaces_that_are_missing_or_being_deleted_are_named(cluster: KubeCluster, namespace: str) -> None:
    admin = Pod(cluster.folder / f"admin-{namespace}")
    admin.folder.mkdir()
    admin.write_token("admin-token")
    cluster.point(admin)
    async with lock(admin, namespace) as lease:
        assert await lease.get() is None
        with pytest.raises(LeaseDeniedError, match=f"namespace {namespace} does not exist"):
            await lease.put(RECORD, None)
        await cluster.region(namespace, NAME)
        await cluster.admin("DELETE", f"/api/v1/namespaces/{namespace}")
        with pytest.raises(LeaseDeniedError, match=f"namespace {namespace} is being deleted"):
            await lease.put(RECORD, None)


async def test_credentials_that_are_worth_nothing_are_an_error_that_may_pass(
    cluster: KubeCluster, namespace: str
) -> None:
    await cluster.region(namespace, NAME)
    pod = await cluster.pod(namespace)
    async with lock(pod, namespace) as lease:
        pod.write_token("not-a-token")
        with pytest.raises(LeaseError, match="does not accept this node's credentials") as raised:
            await lease.get()
        assert not isinstance(raised.value, LeaseDeniedError)
        pod.write_token(await cluster.token(namespace))
        assert await lease.get() is None


async def test_a_user_of_the_cluster_without_rights_is_forbidden(cluster: KubeCluster, namespace: str) -> None:
    pod = Pod(cluster.folder / f"nobody-{namespace}")
    pod.folder.mkdir()
    pod.write_token("nobody-token")
    cluster.point(pod)
    api = pod.api()
    try:
        with pytest.raises(KubeForbiddenError) as raised:
            await api.request("GET", path(namespace))
        assert raised.value.verb == "get"
    finally:
        await api.close()
