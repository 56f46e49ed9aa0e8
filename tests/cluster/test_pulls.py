"""Pods of Deployments: a region asks the upstream once, its second node takes all from the first, nothing crosses."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.cluster.lab.cluster import Cluster
from tests.cluster.lab.images import make_image
from tests.cluster.lab.layout import PLANS, PRIVATE_REGISTRY, REGISTRY
from tests.cluster.lab.registry_log import RegistryLog
from tests.cluster.lab.waiting import wait_for
from tests.cluster.lab.workloads import (
    assert_no_failed_pulls,
    make_pull_secret,
    nodes_of,
    scale,
    start_deployment,
    start_pod,
    update_image,
    wait_running,
)

pytestmark = pytest.mark.system
REGIONS = ("regiona", "regionb")


def has_image(cluster: Cluster, node: str, reference: str) -> None:
    """Its node has announced it to its peers: that takes seconds after the content is on the node."""
    wait_for(lambda: reference in cluster.nodes[node].images(), what=f"{node} has {reference}")


def roll_out(cluster: Cluster, name: str, reference: str, region: str, policy: str, log: RegistryLog) -> None:
    """One pod, then a second on the region's other node, which asks nobody but its peer."""
    start_deployment(cluster, name, reference, region, policy)
    (first,) = nodes_of(cluster, name, 1)
    has_image(cluster, first, reference)
    scale(cluster, name, 2)
    second = next(node for node in nodes_of(cluster, name, 2) if node != first)
    repository = reference.partition("/")[2].rpartition(":")[0]
    assert log.by_node(repository)[second] == 0, "the second node asked the upstream"


@pytest.mark.parametrize("policy", ["IfNotPresent", "Always"])
def test_the_second_node_takes_all_from_the_first(regions: Cluster, policy: str) -> None:
    name = f"app-{policy.lower()}"
    image = make_image(name, 24, 3)
    reference = regions.push(image, name)
    log, before = regions.registry_log(), regions.network.packets_between_regions()
    for region in REGIONS:
        roll_out(regions, f"{name}-{region}", reference, region, policy, log)
        blobs = log.blobs(region, name)
        assert set(blobs.values()) == {1}, "the region asked the upstream once"
        assert len(blobs) == 4, "a config and three layers; the fourth is the sandbox image's too"
    start_deployment(regions, f"{name}-never", reference, "regiona", "Never", 2)
    assert nodes_of(regions, f"{name}-never", 2) == ["a1", "a2"]
    assert_no_failed_pulls(regions)
    assert regions.network.packets_between_regions() == before


def test_a_rolling_update_takes_one_copy_of_the_new_image_a_region(regions: Cluster) -> None:
    """No node waits for another here: the Deployment goes on as soon as a pod is Ready."""
    before, names = regions.network.packets_between_regions(), [f"rolled-{region}" for region in REGIONS]
    first, second = (regions.push(make_image(f"rolled-{tag}", 12, 3), "rolled", tag) for tag in ("1", "2"))
    for name, region in zip(names, REGIONS, strict=True):
        start_deployment(regions, name, first, region, "IfNotPresent", 2)
    for name in names:
        nodes_of(regions, name, 2)
    log = regions.registry_log()
    for name, region in zip(names, REGIONS, strict=True):
        update_image(regions, name, second)
        blobs = log.blobs(region, "rolled")
        assert len(blobs) == 4, "a config and three layers; the fourth is that of the first image"
        assert set(blobs.values()) == {1}, blobs
    assert_no_failed_pulls(regions)
    assert regions.network.packets_between_regions() == before


def test_a_private_image_with_a_pull_secret(regions: Cluster) -> None:
    make_pull_secret(regions)
    image = make_image("private", 8, 2)
    reference = regions.push(image, "private", private=True)
    log, before = regions.registry_log(PRIVATE_REGISTRY), regions.network.packets_between_regions()
    for region in REGIONS:
        roll_out(regions, f"private-{region}", reference, region, "IfNotPresent", log)
        assert set(log.blobs(region, "private").values()) == {1}
    assert_no_failed_pulls(regions)
    assert regions.network.packets_between_regions() == before


def traffic(cluster: Cluster, region: str, registry: str) -> dict[str, int]:
    """What `speil region status` says of a registry in a region."""
    document: list[dict[str, Any]] = json.loads(cluster.speil("region", "status", "--output", "json"))
    (found,) = [one for one in document if one["region"] == region]
    return dict(found["registries"].get(registry, {}))


def test_the_hit_ratio_is_what_the_registrys_own_log_says(regions: Cluster) -> None:
    before = traffic(regions, "regiona", REGISTRY)
    log = regions.registry_log()
    for number in range(3):
        reference = regions.push(make_image(f"ratio-{number}", 6, 2), f"ratio-{number}")
        for node in ("a1", "a2"):
            start_pod(regions, f"ratio-{number}-{node}", reference, node)
            wait_running(regions, [f"ratio-{number}-{node}"])
            has_image(regions, node, reference)

    upstream = log.requests("ratio-0", "ratio-1", "ratio-2")
    assert {request.node for request in upstream} == {"a1"}
    blobs = sum(request.size_bytes for request in upstream if request.method == "GET" and request.kind == "blobs")

    def agrees() -> bool:
        after = traffic(regions, "regiona", REGISTRY)
        grown = {key: after[key] - before.get(key, 0) for key in ("hits", "misses", "peer_bytes", "upstream_bytes")}
        assert grown["misses"] == len(upstream), (grown, len(upstream))
        assert grown["hits"] == grown["misses"], "the second node asked the same, and peers had it"
        assert grown["peer_bytes"] >= blobs, (grown, blobs)
        assert abs(grown["upstream_bytes"] - blobs) <= blobs // 100, (grown, blobs)
        return True

    wait_for(agrees, what="status and the registry's log agree")


def test_one_image_on_all_nodes_at_the_same_moment(regions: Cluster) -> None:
    reference = regions.push(make_image("crowd", 48, 3), "crowd")
    log, before = regions.registry_log(), regions.network.packets_between_regions()
    nodes = [name for name in PLANS if name in regions.ready_nodes()]
    for node in nodes:
        start_pod(regions, f"crowd-{node}", reference, node)
    wait_running(regions, [f"crowd-{node}" for node in nodes])
    for region in REGIONS:
        blobs = log.blobs(region, "crowd")
        assert len(blobs) == 4, "a config and three layers"
        # Two nodes that ask before either has a first byte both go upstream, and no node goes twice.
        assert max(blobs.values()) <= sum(PLANS[node].region == region for node in nodes), blobs
    assert_no_failed_pulls(regions)
    assert regions.network.packets_between_regions() == before
