"""Longer ways: from a release of Spegel's shape, a rotated secret, and speil's own image while the registry is away."""

from __future__ import annotations

import base64

import pytest

from tests.cluster.conftest import BASE_NODES
from tests.cluster.lab.cluster import Cluster
from tests.cluster.lab.dns import cluster_dns
from tests.cluster.lab.images import make_image
from tests.cluster.lab.install import (
    CHART,
    EXAMPLES,
    NAMESPACE,
    REPOSITORY,
    TAG,
    install,
    install_regions,
    pods,
    uninstall,
    wait_until_ready,
)
from tests.cluster.lab.layout import PLANS
from tests.cluster.lab.waiting import wait_for
from tests.cluster.lab.workloads import assert_no_failed_pulls
from tests.cluster.test_nodes import pull_on
from tests.requirements import ROOT

pytestmark = [pytest.mark.system, pytest.mark.full]
SPEGELS_CHART = ROOT / "tests" / "system" / "kube" / "spegel_chart"
SPEGELS_HOSTS = '[host."http://{address}:30020"]\ncapabilities = ["pull", "resolve"]\ndial_timeout = "200ms"\n'
OWN = 'server = "https://own.example"\n'
KUBELET_SECRET_SECONDS_MAX = 150.0


def test_from_a_release_of_spegel_by_the_documented_commands(regions: Cluster) -> None:
    """docs/migrating-from-spegel.md, section 2. What was there before Spegel is there again when speil goes."""
    for region in ("regiona", "regionb"):
        uninstall(regions, f"speil-{region}")
    regions.push(make_image("spegel", 1, 1), "spegel-shaped", "v0.7.4")
    regions.helm(
        "install", "spegel", str(SPEGELS_CHART), "-n", "spegel", "--create-namespace", "--wait", "--timeout=90s",
        values={
            "image": {"repository": "reg.test/spegel-shaped"},
            "service": {"registry": {"port": 5000, "hostPort": 30020, "nodePort": 30021}},
        },
    )  # fmt: skip
    for name in BASE_NODES:
        node, text = regions.nodes[name], SPEGELS_HOSTS.format(address=PLANS[name].address)
        node.write_hosts_file("/etc/containerd/certs.d/_default/hosts.toml", text)
        node.write_hosts_file("/etc/containerd/certs.d/_backup/own.example/hosts.toml", OWN)

    refused = regions.helm("upgrade", "spegel", str(CHART), "-n", "spegel", "--reuse-values", fails=True)
    assert "Nothing was changed" in refused
    regions.helm("uninstall", "spegel", "-n", "spegel", "--no-hooks")
    assert "_default/hosts.toml" in regions.nodes["a1"].hosts_tree()
    list(install_regions(regions))
    wait_until_ready(regions, *BASE_NODES)
    assert pull_on(regions, "moved", "a1", "a2")["a2"] == 0
    uninstall(regions, "speil-regiona")
    tree = regions.nodes["a1"].hosts_tree()
    assert {path: text for path, (text, _) in tree.items()} == {"own.example/hosts.toml": OWN}
    for name in BASE_NODES:
        regions.nodes[name].run(
            "sh", "-c", "rm -rf /etc/containerd/certs.d/own.example /etc/containerd/certs.d/_backup/own.example"
        )


def secret_lines(cluster: Cluster, node: str) -> list[str]:
    """The region's secret as the node's pod sees it."""
    name = pods(cluster)[node]["metadata"]["name"]
    code = "print(open('/etc/secrets/region/secret').read())"
    said = cluster.kubectl("-n", NAMESPACE, "exec", name, "-c", "registry", "--", "/usr/bin/python3", "-c", code)
    return said.split()


def test_the_regions_secret_is_rotated(regions: Cluster) -> None:
    """docs/regions.md: the new line below, then above, a restart, then without the old one."""
    client = regions.control.client()
    found = client.find("secrets", NAMESPACE, "speil-regiona-region")
    assert found is not None
    old, new = base64.b64decode(found["data"]["secret"]).decode().strip(), "b" * 40
    for step, lines in enumerate(([old, new], [new, old], [new])):
        body = {"stringData": {"secret": "\n".join(lines)}}
        client.patch("secrets", NAMESPACE, "speil-regiona-region", body)
        for node in ("a1", "a2"):
            wait_for(
                lambda node=node, lines=lines: secret_lines(regions, node) == lines,  # type: ignore[misc]
                seconds=KUBELET_SECRET_SECONDS_MAX,
                what=f"the kubelet of {node} has written the secret",
            )
        if lines[0] == new and len(lines) == 2:
            regions.kubectl("-n", NAMESPACE, "rollout", "restart", "daemonset/speil-regiona")
            regions.kubectl("-n", NAMESPACE, "rollout", "status", "daemonset/speil-regiona", "--timeout=120s")
            wait_until_ready(regions, *BASE_NODES)
        assert pull_on(regions, f"rotated-{step}", "a1", "a2")["a2"] == 0
    assert_no_failed_pulls(regions)
    assert "fail" not in regions.speil("region", "verify")


def test_nodes_find_each_other_by_the_headless_service(regions: Cluster) -> None:
    """bootstrapKind dns: no Lease is written, and no right is needed for one."""
    before = regions.network.packets_between_regions()
    uninstall(regions, "speil-regiona")
    lease = ("leases", "spegel-regiona", "spegel-leader-election-regiona")
    wait_for(lambda: regions.control.client().find(*lease) is None, what="the Lease has gone with its region")
    with cluster_dns(regions) as asked:
        install(regions, "speil-regiona", {"bootstrapKind": "dns", "region": "regiona"})
        wait_until_ready(regions, *BASE_NODES)
        assert "speil-regiona-bootstrap.speil.svc.cluster.local" in asked
        assert pull_on(regions, "by-dns", "a1", "a2")["a2"] == 0
        assert pull_on(regions, "by-dns-back", "a2", "a1")["a1"] == 0
        assert "fail" not in regions.speil("region", "verify")
        uninstall(regions, "speil-regiona")
    assert regions.control.client().find(*lease) is None
    assert "_default/hosts.toml" not in regions.nodes["a1"].hosts_tree()
    list(install_regions(regions))
    wait_until_ready(regions, *BASE_NODES)
    assert_no_failed_pulls(regions)
    assert regions.network.packets_between_regions() == before


def test_speils_image_comes_from_a_peer_while_the_registry_is_away(regions: Cluster) -> None:
    """A node that has lost it: its containerd asks the node port, where the region's other node answers."""
    values = {
        "service": {"registry": {"nodePort": 30021}},
        "networkPolicy": {"registryFrom": [{"ipBlock": {"cidr": "10.90.0.0/16"}}]},
    }
    upgrade = ["upgrade", "speil-regiona", str(CHART), "-n", NAMESPACE, "--reuse-values", f"--set=image.tag={TAG}"]
    said = regions.helm(*upgrade, "--dry-run=server", values={"service": values["service"]})
    assert "reaches the node that is asked and no other" in said
    said = regions.helm(*upgrade, "--wait", "--timeout=120s", values=values)
    assert "reaches the node that is asked and no other" not in said
    wait_until_ready(regions, *BASE_NODES)
    node = regions.nodes["a2"]
    regions.control.stop_registries()
    try:
        name = pods(regions)["a2"]["metadata"]["name"]
        node.kill("kubelet")  # or it would start the pod before the image has gone
        images = [one for one in node.images() if one.startswith((f"{REPOSITORY}:", f"{REPOSITORY}@"))]
        node.run(*node.ctr("images", "remove", "--sync", *images))
        regions.control.client().delete("pods", NAMESPACE, name, 0)
        node.start_kubelet()
        wait_until_ready(regions, *BASE_NODES)
        assert pods(regions)["a2"]["metadata"]["name"] != name
        pulled = " ".join(regions.control.client().messages(NAMESPACE, name=pods(regions)["a2"]["metadata"]["name"]))
        assert "Successfully pulled image" in pulled
    finally:
        regions.control.start_registries()
    install(regions, "speil-regiona", EXAMPLES / "region-a.yaml", "--reset-values")
    wait_until_ready(regions, *BASE_NODES)
