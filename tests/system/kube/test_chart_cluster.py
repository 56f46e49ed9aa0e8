"""The chart on a real API server: installed, upgraded, removed; refused before anything is made; and what its Roles
allow, shown by a region's whole election with the ServiceAccount that the chart gives it.

No controller runs here, so nobody starts pods, and hooks are made by hand.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
from collections.abc import Coroutine
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from speil.config import build, split_arguments
from speil.kube.error import KubeForbiddenError
from speil.lease.base import LeaseDeniedError
from speil.region.settings import RegionSettings
from speil.setting import declared
from speil.testing.eventually import eventually
from speil.testing.lease_conformance import RECORD
from tests.chart.rendering import CHART, EXAMPLES, Objects, environment
from tests.requirements import kube_tool_path
from tests.system.kube.cluster import KubeCluster, Pod
from tests.system.kube.processes import electors
from tests.system.kube.test_election_lease import lock, path
from tests.system.kube.test_election_processes import leader_among

pytestmark = [pytest.mark.system, pytest.mark.requires("kubernetes", "helm")]
HELM_SECONDS_MAX = 120
HOOK_SECONDS_MAX = 30
KINDS = (
    "/api/v1/namespaces/{}/serviceaccounts",
    "/api/v1/namespaces/{}/secrets",
    "/api/v1/namespaces/{}/services",
    "/apis/apps/v1/namespaces/{}/daemonsets",
    "/apis/networking.k8s.io/v1/namespaces/{}/networkpolicies",
    "/apis/rbac.authorization.k8s.io/v1/namespaces/{}/roles",
    "/apis/rbac.authorization.k8s.io/v1/namespaces/{}/rolebindings",
)


class Helm:
    """helm as the cluster's administrator."""

    def __init__(self, cluster: KubeCluster, folder: Path) -> None:
        self._cluster, self._folder = cluster, folder

    async def run(self, *arguments: str, values: Any = None, fails: bool = False) -> str:
        """Run it off the loop; what it said."""
        if values is not None:
            file = values if isinstance(values, Path) else self._folder / "values.json"
            if not isinstance(values, Path):
                file.write_text(json.dumps(values))
            arguments = (*arguments, "--values", str(file))
        command = [str(kube_tool_path("helm")), *arguments, "--kubeconfig", str(self._cluster.kubeconfig)]
        done = await asyncio.to_thread(
            subprocess.run, command, capture_output=True, text=True, check=False, timeout=HELM_SECONDS_MAX
        )
        assert (done.returncode != 0) == fails, done.stdout + done.stderr
        return str(done.stdout + done.stderr)

    async def install(self, release: str, namespace: str, values: Any, *more: str, fails: bool = False) -> str:
        """Install or upgrade a release in a namespace that may not be there yet."""
        where = ("--namespace", namespace, "--create-namespace")
        return await self.run("upgrade", "--install", release, str(CHART), *where, *more, values=values, fails=fails)

    async def uninstall(self, release: str, namespace: str) -> str:
        """Remove a release, without the hooks that wait for pods."""
        return await self.run("uninstall", release, "--namespace", namespace, "--no-hooks")

    async def objects(self, release: str, namespace: str) -> Objects:
        """What helm holds of a release, hooks apart."""
        return Objects(await self.run("get", "manifest", release, "--namespace", namespace))


@pytest.fixture
def helm(cluster: KubeCluster, tmp_path: Path) -> Helm:
    """helm, pointed at the cluster."""
    return Helm(cluster, tmp_path)


async def make_namespaces(cluster: KubeCluster, *names: str) -> None:
    """Namespaces."""
    for name in names:
        await cluster.admin("POST", "/api/v1/namespaces", {"metadata": {"name": name}})


async def names_in(cluster: KubeCluster, namespace: str) -> set[str]:
    """What stands in a namespace."""
    found = set()
    for kind in KINDS:
        answer = await cluster.admin("GET", kind.format(namespace))
        found |= {f"{kind.rpartition('/')[2]}/{one['metadata']['name']}" for one in answer["items"]}
    return found


async def namespace_names(cluster: KubeCluster) -> set[str]:
    """The cluster's namespaces."""
    answer = await cluster.admin("GET", "/api/v1/namespaces")
    return {one["metadata"]["name"] for one in answer["items"]}


def lease_values(name: str, namespace: str) -> dict[str, Any]:
    """The three lines of a region."""
    return {"bootstrapKind": "kubernetes", "leaderElectionName": name, "leaderElectionNamespace": namespace}


async def test_the_two_regions_to_the_letter_side_by_side(cluster: KubeCluster, helm: Helm) -> None:
    await make_namespaces(cluster, "spegel-regiona", "spegel-regionb")
    regions = {"regiona": "region-a.yaml", "regionb": "region-b.yaml"}
    for region, example in regions.items():
        said = await helm.install(f"speil-{region}", "letter", CHART / "examples" / example)
        assert f"region {region}\n" in said
        assert f"spegel-{region}/spegel-leader-election-{region}" in said
        assert "no image is published" in said
        assert "speil region verify" in said
    for region, other in (("regiona", "regionb"), ("regionb", "regiona")):
        namespace, name = f"spegel-{region}", f"spegel-leader-election-{region}"
        pod = await cluster.pod("letter", f"speil-{region}")
        with electors(cluster, pod, namespace, name, 2, region=region) as processes:
            first = await leader_among(cluster, pod, namespace, processes, lease=name)
            assert first.stop() == 0, "acquired and renewed, then released"
            second = await leader_among(cluster, pod, namespace, processes, other_than=first.identity, lease=name)
            assert second is not first
            await refused_everything_else(pod, namespace, name, f"spegel-{other}")
    await helm.uninstall("speil-regionb", "letter")
    assert not await names_in(cluster, "spegel-regionb")
    assert "daemonsets/speil-regiona" in await names_in(cluster, "letter")
    await helm.uninstall("speil-regiona", "letter")


async def refused_everything_else(pod: Pod, namespace: str, name: str, other: str) -> None:
    """Other Leases, other namespaces and other verbs are forbidden."""
    for its_namespace, its_name in ((other, name.replace(namespace, other)), (other, name), (namespace, "another")):
        async with lock(pod, its_namespace, its_name) as lease:
            with pytest.raises(LeaseDeniedError, match="not allowed to get"):
                await lease.get()
            with pytest.raises(LeaseDeniedError, match="not allowed to update"):
                await lease.put(RECORD, None)
    api = pod.api()
    try:
        for method, where in (
            ("DELETE", path(namespace, name)),
            ("GET", path(namespace, "").rstrip("/")),
            ("GET", "/api/v1/namespaces/letter/secrets"),
            ("GET", "/api/v1/namespaces/letter/pods"),
            ("GET", "/api/v1/nodes/node-1"),
        ):
            with pytest.raises(KubeForbiddenError):
                await api.request(method, where)
    finally:
        await api.close()


async def test_a_missing_namespace_fails_before_anything_is_created(cluster: KubeCluster, helm: Helm) -> None:
    await make_namespaces(cluster, "half")
    before = await names_in(cluster, "half")
    values = lease_values("spegel-leader-election-nowhere", "spegel-nowhere")
    said = await helm.install("speil", "half", values, fails=True)
    assert "leaderElectionNamespace spegel-nowhere does not exist" in said
    assert "kubectl create namespace spegel-nowhere" in said
    assert "createNamespace: true" in said
    several = {"regions": [{"name": "somewhere", "createNamespace": True}, {"name": "nowhere"}]}
    assert "spegel-nowhere does not exist" in await helm.install("speil", "half", several, fails=True)
    assert await names_in(cluster, "half") == before
    assert "spegel-somewhere" not in await namespace_names(cluster)
    assert "speil" not in await helm.run("list", "--all-namespaces", "--output", "json", "--filter", "^speil$")
    # without the look ahead it is the API server that refuses, when half is there
    blind = await helm.install("speil", "half", {**values, "namespaceCheck": False}, fails=True)
    assert 'namespaces "spegel-nowhere" not found' in blind
    assert await names_in(cluster, "half") != before


async def test_one_release_for_two_regions_makes_their_namespaces_and_keeps_them(
    cluster: KubeCluster, helm: Helm
) -> None:
    values = {"createNamespace": True, "regions": [{"name": "ra"}, {"name": "rb"}]}
    await helm.install("both", "both", values)
    assert {"spegel-ra", "spegel-rb"} <= await namespace_names(cluster)
    secrets = {name: await secret(cluster, "both", f"both-{name}-region") for name in ("ra", "rb")}
    assert secrets["ra"] != secrets["rb"]

    # an upgrade that adds a region keeps the others' secrets; a second release finds the namespace of the first
    values["regions"] = [{"name": "ra"}, {"name": "rb"}, {"name": "rc"}]
    await helm.install("both", "both", values)
    assert {name: await secret(cluster, "both", f"both-{name}-region") for name in ("ra", "rb")} == secrets
    await helm.install("both", "second", {**lease_values("another-ra", "spegel-ra"), "createNamespace": True})
    roles = {name for name in await names_in(cluster, "spegel-ra") if name.startswith("roles/")}
    assert roles == {"roles/speil:both:both:ra", "roles/speil:second:both"}

    said = await helm.uninstall("both", "both")
    assert "spegel-ra" in said, "helm says what it keeps"
    assert {"spegel-ra", "spegel-rb", "spegel-rc"} <= await namespace_names(cluster)
    assert not await names_in(cluster, "spegel-rb")
    await helm.install("again", "both", values)
    await helm.uninstall("again", "both")
    await helm.uninstall("both", "second")
    assert not await names_in(cluster, "spegel-ra")


async def secret(cluster: KubeCluster, namespace: str, name: str) -> str:
    """A region's secret, as it stands in the cluster."""
    found = await cluster.admin("GET", f"/api/v1/namespaces/{namespace}/secrets/{name}")
    return str(found["data"]["secret"])


async def test_a_lease_of_another_region_is_refused(cluster: KubeCluster, helm: Helm) -> None:
    await make_namespaces(cluster, "spegel-taken")
    metadata = {"name": "spegel-leader-election-taken", "annotations": {"speil.dev/region": "east"}}
    await cluster.admin("PUT", path("spegel-taken", str(metadata["name"])), {"metadata": metadata, "spec": {}})
    said = await helm.install("speil", "wrong", lease_values(str(metadata["name"]), "spegel-taken"), fails=True)
    assert "belongs to region east, and this is region taken" in said
    assert not await names_in(cluster, "spegel-taken")


async def test_a_release_that_would_take_anothers_objects_is_refused_whole(cluster: KubeCluster, helm: Helm) -> None:
    await helm.install("one", "shared", {"region": "one", "createNamespace": True})
    before = await names_in(cluster, "shared")
    values = {"region": "two", "createNamespace": True, "fullnameOverride": "one"}
    assert "cannot be imported" in await helm.install("two", "shared", values, fails=True)
    # helm's own record of what failed is all there is
    assert {name for name in await names_in(cluster, "shared") - before if "sh.helm.release" not in name} == set()
    await helm.uninstall("one", "shared")


async def test_the_api_server_takes_every_example_and_the_hooks(cluster: KubeCluster, helm: Helm) -> None:
    await make_custom_resources(cluster)
    for number, example in enumerate(EXAMPLES):
        release, namespace = f"e{number}", f"example-{number}"
        needs_namespace = ("--set", "createNamespace=true")
        await helm.install(release, namespace, example, *needs_namespace)
        for one in Objects(await helm.run("get", "hooks", release, "--namespace", namespace)).all:
            if one["kind"] == "Secret":
                continue  # the installation made it
            plural = f"{one['kind'].lower()}s"
            group = "/api/v1" if one["apiVersion"] == "v1" else f"/apis/{one['apiVersion']}"
            strict = {"fieldValidation": "Strict", "dryRun": "All"}
            where = f"{group}/namespaces/{one['metadata']['namespace']}/{plural}"
            await cluster.admin("POST", where, one, params=strict)
        await helm.uninstall(release, namespace)


async def test_uninstalling_ends_when_every_region_has_cleaned_up(cluster: KubeCluster, helm: Helm) -> None:
    regions = [{"name": name, "createNamespace": True} for name in ("ua", "ub")]
    await helm.install("u", "uninstalled", {"regions": regions})
    jobs = "/apis/batch/v1/namespaces/uninstalled/jobs"

    async def waiting() -> set[str]:
        return {one["metadata"]["name"] for one in (await cluster.admin("GET", jobs))["items"]}

    async def end(job: str) -> None:
        # as its controller says it once `speil cleanup-wait` has ended
        await eventually(lambda: _in(job, waiting()), timeout_seconds=HOOK_SECONDS_MAX, what=f"{job} is there")
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        done = [{"type": kind, "status": "True"} for kind in ("SuccessCriteriaMet", "Complete")]
        status = {"conditions": done, "succeeded": 1, "startTime": now, "completionTime": now}
        merge = "application/merge-patch+json"
        await cluster.admin("PATCH", f"{jobs}/{job}/status", {"status": status}, content_type=merge)

    async with asyncio.TaskGroup() as group:
        gone = group.create_task(helm.run("uninstall", "u", "--namespace", "uninstalled", "--timeout", "60s"))
        await eventually(waiting, timeout_seconds=HOOK_SECONDS_MAX, what="a Job waits for the nodes")
        found = await names_in(cluster, "uninstalled")
        assert {"daemonsets/u-ua-cleanup", "daemonsets/u-ub-cleanup", "serviceaccounts/u-ua-cleanup"} <= found
        assert "daemonsets/u-ua" not in found, "the nodes are gone, or they would write hosts.toml again"
        for region in ("ua", "ub"):
            await end(f"u-{region}-cleanup-wait")
        await gone
    # the Secrets are kept, and the Job itself removes its DaemonSet: tests/cluster
    left = {"secrets/u-ua-region", "secrets/u-ub-region", "daemonsets/u-ua-cleanup", "daemonsets/u-ub-cleanup"}
    assert await names_in(cluster, "uninstalled") == left
    assert not await waiting()


async def _in(name: str, names: Coroutine[Any, Any, set[str]]) -> bool:
    return name in await names


async def make_custom_resources(cluster: KubeCluster) -> None:
    """The kinds of the operators, with any content."""
    for group, version, kind in (
        ("monitoring.coreos.com", "v1", "ServiceMonitor"),
        ("monitoring.coreos.com", "v1", "PrometheusRule"),
        ("grafana.integreatly.org", "v1beta1", "GrafanaDashboard"),
        ("autoscaling.k8s.io", "v1", "VerticalPodAutoscaler"),
    ):
        plural = f"{kind.lower()}s"
        schema = {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": True}}
        spec = {
            "group": group,
            "scope": "Namespaced",
            "names": {"kind": kind, "plural": plural, "singular": kind.lower()},
            "versions": [{"name": version, "served": True, "storage": True, "schema": schema}],
        }
        # groups below k8s.io are protected: this annotation is the approval
        annotations = {"api-approved.kubernetes.io": "unapproved, for a test"}
        body = {"metadata": {"name": f"{plural}.{group}", "annotations": annotations}, "spec": spec}
        await cluster.admin("POST", "/apis/apiextensions.k8s.io/v1/customresourcedefinitions", body)


async def test_a_node_reads_from_the_cluster_what_was_rendered(cluster: KubeCluster, helm: Helm) -> None:
    await helm.install("stored", "stored", {"regions": [{"name": "rx", "createNamespace": True}]})
    stored = await cluster.admin("GET", "/apis/apps/v1/namespaces/stored/daemonsets/stored-rx")
    (container,) = stored["spec"]["template"]["spec"]["containers"]
    environ = environment(container, {"topology.kubernetes.io/zone": "z1"})
    settings = build(RegionSettings, split_arguments("registry", [], declared(RegionSettings)), environ)
    assert (settings.identity().region, settings.identity().zone) == ("rx", "z1")
    assert str(settings.identity().lease) == "spegel-rx/spegel-leader-election-rx"
    await helm.uninstall("stored", "stored")
