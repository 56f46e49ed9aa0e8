"""speil is updated while pods start: no pull fails, the leader hands over, nothing crosses."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise

import pytest

from tests.cluster.conftest import BASE_NODES
from tests.cluster.lab.cluster import Cluster
from tests.cluster.lab.images import make_image, with_more
from tests.cluster.lab.install import (
    CHART,
    NAMESPACE,
    REPOSITORY,
    holder,
    leader,
    logs,
    pods,
    push_speil,
    speil_image,
    wait_until_ready,
)
from tests.cluster.lab.layout import SPARE
from tests.cluster.lab.waiting import wait_for
from tests.cluster.lab.workloads import assert_no_failed_pulls, start_pod, wait_running
from tests.cluster.test_nodes import NODE_READY_SECONDS_MAX, restarts

pytestmark = pytest.mark.system
HANDOVER_SECONDS_MAX = 3.0
STREAM_IMAGES = 12


@contextmanager
def stream_of_pulls(cluster: Cluster, name: str) -> Iterator[list[str]]:
    """Pods of ever new images on both nodes of both regions, until all images are used. Yields the pods that run."""
    references = [
        cluster.push(make_image(f"{name}-{number}", 4, 2), f"{name}-{number}") for number in range(STREAM_IMAGES)
    ]
    ran: list[str] = []
    errors: list[BaseException] = []

    def start(nodes: tuple[str, ...]) -> None:
        try:
            with cluster.inside():
                for number, reference in enumerate(references):
                    for node in nodes:
                        start_pod(cluster, f"{name}-{number}-{node}", reference, node)
                        wait_running(cluster, [f"{name}-{number}-{node}"])
                        ran.append(f"{name}-{number}-{node}")
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=start, args=(nodes,)) for nodes in (("a1", "a2"), ("b2", "b1"))]
    for thread in threads:
        thread.start()
    try:
        yield ran
    finally:
        for thread in threads:
            thread.join()
    assert not errors, errors
    assert len(ran) == 4 * STREAM_IMAGES


def test_a_restart_under_a_stream_of_pulls_fails_none(regions: Cluster) -> None:
    before = regions.network.packets_between_regions()
    holders = {region: holder(regions, region) for region in ("regiona", "regionb")}
    handovers: dict[str, list[tuple[float, str]]] = {region: [] for region in holders}
    done = threading.Event()

    def watch() -> None:
        with regions.inside():
            while not done.wait(0.05):
                for region, seen in handovers.items():
                    now = holder(regions, region)
                    if not seen or seen[-1][1] != now:
                        seen.append((time.monotonic(), now))

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        with stream_of_pulls(regions, "restart") as ran:
            wait_for(lambda: len(ran) >= 4, what="pods start")
            regions.kubectl("-n", NAMESPACE, "rollout", "restart", "daemonset")
            for region in holders:
                regions.kubectl("-n", NAMESPACE, "rollout", "status", f"daemonset/speil-{region}", "--timeout=180s")
    finally:
        done.set()
        watcher.join()
    assert_no_failed_pulls(regions)
    wait_until_ready(regions, *BASE_NODES)
    assert restarts(regions) == 0
    for region, seen in handovers.items():
        assert holder(regions, region) != holders[region], "all pods are new"
        gaps = [
            later - earlier
            for (earlier, identity), (later, _) in pairwise(seen)
            if not identity  # released, and taken by the next
        ]
        assert all(gap <= HANDOVER_SECONDS_MAX for gap in gaps), (region, seen)
    assert regions.network.packets_between_regions() == before


def test_the_leaders_pod_is_deleted_and_another_leads_in_time(regions: Cluster) -> None:
    first, node = holder(regions, "regiona"), leader(regions, "regiona")
    started = time.monotonic()
    regions.control.client().delete("pods", NAMESPACE, pods(regions)[node]["metadata"]["name"])
    wait_for(lambda: holder(regions, "regiona") not in ("", first), what="another node leads")
    took = time.monotonic() - started
    assert took <= 2 * HANDOVER_SECONDS_MAX, f"{took:.1f} s, of which the pod's end is a part"
    wait_until_ready(regions, *BASE_NODES)
    lines = [line for line in logs(regions, "a1" if node == "a2" else "a2") if "bootstrapping again" in line["msg"]]
    assert {line["level"] for line in lines} <= {"INFO"}, "its only peer has left: that is no warning"


def test_upgraded_with_new_values_and_rolled_back(regions: Cluster) -> None:
    secret = regions.kubectl("-n", NAMESPACE, "get", "secret", "speil-regiona-region", "-o", "jsonpath={.data}")

    def log_levels() -> set[str]:
        found = pods(regions, "regiona").values()
        arguments = [one for pod in found for one in pod["spec"]["containers"][0]["args"]]
        return {one for one in arguments if one.startswith("--log-level=")}

    regions.helm(
        "upgrade", "speil-regiona", str(CHART), "-n", NAMESPACE, "--reuse-values", "--set=spegel.logLevel=DEBUG",
        "--wait", "--timeout=120s",
    )  # fmt: skip
    assert log_levels() == {"--log-level=DEBUG"}
    regions.helm("rollback", "speil-regiona", "-n", NAMESPACE, "--wait", "--timeout=120s")
    wait_for(lambda: log_levels() == {"--log-level=INFO"}, what="the old values are back")
    wait_until_ready(regions, *BASE_NODES)
    now = regions.kubectl("-n", NAMESPACE, "get", "secret", "speil-regiona-region", "-o", "jsonpath={.data}")
    assert now == secret
    assert "fail" not in regions.speil("region", "verify")


def push_next(cluster: Cluster, name: str) -> str:
    """A later release of speil in the registry, which no earlier run has left on a node; its tag."""
    tag = f"{name}-{os.getpid()}"
    push_speil(cluster, with_more(speil_image(cluster), tag), tag)
    return tag


def test_a_new_image_of_speil_is_asked_of_the_upstream_once_a_region(regions: Cluster) -> None:
    tag = push_next(regions, "next")
    log, before = regions.registry_log(), regions.network.packets_between_regions()
    for region in ("regiona", "regionb"):
        regions.helm(
            "upgrade", f"speil-{region}", str(CHART), "-n", NAMESPACE, "--reuse-values", f"--set=image.tag={tag}",
            "--wait", "--timeout=180s",
        )  # fmt: skip
        blobs = log.blobs(region, "speil")
        assert len(blobs) == 2, "a config and a layer; the others are there"
        assert set(blobs.values()) == {1}, f"{region}: {blobs}"
    wait_until_ready(regions, *BASE_NODES)
    assert {pod["spec"]["containers"][0]["image"] for pod in pods(regions).values()} == {f"{REPOSITORY}:{tag}"}
    assert not regions.control.client().list("jobs", NAMESPACE)
    assert len(regions.control.client().list("daemonsets", NAMESPACE)) == 2
    assert regions.network.packets_between_regions() == before


@pytest.mark.full
def test_a_new_image_of_speil_is_asked_of_the_upstream_once_in_a_region_of_three(regions: Cluster) -> None:
    regions.nodes[SPARE].start()
    wait_for(lambda: SPARE in regions.ready_nodes(), seconds=NODE_READY_SECONDS_MAX, what=f"{SPARE} is Ready")
    wait_until_ready(regions, *BASE_NODES, SPARE)
    tag = push_next(regions, "third")
    log, before = regions.registry_log(), regions.network.packets_between_regions()
    regions.helm(
        "upgrade", "speil-regiona", str(CHART), "-n", NAMESPACE, "--reuse-values", f"--set=image.tag={tag}",
        "--wait", "--timeout=180s",
    )  # fmt: skip
    blobs = log.blobs("regiona", "speil")
    assert len(blobs) == 2, "a config and a layer; the others are there"
    assert set(blobs.values()) == {1}, blobs
    wait_until_ready(regions, *BASE_NODES, SPARE)
    assert {pod["spec"]["containers"][0]["image"] for pod in pods(regions, "regiona").values()} == {
        f"{REPOSITORY}:{tag}"
    }
    assert regions.network.packets_between_regions() == before
    regions.nodes[SPARE].power_off()
    regions.control.client().delete("nodes", "", SPARE)
    wait_until_ready(regions, *BASE_NODES)
