"""What happens to nodes: added, drained, killed, their containerd restarted; and the API server away for a minute."""

from __future__ import annotations

import os
import time

import pytest

from tests.cluster.conftest import BASE_NODES
from tests.cluster.lab.cluster import Cluster, is_ready
from tests.cluster.lab.images import make_image
from tests.cluster.lab.install import REPOSITORY, holder, leader, pods, wait_until_ready
from tests.cluster.lab.layout import SPARE
from tests.cluster.lab.node_files import PAUSE_REFERENCE
from tests.cluster.lab.waiting import wait_for
from tests.cluster.lab.workloads import assert_no_failed_pulls, remove_all, start_pod, wait_running

pytestmark = pytest.mark.system
NODE_READY_SECONDS_MAX = 120.0
LEASE_SECONDS = 10.0
AWAY_SECONDS = 60.0 if os.environ.get("SPEIL_CLUSTER") == "full" else 25.0  # beyond a Lease's and a client's patience


def pull_on(cluster: Cluster, name: str, *nodes: str) -> dict[str, int]:
    """A new image on one node after the other. What each asked of the upstream."""
    reference = cluster.push(make_image(name, 4, 2), name)
    log = cluster.registry_log()
    for node in nodes:
        start_pod(cluster, f"{name}-{node}", reference, node)
        wait_running(cluster, [f"{name}-{node}"])
        wait_for(lambda node=node: reference in cluster.nodes[node].images(), what=f"{node} has {reference}")  # type: ignore[misc]
    return {node: log.by_node(name)[node] for node in nodes}


def test_containerd_restarts_under_it(regions: Cluster) -> None:
    node, restarted = regions.nodes["a1"], restarts(regions)
    node.kill("containerd")
    node.start_containerd()
    wait_for(lambda: "a1" in regions.ready_nodes(), what="a1 is Ready")
    upstream = pull_on(regions, "restarted", "a1", "a2")
    assert upstream["a1"] > 0
    assert upstream["a2"] == 0, "new content of a1 is announced"
    assert restarts(regions) == restarted
    assert_no_failed_pulls(regions)


def test_a_node_is_added_and_served_by_the_others(regions: Cluster) -> None:
    before = regions.network.packets_between_regions()
    pull_on(regions, "early", "a1")
    regions.nodes[SPARE].start()
    wait_for(lambda: SPARE in regions.ready_nodes(), seconds=NODE_READY_SECONDS_MAX, what=f"{SPARE} is Ready")
    wait_until_ready(regions, *BASE_NODES, SPARE)
    log = regions.registry_log()
    start_pod(regions, "early-again", "reg.test/early:1", SPARE)
    wait_running(regions, ["early-again"])
    assert log.by_node("early")[SPARE] == 0
    assert regions.network.packets_between_regions() == before

    # and is taken away again: drained, switched off, deleted
    remove_all(regions)
    regions.kubectl("drain", SPARE, "--ignore-daemonsets", "--delete-emptydir-data", "--timeout=60s")
    assert is_ready(pods(regions)[SPARE]), "a drained node still serves its peers"
    regions.nodes[SPARE].power_off()
    regions.control.client().delete("nodes", "", SPARE)
    wait_until_ready(regions, *BASE_NODES)
    assert_no_failed_pulls(regions)


def test_kubelet_and_containerd_of_the_leader_are_killed(regions: Cluster) -> None:
    """Its pod goes on, so the region is led; its containerd is gone, so its content is not there. Pulls go on."""
    node = leader(regions, "regionb")
    other = next(name for name in ("b1", "b2") if name != node)
    pull_on(regions, "before-kill", node)
    for program in ("kubelet", "containerd"):
        regions.nodes[node].kill(program)
    start_pod(regions, "after-kill", "reg.test/before-kill:1", other)
    wait_running(regions, ["after-kill"])
    assert_no_failed_pulls(regions)
    regions.nodes[node].start_containerd()
    regions.nodes[node].start_kubelet()
    wait_for(lambda: node in regions.ready_nodes(), seconds=NODE_READY_SECONDS_MAX, what=f"{node} is Ready")
    wait_until_ready(regions, *BASE_NODES)
    assert leader(regions, "regionb")


def test_the_leaders_node_loses_power_and_comes_back(regions: Cluster) -> None:
    node, first = leader(regions, "regionb"), holder(regions, "regionb")
    other = next(name for name in ("b1", "b2") if name != node)
    regions.nodes[node].power_off()
    off = time.monotonic()
    wait_for(lambda: holder(regions, "regionb") not in ("", first), what="the other node leads")
    took = time.monotonic() - off
    assert took <= 3 * LEASE_SECONDS, f"{took:.1f} s"
    assert pull_on(regions, "alone", other)[other] > 0
    regions.nodes[node].start()
    wait_for(lambda: node in regions.ready_nodes(), seconds=NODE_READY_SECONDS_MAX, what=f"{node} is Ready")
    wait_until_ready(regions, *BASE_NODES)

    def serves() -> bool:
        """Before, the API server shows the pod as it was."""
        return "fail" not in regions.speil("region", "verify")

    wait_for(serves, what="the region is whole")
    assert_no_failed_pulls(regions)


def restarts(cluster: Cluster) -> int:
    """Of all containers of speil."""
    return sum(one["restartCount"] for pod in pods(cluster).values() for one in pod["status"]["containerStatuses"])


def test_the_api_server_is_away_for_a_while(regions: Cluster) -> None:
    references = [regions.push(make_image(f"away-{number}", 4, 2), f"away-{number}") for number in range(2)]
    restarted = restarts(regions)
    log, before = regions.registry_log(), regions.network.packets_between_regions()
    regions.control.pause_api_server()
    started = time.monotonic()
    try:
        for reference in references:
            for node in ("a1", "a2"):
                regions.nodes[node].pull(reference)
        long_enough = started + AWAY_SECONDS
        wait_for(lambda: time.monotonic() >= long_enough, seconds=2 * AWAY_SECONDS, what="it was away for long enough")
    finally:
        regions.control.resume_api_server()
    upstream = log.by_node("away-0", "away-1")
    assert upstream["a1"] > 0
    assert upstream["a2"] == 0, "peers serve each other without the API server"
    client = regions.control.client()
    wait_for(client.is_ready, what="the API server is back")

    def is_renewed() -> bool:
        return "fail" not in regions.speil("region", "verify")

    wait_for(is_renewed, what="both regions are led")
    wait_until_ready(regions, *BASE_NODES)
    assert restarts(regions) == restarted
    assert all(holder(regions, region) for region in ("regiona", "regionb"))
    assert regions.network.packets_between_regions() == before


def test_the_kubelet_collects_an_image_and_gets_it_back_from_a_peer(regions: Cluster) -> None:
    """What its containerd has lost a node does not offer: a peer asks the upstream, and then has it for the node."""
    before, restarted = regions.network.packets_between_regions(), restarts(regions)
    node, image, reference = regions.nodes["a1"], make_image("collected", 4, 2), "reg.test/collected:1"
    pull_on(regions, "collected", "a1")
    layer = next(str(digest) for digest, data in image.blobs.items() if len(data) > 1 << 20)
    assert node.mirror_status("collected", "blobs", layer) == 200
    used = {one for one in node.images() if one.startswith((REPOSITORY, PAUSE_REFERENCE))}
    remove_all(regions)
    wait_for(lambda: reference not in node.run(*node.ctr("containers", "list")), what="no container uses the image")

    with node.collects_images():
        wait_for(lambda: reference not in node.images(), what="the kubelet has collected the image")
        assert used <= node.images(), "what containers use stays"
        assert node.mirror_status("collected", "blobs", layer) == 404
        assert node.mirror_status("collected", "manifests", "1") == 404
        log = regions.registry_log()
        start_pod(regions, "collected-a2", reference, "a2")
        wait_running(regions, ["collected-a2"])
        assert set(log.blobs("regiona", "collected").values()) == {1}, "the record of a1 is stale"
    wait_for(lambda: "a1" in regions.ready_nodes(), what="a1 is Ready")
    wait_for(lambda: reference in regions.nodes["a2"].images(), what="a2 has the image")

    log = regions.registry_log()
    start_pod(regions, "collected-a1", reference, "a1")
    wait_running(regions, ["collected-a1"])
    assert not log.by_node("collected")["a1"], "a1 takes it from a2"
    assert_no_failed_pulls(regions)
    assert restarts(regions) == restarted
    assert regions.network.packets_between_regions() == before
