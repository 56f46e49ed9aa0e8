"""The pods of a DaemonSet: on how many nodes they are to be ready, and on which they are not."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from speil.kube.api import KubeAnswer, KubeApi
from speil.kube.error import KubeError, KubeForbiddenError, KubeNotFoundError, KubeUnauthorizedError

PERIOD_SECONDS = 1.0
# A page is in memory at once: a megabyte of JSON, ten of objects. A hook that waits has 128 MiB, also for 5,000 nodes.
PODS_A_PAGE = 200
PAGES_MAX = 100  # four times the nodes of the largest clusters
WAITING_MAX = 50  # more than anybody reads


@dataclass(frozen=True, slots=True)
class DaemonSetState:
    """What the controller says, and at most WAITING_MAX nodes whose pod is not ready, by name.

    `desired` is None where the controller has not looked yet. `age_seconds` is the DaemonSet's age by the API server's
    clock; 0 where the response has no date.
    """

    desired: int | None
    ready: int
    waiting: tuple[str, ...] = ()
    age_seconds: float = 0.0

    @property
    def is_ready(self) -> bool:
        """Whether every node that is to have a pod has a ready one. A node that is down counts as not ready."""
        return self.desired is not None and self.ready >= self.desired


async def daemonset_state(
    api: KubeApi, namespace: str, name: str, before: DaemonSetState | None = None
) -> DaemonSetState:
    """One look. With the counts of the look `before`, the nodes are not looked up again. Raises KubeError."""
    answer = await api.request("GET", _path(namespace, name))
    document, age_seconds = answer.document, _age_seconds(answer)
    status: dict[str, Any] = document.get("status") or {}
    if status.get("observedGeneration") != document["metadata"].get("generation"):
        return DaemonSetState(None, 0, age_seconds=age_seconds)
    desired, ready = int(status.get("desiredNumberScheduled") or 0), int(status.get("numberReady") or 0)
    if ready >= desired:
        return DaemonSetState(desired, ready, age_seconds=age_seconds)
    if before is not None and (before.desired, before.ready) == (desired, ready):
        return replace(before, age_seconds=age_seconds)
    waiting = await _waiting(api, namespace, document["spec"]["selector"]["matchLabels"])
    return DaemonSetState(desired, ready, waiting, age_seconds)


async def _waiting(api: KubeApi, namespace: str, labels: dict[str, str]) -> tuple[str, ...]:
    params = {"labelSelector": ",".join(f"{key}={value}" for key, value in labels.items()), "limit": str(PODS_A_PAGE)}
    waiting: set[str] = set()
    for _ in range(PAGES_MAX):
        page = (await api.request("GET", f"/api/v1/namespaces/{namespace}/pods", params=params)).document
        waiting |= {_node_of(pod) for pod in page.get("items") or () if not _is_ready(pod)}
        following = (page.get("metadata") or {}).get("continue")
        if not following or len(waiting) >= WAITING_MAX:
            break
        params = {**params, "continue": following}
    return tuple(sorted(waiting)[:WAITING_MAX])


async def wait_for_daemonset(
    api: KubeApi,
    namespace: str,
    name: str,
    timeout_seconds: float,
    seen: Callable[[DaemonSetState], None],
    *,
    since_creation: bool = False,
) -> DaemonSetState:
    """Look until all pods are ready, or for `timeout_seconds`; the last look. `seen` gets each.

    With `since_creation` the time counts from when the DaemonSet was made: of several processes that wait one after the
    other, each ends when the first one would have. There is at least one look. An API server that is away for a while
    is asked again. Raises KubeError where it refuses, or was away at the end.
    """
    loop = asyncio.get_running_loop()
    deadline = loop.time() + timeout_seconds
    state: DaemonSetState | None = None
    while True:
        try:
            state = await daemonset_state(api, namespace, name, state)
        except (KubeForbiddenError, KubeNotFoundError, KubeUnauthorizedError):
            raise
        except KubeError:
            if loop.time() >= deadline:
                raise
        else:
            seen(state)
            if since_creation:
                deadline = min(deadline, loop.time() + timeout_seconds - state.age_seconds)
            if state.is_ready or loop.time() >= deadline:
                return state
        await asyncio.sleep(PERIOD_SECONDS)


async def remove_daemonset(api: KubeApi, namespace: str, name: str) -> None:
    """With its pods. Raises KubeError."""
    await api.request("DELETE", _path(namespace, name), {"propagationPolicy": "Background"})


def _path(namespace: str, name: str) -> str:
    return f"/apis/apps/v1/namespaces/{namespace}/daemonsets/{name}"


def _age_seconds(answer: KubeAnswer) -> float:
    """By the clock that wrote both times."""
    created = answer.document["metadata"].get("creationTimestamp")
    if answer.served_at is None or not created:
        return 0.0
    return max(0.0, (answer.served_at - datetime.fromisoformat(created)).total_seconds())


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
