"""A region's secret by default, over the life of a release: made once on a real API server, and the same ever after."""

from __future__ import annotations

import base64
import shutil
from pathlib import Path
from typing import Any

import pytest

from speil.region.secret import parse
from tests.chart.rendering import CHART, Objects
from tests.chart.rendering import helm as helm_without_a_cluster
from tests.system.kube.cluster import KubeCluster
from tests.system.kube.test_chart_cluster import Helm, lease_values, make_namespaces, names_in

pytestmark = [pytest.mark.system, pytest.mark.requires("kubernetes", "helm")]
OTHER_LINES = {"regionSecret": {"value": f"{'n' * 32}\n{'o' * 32}\n"}}
# what another chart of ours did: the Secret in the manifest, and helm deletes it with the release
OLDER_SECRET = """apiVersion: v1
kind: Secret
metadata: {name: older-region, namespace: older}
data: {secret: "{{ printf "%s" "an older chart's secret" | b64enc }}", more: "bW9yZQ=="}
"""


@pytest.fixture
def helm(cluster: KubeCluster, tmp_path: Path) -> Helm:
    """helm, pointed at the cluster."""
    return Helm(cluster, tmp_path)


def three_lines(region: str) -> dict[str, Any]:
    """A region as it is documented, in a namespace that the chart makes."""
    return {**lease_values(f"spegel-leader-election-{region}", f"spegel-{region}"), "createNamespace": True}


def where(namespace: str, name: str = "") -> str:
    """The path of Secrets."""
    return f"/api/v1/namespaces/{namespace}/secrets/{name}".rstrip("/")


async def secrets(cluster: KubeCluster, namespace: str) -> dict[str, dict[str, str]]:
    """The Secrets of a namespace, without helm's own records."""
    found = (await cluster.admin("GET", where(namespace)))["items"]
    return {
        one["metadata"]["name"]: {key: base64.b64decode(value).decode() for key, value in one.get("data", {}).items()}
        for one in found
        if not one["metadata"]["name"].startswith("sh.helm.release")
    }


async def make_secret(cluster: KubeCluster, namespace: str, name: str, data: dict[str, str]) -> None:
    """As `kubectl create secret generic` does."""
    await cluster.admin("POST", where(namespace), {"metadata": {"name": name}, "stringData": data})


async def mounted(cluster: KubeCluster, namespace: str, name: str) -> dict[str, Any]:
    """The Secret volume of a region's pods; {} where there is none."""
    stored = await cluster.admin("GET", f"/apis/apps/v1/namespaces/{namespace}/daemonsets/{name}")
    pod = stored["spec"]["template"]["spec"]
    (found,) = [one["secret"] for one in pod["volumes"] if one["name"] == "region-secret"] or [{}]
    for container in (*pod["initContainers"], *pod["containers"]):
        mounts = [one["name"] for one in container["volumeMounts"]]
        assert ("region-secret" in mounts) == bool(found), "containerd's token comes of the secret that peers prove"
    return dict(found)


async def edit(cluster: KubeCluster, namespace: str, name: str, lines: str) -> None:
    """As `kubectl edit` does, which then owns the field."""
    body = {"data": {"secret": base64.b64encode(lines.encode()).decode()}}
    merge, manager = "application/merge-patch+json", {"fieldManager": "kubectl-edit"}
    await cluster.admin("PATCH", where(namespace, name), body, content_type=merge, params=manager)


@pytest.mark.parametrize("side", ["true", "false"], ids=["applied by the server", "applied by helm"])
async def test_the_three_lines_make_a_secret_that_stays_the_same(cluster: KubeCluster, helm: Helm, side: str) -> None:
    region = f"kept{side}"
    values, apply = three_lines(region), f"--server-side={side}"
    said = await helm.install("s", region, values, apply)
    first = await secrets(cluster, region)
    assert set(first) == {"s-region"}
    assert "secret     s-region" in said
    assert "NOTE: the pods" not in said
    assert len(first["s-region"]["secret"]) == 64
    parse(first["s-region"]["secret"], region)
    volume = {"secretName": "s-region", "defaultMode": 0o400, "items": [{"key": "secret", "path": "secret"}]}

    async def is_unchanged(expected: dict[str, dict[str, str]]) -> None:
        assert await secrets(cluster, region) == expected
        assert await mounted(cluster, region, "s") == volume

    await is_unchanged(first)
    for flags in ((), ("--reuse-values",), ("--reset-then-reuse-values",), ("--reuse-values", "--set", "zone=z")):
        said = await helm.install("s", region, values if not flags else {}, apply, *flags)
        assert "NOTE: the pods" not in said
        await is_unchanged(first)
    await helm.run("rollback", "s", "1", "--namespace", region, apply)
    await is_unchanged(first)

    # lines that were added in the cluster, in the middle of a rotation
    rotated = {"s-region": {"secret": f"{'n' * 32}\n{first['s-region']['secret']}\n"}}
    await edit(cluster, region, "s-region", rotated["s-region"]["secret"])
    await helm.install("s", region, {}, apply, "--reuse-values")
    await is_unchanged(rotated)
    await helm.run("rollback", "s", "1", "--namespace", region, apply)
    await is_unchanged(rotated)

    await helm.uninstall("s", region)
    assert await secrets(cluster, region) == rotated
    await helm.install("s", region, values, apply)
    await is_unchanged(rotated)
    assert "Secret" not in {one["kind"] for one in (await helm.objects("s", region)).all}, "helm's record has no secret"


async def test_two_releases_and_two_regions_have_secrets_of_their_own(cluster: KubeCluster, helm: Helm) -> None:
    both = [{"name": name, "createNamespace": True} for name in ("oa", "ob")]
    await helm.install("r", "own", {"regions": both})
    await helm.install("s", "own", three_lines("oc"))
    made = await secrets(cluster, "own")
    assert set(made) == {"r-oa-region", "r-ob-region", "s-region"}
    assert len({one["secret"] for one in made.values()}) == 3
    # a region that is taken out and comes back
    await helm.install("r", "own", {"regions": both[:1]})
    await helm.install("r", "own", {"regions": both})
    await helm.run("rollback", "r", "2", "--namespace", "own")
    await helm.run("rollback", "r", "1", "--namespace", "own")
    assert await secrets(cluster, "own") == made

    # a second release of one region, which was one cluster of peers as long as there was no secret
    said = await helm.install("t", "own", three_lines("oc"))
    assert "WARNING: DaemonSet s is of region oc too, and has the Secret s-region" in said
    shared = {**three_lines("oc"), "regionSecret": {"existingSecret": "s-region"}}
    said = await helm.install("t", "own", shared)
    assert "is of region oc too" not in said
    assert "pods of t have the Secret t-region until they are replaced, and then the Secret s-region" in said
    assert "unless each of the Secrets holds the first line of the other" in said


async def test_a_region_gets_its_secret_with_an_upgrade_and_keeps_it(cluster: KubeCluster, helm: Helm) -> None:
    said = await helm.install("s", "late", {**three_lines("late"), "regionSecret": {"generate": False}})
    assert "WARNING: region late has no secret" in said
    assert not await mounted(cluster, "late", "s")
    assert not await secrets(cluster, "late")

    said = await helm.install("s", "late", three_lines("late"))
    assert "NOTE: the pods of s have no secret until they are replaced, and then the Secret s-region" in said
    assert "no pull fails" in said
    made = await secrets(cluster, "late")
    assert (await mounted(cluster, "late", "s"))["secretName"] == "s-region"

    await helm.run("rollback", "s", "1", "--namespace", "late")
    assert not await mounted(cluster, "late", "s")
    await helm.run("rollback", "s", "2", "--namespace", "late")
    assert (await mounted(cluster, "late", "s"))["secretName"] == "s-region"
    said = await helm.install("s", "late", {}, "--reuse-values", "--set", "regionSecret.generate=false")
    assert "pods of s have the Secret s-region until they are replaced, and then none" in said
    assert await secrets(cluster, "late") == made


async def test_a_secret_of_the_operator_wins(cluster: KubeCluster, helm: Helm) -> None:
    await make_namespaces(cluster, "theirs")
    named = {**three_lines("theirs"), "regionSecret": {"existingSecret": "ours", "key": "psk"}}
    said = await helm.install("s", "theirs", named)
    assert "WARNING: the Secret theirs/ours does not exist" in said
    assert 'kubectl -n theirs create secret generic ours --from-literal=psk="$(openssl rand -hex 32)"' in said
    assert not await secrets(cluster, "theirs")
    await make_secret(cluster, "theirs", "ours", {"other": "x" * 32, "psk": ""})
    said = await helm.install("s", "theirs", named)
    assert "WARNING: the Secret theirs/ours has nothing under the key psk" in said
    assert "patch secret ours" in said
    await cluster.admin("DELETE", where("theirs", "ours"))
    await make_secret(cluster, "theirs", "ours", {"psk": "x" * 32})
    assert "WARNING: the Secret" not in await helm.install("s", "theirs", named)
    assert await secrets(cluster, "theirs") == {"ours": {"psk": "x" * 32}}
    assert (await mounted(cluster, "theirs", "s"))["secretName"] == "ours"


async def test_a_secret_that_was_made_by_hand_under_the_charts_name_is_used(cluster: KubeCluster, helm: Helm) -> None:
    await make_namespaces(cluster, "hand")
    await make_secret(cluster, "hand", "s-region", {"psk": "x" * 32})
    said = await helm.install("s", "hand", three_lines("hand"), fails=True)
    assert "Secret hand/s-region is there and has nothing under the key secret" in said
    assert "it has: psk" in said
    assert "daemonsets/s" not in await names_in(cluster, "hand"), "refused before anything was made"
    await helm.install("s", "hand", three_lines("hand"), "--set", "regionSecret.key=psk")
    await helm.install("s", "hand", {}, "--reuse-values")
    await helm.uninstall("s", "hand")
    assert await secrets(cluster, "hand") == {"s-region": {"psk": "x" * 32}}


async def test_a_secret_among_the_values_and_back(cluster: KubeCluster, helm: Helm) -> None:
    await helm.install("s", "valued", three_lines("valued"))
    await helm.install("s", "valued", {**three_lines("valued"), **OTHER_LINES})
    expected = {"s-region": {"secret": OTHER_LINES["regionSecret"]["value"]}}
    assert await secrets(cluster, "valued") == expected
    # who takes the value out again does not change the secret of the nodes
    for _ in range(2):
        await helm.install("s", "valued", three_lines("valued"))
        assert await secrets(cluster, "valued") == expected
    for revision in ("2", "1"):
        await helm.run("rollback", "s", revision, "--namespace", "valued")
        assert await secrets(cluster, "valued") == expected


async def test_the_secret_of_an_older_chart_is_not_deleted(cluster: KubeCluster, helm: Helm, tmp_path: Path) -> None:
    older = tmp_path / "older"
    shutil.copytree(CHART, older)
    (older / "templates" / "secret.yaml").write_text(OLDER_SECRET)
    await helm.run(
        "install", "older", str(older), "--namespace", "older", "--create-namespace", values=three_lines("older")
    )
    before = await secrets(cluster, "older")
    assert before == {"older-region": {"secret": "an older chart's secret", "more": "more"}}
    for _ in range(3):
        await helm.install("older", "older", {}, "--reuse-values")
        assert await secrets(cluster, "older") == before
    await helm.uninstall("older", "older")
    assert await secrets(cluster, "older") == before


async def test_who_may_not_read_namespaces_gets_a_secret_where_a_cluster_can_be_seen(
    cluster: KubeCluster, helm: Helm
) -> None:
    await make_namespaces(cluster, "blind", "spegel-blind")
    values = {**three_lines("blind"), "createNamespace": False, "namespaceCheck": False}
    said = await helm.install("s", "blind", values)
    # no controller makes the ServiceAccount `default` here
    assert "rendered without a look at the cluster" in said
    assert not await secrets(cluster, "blind")
    await cluster.admin("POST", "/api/v1/namespaces/blind/serviceaccounts", {"metadata": {"name": "default"}})
    assert "rendered without a look" not in await helm.install("s", "blind", values)
    made = await secrets(cluster, "blind")
    assert len(made["s-region"]["secret"]) == 64
    await helm.install("s", "blind", values)
    assert await secrets(cluster, "blind") == made


async def test_nothing_that_renders_without_the_cluster_makes_or_changes_a_secret(
    cluster: KubeCluster, helm: Helm
) -> None:
    await helm.install("s", "gitops", three_lines("gitops"))
    made = await secrets(cluster, "gitops")
    template = ("template", "s", str(CHART), "--namespace", "gitops")
    rendered = Objects(helm_without_a_cluster(*template, values=three_lines("gitops")))
    assert not [one for one in rendered.all if one["kind"] == "Secret"]
    # as Argo CD does: it applies what was rendered, again and again
    for one in rendered.of("DaemonSet"):
        path = f"/apis/apps/v1/namespaces/gitops/daemonsets/{one['metadata']['name']}"
        await cluster.admin(
            "PATCH", path, one, content_type="application/apply-patch+yaml",
            params={"fieldManager": "argocd", "force": "true"},
        )  # fmt: skip
    assert await secrets(cluster, "gitops") == made
    assert (await mounted(cluster, "gitops", "s"))["secretName"] == "s-region"
    said = await helm.install("s", "gitops", three_lines("gitops"), "--dry-run=client")
    assert "kind: Secret" not in said
    said = await helm.install("s", "gitops", three_lines("gitops"), "--dry-run=server")
    assert "kind: Secret" not in said, "it is there"
    assert await secrets(cluster, "gitops") == made


async def test_a_mesh_that_is_shared_with_spegel_gets_none(cluster: KubeCluster, helm: Helm) -> None:
    shared = {**three_lines("meshed"), "speil": {"dhtProtocolPrefix": "/spegel"}}
    said = await helm.install("s", "meshed", shared)
    assert "WARNING: region meshed has no secret" in said
    assert "speil.dhtProtocolPrefix is /spegel" in said
    assert not await secrets(cluster, "meshed")
    said = await helm.install("s", "meshed", three_lines("meshed"))
    assert "pods of s have no secret until they are replaced" in said
    assert set(await secrets(cluster, "meshed")) == {"s-region"}
