"""The pods of a DaemonSet: on how many nodes they are to be ready, and on which they are not."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from speil.kube.api import KubeApi
from speil.kube.error import KubeError, KubeForbiddenError, KubeNotFoundError, KubeUnauthorizedError

PERIOD_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class DaemonSetState:
    """What the controller says, and the nodes whose pod is not ready, by name. `None`: it has not looked yet."""

    desired: int | None
    ready: int
    waiting: tuple[str, ...] = ()

    @property
    def is_ready(self) -> bool:
        """Whether every node that is to have a pod has a ready one. A node that is down counts as not ready."""
        return self.desired is not None and self.ready >= self.desired


async def daemonset_state(api: KubeApi, namespace: str, name: str) -> DaemonSetState:
    """One look. Raises KubeError."""
    document = (await api.request("GET", _path(namespace, name))).document
    status: dict[str, Any] = document.get("status") or {}
    if status.get("observedGeneration") != document["metadata"].get("generation"):
        return DaemonSetState(None, 0)
    desired, ready = int(status.get("desiredNumberScheduled") or 0), int(status.get("numberReady") or 0)
    if ready >= desired:
        return DaemonSetState(desired, ready)
    labels: dict[str, str] = document["spec"]["selector"]["matchLabels"]
    selector = {"labelSelector": ",".join(f"{key}={value}" for key, value in labels.items())}
    pods = (await api.request("GET", f"/api/v1/namespaces/{namespace}/pods", params=selector)).document
    waiting = sorted({_node_of(pod) for pod in pods.get("items") or () if not _is_ready(pod)})
    return DaemonSetState(desired, ready, tuple(waiting))


async def wait_for_daemonset(
    api: KubeApi, namespace: str, name: str, timeout_seconds: float, seen: Callable[[DaemonSetState], None]
) -> DaemonSetState:
    """Look until all pods are ready, or for `timeout_seconds`; the last look. `seen` gets each.

    An API server that is away for a while is asked again. Raises KubeError where it refuses, or was away at the end.
    """
    loop = asyncio.get_running_loop()
    deadline = loop.time() + timeout_seconds
    while True:
        try:
            state = await daemonset_state(api, namespace, name)
        except (KubeForbiddenError, KubeNotFoundError, KubeUnauthorizedError):
            raise
        except KubeError:
            if loop.time() >= deadline:
                raise
        else:
            seen(state)
            if state.is_ready or loop.time() >= deadline:
                return state
        await asyncio.sleep(PERIOD_SECONDS)


async def remove_daemonset(api: KubeApi, namespace: str, name: str) -> None:
    """With its pods. Raises KubeError."""
    await api.request("DELETE", _path(namespace, name), {"propagationPolicy": "Background"})


def _path(namespace: str, name: str) -> str:
    return f"/apis/apps/v1/namespaces/{namespace}/daemonsets/{name}"


def _is_ready(pod: dict[str, Any]) -> bool:
    conditions = (pod.get("status") or {}).get("conditions") or ()
    return any(one.get("type") == "Ready" and one.get("status") == "True" for one in conditions)


def _node_of(pod: dict[str, Any]) -> str:
    """The node that it runs on, or that its DaemonSet made it for."""
    spec = pod.get("spec") or {}
    if name := spec.get("nodeName"):
        return str(name)
    affinity = (spec.get("affinity") or {}).get("nodeAffinity") or {}
    required = affinity.get("requiredDuringSchedulingIgnoredDuringExecution") or {}
    for term in required.get("nodeSelectorTerms") or ():
        for field in term.get("matchFields") or ():
            if field.get("key") == "metadata.name" and field.get("values"):
                return str(field["values"][0])
    return str(pod["metadata"]["name"])
