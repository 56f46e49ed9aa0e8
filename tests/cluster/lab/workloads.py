"""Pods that people run: they wait, and what is looked at is how their image came."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from tests.cluster.lab.cluster import Cluster, is_ready
from tests.cluster.lab.layout import PRIVATE_REGISTRY
from tests.cluster.lab.waiting import wait_for
from tests.system.lab.registry import LOGIN

NAMESPACE = "default"
RUNNING_SECONDS_MAX = 120.0
PULL_SECRET = "private-registry"
_NO_SECRET = "FailedToRetrieveImagePullSecret"
_BAD_EVENTS = ("Failed", "BackOff", "ErrImagePull", "ErrImageNeverPull")


def start_pod(cluster: Cluster, name: str, image: str, node: str, policy: str = "IfNotPresent") -> None:
    """A pod on a node; not waited for."""
    body = {
        "metadata": {"name": name},
        "spec": {"nodeSelector": {"kubernetes.io/hostname": node}, **_spec(image, policy)},
    }
    cluster.control.client().create("pods", NAMESPACE, body)


def start_deployment(cluster: Cluster, name: str, image: str, region: str, policy: str, replicas: int = 1) -> None:
    """A Deployment on a region's nodes, one pod a node at most."""
    labels = {"app": name}
    apart = {"topologyKey": "kubernetes.io/hostname", "labelSelector": {"matchLabels": labels}}
    spec = {
        "nodeSelector": {"topology.kubernetes.io/region": region},
        "affinity": {"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [apart]}},
        **_spec(image, policy),
    }
    template = {"metadata": {"labels": labels}, "spec": spec}
    body = {
        "metadata": {"name": name},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": labels},
            "template": template,
            # no node has room for a second pod
            "strategy": {"rollingUpdate": {"maxSurge": 0, "maxUnavailable": 1}},
        },
    }
    cluster.control.client().create("deployments", NAMESPACE, body)


def _spec(image: str, policy: str) -> dict[str, Any]:
    secrets = {"imagePullSecrets": [{"name": PULL_SECRET}]} if image.startswith(PRIVATE_REGISTRY) else {}
    return {
        "terminationGracePeriodSeconds": 0,
        "automountServiceAccountToken": False,
        "containers": [{"name": "app", "image": image, "imagePullPolicy": policy}],
        # a node that was killed keeps nobody waiting
        "tolerations": [{"operator": "Exists"}],
        **secrets,
    }


def update_image(cluster: Cluster, name: str, image: str) -> None:
    """Give a Deployment's pods another image, one pod after the other, until all run it."""
    cluster.kubectl("-n", NAMESPACE, "set", "image", f"deployment/{name}", f"app={image}")
    timeout = f"--timeout={RUNNING_SECONDS_MAX:.0f}s"
    cluster.kubectl("-n", NAMESPACE, "rollout", "status", f"deployment/{name}", timeout)


def scale(cluster: Cluster, name: str, replicas: int) -> None:
    """Set the number of a Deployment's pods."""
    cluster.control.client().patch("deployments", NAMESPACE, name, {"spec": {"replicas": replicas}})


def make_pull_secret(cluster: Cluster) -> None:
    """What the private registry asks for, once."""
    if cluster.control.client().find("secrets", NAMESPACE, PULL_SECRET) is None:
        user, password = LOGIN
        login = [f"--docker-server={PRIVATE_REGISTRY}", f"--docker-username={user}", f"--docker-password={password}"]
        cluster.kubectl("create", "secret", "docker-registry", PULL_SECRET, *login)


def nodes_of(cluster: Cluster, name: str, count: int) -> list[str]:
    """The nodes of a Deployment's pods, once `count` of them are Ready."""

    def ready() -> list[str]:
        found = cluster.control.client().list("pods", NAMESPACE, labelSelector=f"app={name}")
        nodes = [pod["spec"]["nodeName"] for pod in found if is_ready(pod)]
        return sorted(nodes) if len(nodes) == count else []

    return wait_for(ready, seconds=RUNNING_SECONDS_MAX, what=f"{count} pods of {name} are Ready")


def wait_running(cluster: Cluster, names: Iterable[str]) -> None:
    """Each of these pods is Running."""
    left = set(names)

    def all_run() -> bool:
        for pod in cluster.control.client().list("pods", NAMESPACE):
            if pod["metadata"]["name"] in left and is_ready(pod):
                left.discard(pod["metadata"]["name"])
        return not left

    wait_for(all_run, seconds=RUNNING_SECONDS_MAX, what=f"pods run: {sorted(left)}")


def assert_no_failed_pulls(cluster: Cluster) -> None:
    """Fails with the event of each pull that failed.

    A container of a pod that is removed while it starts fails too: that is no pull. A kubelet that does not have the
    pull secret within a second, as where the API server is slow, pulls without it: the registry refuses that with speil
    and without. tests/system/test_private_images.py shows both.
    """
    events = cluster.control.client().list("events", NAMESPACE)
    without_secret = {one["involvedObject"]["uid"] for one in events if one["reason"] == _NO_SECRET}
    bad = [
        (one["involvedObject"]["name"], one.get("message", ""))
        for one in events
        if one["reason"] in _BAD_EVENTS and one["involvedObject"]["uid"] not in without_secret
    ]
    pulls = [f"{name}: {message}" for name, message in bad if re.search("pull|image", message, re.IGNORECASE)]
    assert not pulls, "\n".join(pulls)


def remove_all(cluster: Cluster) -> None:
    """All pods, Deployments and events of the tests."""
    for kind in ("deployments", "pods", "events"):
        query = "?gracePeriodSeconds=0&propagationPolicy=Background"
        group = {"deployments": "/apis/apps/v1"}.get(kind, "/api/v1")
        cluster.control.client().call("DELETE", f"{group}/namespaces/{NAMESPACE}/{kind}{query}")
    client = cluster.control.client()
    wait_for(lambda: not client.list("pods", NAMESPACE), seconds=RUNNING_SECONDS_MAX, what="the pods have gone")
