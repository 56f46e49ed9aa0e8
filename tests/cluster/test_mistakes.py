"""What operators get wrong, on a real cluster: one line says it, nothing crosses, pulls go on."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.cluster.conftest import BASE_NODES
from tests.cluster.lab.cluster import Cluster, is_ready
from tests.cluster.lab.install import CHART, EXAMPLES, NAMESPACE, install, logs, pods, uninstall, wait_until_ready
from tests.cluster.lab.waiting import wait_for
from tests.cluster.test_nodes import pull_on

pytestmark = pytest.mark.system
LABEL = "topology.kubernetes.io/region"


def label(cluster: Cluster, node: str, region: str | None) -> None:
    """A node's region, as an operator sets it, or takes it away."""
    cluster.control.client().patch("nodes", "", node, {"metadata": {"labels": {LABEL: region}}})


def test_a_node_without_the_label_holds_up_no_rollout(regions: Cluster) -> None:
    label(regions, "b2", None)
    try:
        wait_until_ready(regions, "a1", "a2", "b1")
        said = regions.helm(
            "upgrade", "speil-regiona", str(CHART), "-n", NAMESPACE, "--reuse-values",
            "--set=podAnnotations.turn=first", "--wait", "--timeout=120s",
        )  # fmt: skip
        assert "1 nodes have no label topology.kubernetes.io/region" in said
        assert "b2" in said
        assert {pod["metadata"]["annotations"]["turn"] for pod in pods(regions, "regiona").values()} == {"first"}
        assert set(pods(regions)) == {"a1", "a2", "b1"}
        assert pull_on(regions, "unlabelled", "b2")["b2"] > 0, "its pulls go to the upstream"
    finally:
        label(regions, "b2", "regionb")
    wait_until_ready(regions, *BASE_NODES)


def test_a_label_with_a_typo_keeps_the_node_out_and_is_named(regions: Cluster) -> None:
    before = regions.network.packets_between_regions()
    label(regions, "b2", "regoinb")
    try:
        wait_until_ready(regions, "a1", "a2", "b1")
        assert pull_on(regions, "typo", "b2")["b2"] > 0
        plan = regions.speil("region", "plan", "--from-nodes", fails=False)
        assert "regoinb" in plan
    finally:
        label(regions, "b2", "regionb")
    wait_until_ready(regions, *BASE_NODES)
    assert regions.network.packets_between_regions() == before


def test_both_regions_with_the_same_names_are_refused_by_helm(regions: Cluster) -> None:
    said = install(regions, "speil-regionb", EXAMPLES / "region-a.yaml", "--set=region=regionb", fails=True)
    assert "read as region regiona" in said
    wait_until_ready(regions, *BASE_NODES)


def test_a_lease_in_the_wrong_namespace_is_refused_by_helm(regions: Cluster) -> None:
    values = {
        "bootstrapKind": "kubernetes",
        "leaderElectionName": "spegel-leader-election-regionb",
        "leaderElectionNamespace": "spegel-regiona",
    }
    said = install(regions, "speil-regionb", values, fails=True)
    assert "correct one of them" in said
    wait_until_ready(regions, *BASE_NODES)


def test_without_its_role_the_pod_says_what_it_may_not_do(regions: Cluster) -> None:
    """As where somebody has taken the RoleBinding away. The region goes on with the leader that it had."""
    before = regions.network.packets_between_regions()
    binding = f"speil:{NAMESPACE}:speil-regionb"
    regions.kubectl("-n", "spegel-regionb", "delete", "rolebinding", binding)
    try:
        name = pods(regions)["b2"]["metadata"]["name"]
        regions.control.client().delete("pods", NAMESPACE, name)

        def denied() -> bool:
            found = pods(regions).get("b2")
            assert found is not None
            assert found["metadata"]["name"] != name
            lines = [line for line in logs(regions, "b2") if "not allowed" in json.dumps(line)]
            return any("spegel-regionb" in json.dumps(line) and "leases" in json.dumps(line) for line in lines)

        wait_for(denied, seconds=90, what="the log says what is not allowed")
    finally:
        regions.helm(
            "upgrade", "speil-regionb", str(CHART), "-n", NAMESPACE, "--reuse-values", "--force-conflicts",
        )  # fmt: skip
    wait_until_ready(regions, *BASE_NODES)
    assert regions.network.packets_between_regions() == before


def test_a_pending_pod_is_seen_by_status_and_verify(regions: Cluster) -> None:
    """Two DaemonSets for one node, which the chart refuses to make: the node port of one is taken by the other."""
    values: dict[str, Any] = {
        "bootstrapKind": "static",
        "staticBootstrapPeers": ["/ip4/10.0.0.7/tcp/5001"],
        "region": "regionc",
    }
    values |= {"nodeSelector": {"kubernetes.io/hostname": "b2", LABEL: "regionb"}}
    regions.helm(
        "install", "speil-regionc", str(CHART), "-n", NAMESPACE, "--set=image.repository=reg.test/speil,image.tag=test",
        values=values,
    )  # fmt: skip
    try:
        wait_for(lambda: "1 pending" in regions.speil("region", "status"), what="status shows it")
        said = regions.speil("region", "verify", "--regions=regionc", fails=True)
        assert "is Pending: " in said
        assert "free ports" in said
    finally:
        regions.helm("uninstall", "speil-regionc", "-n", NAMESPACE, "--no-hooks")
    wait_until_ready(regions, *BASE_NODES)


@pytest.mark.full
def test_one_release_for_all_regions(regions: Cluster) -> None:
    for region in ("regiona", "regionb"):
        uninstall(regions, f"speil-{region}")
    before = regions.network.packets_between_regions()
    values = {"createNamespace": True, "regions": [{"name": "regiona"}, {"name": "regionb"}]}
    said = install(regions, "speil", values)
    assert "region regiona" in said
    assert "region regionb" in said
    wait_for(lambda: set(pods(regions)) == set(BASE_NODES) and all(map(is_ready, pods(regions).values())), what="Ready")
    assert pull_on(regions, "all", "a1", "a2")["a2"] == 0
    assert pull_on(regions, "all-b", "b1", "b2")["b2"] == 0
    assert "fail" not in regions.speil("region", "verify")
    assert regions.network.packets_between_regions() == before
    uninstall(regions, "speil")
    for name in BASE_NODES:
        assert "_default/hosts.toml" not in regions.nodes[name].hosts_tree(), name
