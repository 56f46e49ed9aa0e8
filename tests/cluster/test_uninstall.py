"""What an uninstall leaves: nothing on the region's nodes, everything on the other's; and what a dead node means."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.cluster.conftest import BASE_NODES
from tests.cluster.lab.cluster import Cluster, is_ready
from tests.cluster.lab.install import (
    CHART,
    EXAMPLES,
    NAMESPACE,
    are_ready,
    install,
    install_regions,
    pods,
    uninstall,
    wait_until_ready,
)
from tests.cluster.lab.waiting import wait_for

pytestmark = pytest.mark.system
OWN = 'server = "https://own.example"\n\n[host."https://mirror.example"]\n  capabilities = ["pull", "resolve"]\n'
LEASE = ("leases", "spegel-regiona", "spegel-leader-election-regiona")


@contextmanager
def hook_pod_on(cluster: Cluster, node: str, *, away_from: str) -> Iterator[None]:
    """Until the pod of a hook's Job is on `node`, no other node of the region takes it."""
    client, done = cluster.control.client(), threading.Event()

    def bound() -> bool:
        found = client.list("pods", NAMESPACE, labelSelector="app.kubernetes.io/component=cleanup-wait")
        return any(pod["spec"].get("nodeName") == node for pod in found)

    def watch() -> None:
        with cluster.inside():
            try:
                while not done.wait(0.1) and not bound():
                    pass
                was_bound.append(not done.is_set())
            finally:
                cluster.kubectl("uncordon", away_from)

    was_bound: list[bool] = []
    cluster.kubectl("cordon", away_from)
    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield
    finally:
        done.set()
        watcher.join()
    assert was_bound == [True], f"the hook's pod was not put on {node}"


@pytest.mark.full
def test_with_the_registry_away_an_upgrade_and_an_uninstall_work(regions: Cluster) -> None:
    """The images of the hooks are on the nodes already."""
    regions.control.stop_registries()
    try:
        regions.helm(
            "upgrade", "speil-regionb", str(CHART), "-n", NAMESPACE, "--reuse-values",
            "--set=podAnnotations.turn=away", "--wait", "--timeout=120s",
        )  # fmt: skip
        assert {pod["metadata"]["annotations"]["turn"] for pod in pods(regions, "regionb").values()} == {"away"}
        uninstall(regions, "speil-regionb")
    finally:
        regions.control.start_registries()
    for name in ("b1", "b2"):
        assert "_default/hosts.toml" not in regions.nodes[name].hosts_tree(), name


def test_a_dead_node_is_named_and_cleans_up_when_it_is_back(regions: Cluster) -> None:
    dead = regions.nodes["b2"]
    regions.helm(
        "upgrade", "speil-regionb", str(CHART), "-n", NAMESPACE, "--reuse-values",
        "--set=cleanup.timeoutSeconds=15", "--wait", "--timeout=120s",
    )  # fmt: skip
    dead.power_off()
    with hook_pod_on(regions, "b2", away_from="b1"):
        said = uninstall(regions, "speil-regionb", fails=True)
    assert "speil-regionb-cleanup-wait" in said
    # of the pod that took the place of the one on b2
    log = regions.kubectl("-n", NAMESPACE, "logs", "job/speil-regionb-cleanup-wait")
    assert "1 of 2 nodes cleaned up in 15 s; not yet: b2" in log
    assert "_default/hosts.toml" not in regions.nodes["b1"].hosts_tree()

    again = install(regions, "speil-regionb", EXAMPLES / "region-b.yaml", fails=True)
    refused = [line for line in again.splitlines() if "Error" in line]
    assert "kubectl -n speil delete daemonset speil-regionb-cleanup" in refused[0]

    dead.start()
    wait_for(lambda: "b2" in regions.ready_nodes(), seconds=120, what="b2 is back")

    def is_clean() -> bool:
        return "_default/hosts.toml" not in dead.hosts_tree()

    wait_for(is_clean, seconds=120, what="b2 has cleaned up")
    regions.kubectl("-n", NAMESPACE, "delete", "daemonset", "speil-regionb-cleanup")
    list(install_regions(regions))
    wait_for(lambda: "b2" in pods(regions) and is_ready(pods(regions)["b2"]), seconds=120, what="b2 runs speil again")


def test_the_regions_nodes_get_back_what_they_had(cluster: Cluster) -> None:
    if not are_ready(cluster, *BASE_NODES):
        list(install_regions(cluster))
    uninstall(cluster, "speil-regiona")
    before = {name: cluster.nodes[name].hosts_tree() for name in ("a1", "a2")}
    assert not any("_default/hosts.toml" in tree for tree in before.values())
    cluster.nodes["a1"].write_hosts_file("/etc/containerd/certs.d/own.example/hosts.toml", OWN)
    before["a1"] = cluster.nodes["a1"].hosts_tree()
    install(cluster, "speil-regiona", EXAMPLES / "region-a.yaml")
    wait_until_ready(cluster, *BASE_NODES)
    assert cluster.nodes["a1"].hosts_tree() != before["a1"]
    of_b = {name: cluster.nodes[name].hosts_tree() for name in ("b1", "b2")}

    uninstall(cluster, "speil-regiona")
    for name, tree in before.items():
        assert cluster.nodes[name].hosts_tree() == tree, name
    assert {name: cluster.nodes[name].hosts_tree() for name in of_b} == of_b
    client = cluster.control.client()
    wait_for(lambda: client.find(*LEASE) is None, what="the Lease has gone with its region")
    assert client.find("leases", "spegel-regionb", "spegel-leader-election-regionb") is not None
    left = [one["metadata"]["name"] for one in client.list("daemonsets", NAMESPACE)]
    assert left == ["speil-regionb"]
    assert "fail" not in cluster.speil("region", "verify")
    cluster.nodes["a1"].run("rm", "-r", "/etc/containerd/certs.d/own.example")
