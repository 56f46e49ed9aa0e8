"""A Prometheus that reads pods as the chart's PodMonitor says, and kubelets: the dashboard's row of the kubelet.

Debian's Prometheus is built without discovery in Kubernetes. So the labels that discovery gives to a target are made
here, of what the API server says. Prometheus applies the relabelings of the PodMonitor.
"""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.chart.prometheus import Prometheus, prometheus
from tests.chart.questions import questions
from tests.chart.rendering import render
from tests.chart.test_prometheus import NO_DATA, name
from tests.cluster.conftest import BASE_NODES
from tests.cluster.lab.cluster import Cluster
from tests.cluster.lab.images import make_image
from tests.cluster.lab.layout import PLANS, REGISTRY
from tests.cluster.lab.waiting import wait_for
from tests.cluster.lab.workloads import start_pod, wait_running

pytestmark = [pytest.mark.system, pytest.mark.requires("promtool")]
SEEN_SECONDS_MAX = 120.0
KUBELET_PORT = 10250


def pods(cluster: Cluster, monitor: Mapping[str, Any]) -> dict[str, Any]:
    """The scrape configuration that the Prometheus operator makes of a PodMonitor: the part that is used here."""
    (endpoint,) = monitor["podMetricsEndpoints"]
    # the tests' releases have other names than the one that is rendered here
    selected = {key: value for key, value in monitor["selector"]["matchLabels"].items() if "instance" not in key}
    targets = []
    for pod in cluster.control.client().list("pods", "speil", labelSelector=_selector(selected)):
        for container in pod["spec"]["containers"]:
            for port in container.get("ports", ()):
                if port["name"] == endpoint["port"]:
                    address = f"{pod['status']['podIP']}:{port['containerPort']}"
                    labels = {"__meta_kubernetes_pod_node_name": pod["spec"]["nodeName"]}
                    targets.append({"targets": [address], "labels": labels})
    return {
        "job_name": "speil",
        "metrics_path": endpoint["path"],
        "honor_labels": endpoint["honorLabels"],
        "static_configs": targets,
        "relabel_configs": [{_snake(key): value for key, value in one.items()} for one in endpoint["relabelings"]],
    }


def _selector(labels: Mapping[str, str]) -> str:
    return ",".join(f"{key}={value}" for key, value in labels.items())


def _snake(key: str) -> str:
    return re.sub("[A-Z]", lambda found: f"_{found[0].lower()}", key)


def kubelets(cluster: Cluster) -> dict[str, Any]:
    """With the node's name in the label `node`, as the operator reads them."""
    return {
        "job_name": "kubelet",
        "scheme": "https",
        "tls_config": {
            "insecure_skip_verify": True,
            "cert_file": str(cluster.control.folder / "kubelet-client.crt"),
            "key_file": str(cluster.control.folder / "kubelet-client.key"),
        },
        "static_configs": [
            {"targets": [f"{PLANS[node].address}:{KUBELET_PORT}"], "labels": {"node": node}} for node in BASE_NODES
        ],
    }


def test_pulls_of_the_kubelets_are_shown_by_region_and_node(regions: Cluster, tmp_path: Path) -> None:
    monitor = render({"podMonitor": {"enabled": True}}).only("PodMonitor")["spec"]
    scraped = [pods(regions, monitor), kubelets(regions)]
    images = [regions.push(make_image(f"shown-{at}", 6, 1), f"shown-{at}") for at in range(2)]
    began = time.time()
    with prometheus(tmp_path, {"groups": []}, scraped) as server:
        wait_for(lambda: _nodes(server) == set(BASE_NODES), what="Prometheus reads all nodes")
        # the second one counts on what the first one begins; the kubelet tries the third again and again
        for at, image in enumerate(images):
            start_pod(regions, f"shown-{at}", image, "a1")
            wait_running(regions, [f"shown-{at}"])
            wait_for(lambda count=at + 1: _pulled(server, "a1") >= count, what="the kubelet's count is read")  # type: ignore[misc]
        start_pod(regions, "missing", f"{REGISTRY}/missing:1", "b1")
        node = {"Pulls that failed": ("regionb", "b1"), "Pulls of the kubelet": ("regiona", "a1")}
        for question in questions():
            if name(question) in NO_DATA:
                region, where = node.get(name(question), ("regiona", None))
                asked = question.asked(region=region, __rate_interval="1m")

                def shown(asked: str = asked, where: str | None = where) -> bool:
                    found = server.greatest(asked, began, time.time())
                    return any(one.value > 0 and one.labels.get("node") == where for one in found)

                wait_for(shown, seconds=SEEN_SECONDS_MAX, what=f"{question.panel} shows {region}")


def _nodes(server: Prometheus) -> set[str]:
    found = server.query("speil_store_available")
    assert all(one.labels["instance"] == one.labels["node"] for one in found)
    return {one.labels["node"] for one in found}


def _pulled(server: Prometheus, node: str) -> float:
    found = server.query(f'sum(kubelet_image_pull_duration_seconds_count{{node="{node}"}})')
    return sum(one.value for one in found)
