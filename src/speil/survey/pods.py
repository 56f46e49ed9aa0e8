"""The pods of speil's nodes in a cluster."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from speil.kube.api import KubeApi
from speil.kube.error import KubeError, KubeNotFoundError
from speil.survey.error import SurveyError, survey_error

POD_LABEL = "app.kubernetes.io/name=speil"
REGION_LABEL = "speil.dev/region"  # the chart's
NAMED_MAX = 10  # names in one error line


@dataclass(frozen=True, slots=True)
class Pod:
    """A pod of the DaemonSet. `node` is "" until it is scheduled, `waits` is why it does not run yet ("": it runs)."""

    namespace: str
    name: str
    node: str
    region: str
    waits: str = ""

    def proxy_path(self, port: int) -> str:
        """The path on the API server that leads to a port of the pod."""
        return f"/api/v1/namespaces/{self.namespace}/pods/{self.name}:{port}/proxy"


async def pods_in_cluster(api: KubeApi, namespace: str = "") -> list[Pod]:
    """The pods that run, or have not started; of one namespace, or of all. Raises SurveyError."""
    path = f"/api/v1/namespaces/{namespace}/pods" if namespace else "/api/v1/pods"
    try:
        answer = await api.request("GET", path, params={"labelSelector": POD_LABEL})
    except KubeError as error:
        raise survey_error(error) from error
    items = [pod for pod in answer.document.get("items") or () if isinstance(pod, dict)]
    return [_pod(pod) for pod in items if _lives(pod)]


def _lives(pod: Mapping[str, Any]) -> bool:
    phase = (pod.get("status") or {}).get("phase")
    return phase in ("Running", "Pending") and not pod["metadata"].get("deletionTimestamp")


def _pod(pod: Mapping[str, Any]) -> Pod:
    metadata, status = pod["metadata"], pod.get("status") or {}
    node = (pod.get("spec") or {}).get("nodeName") or ""
    region = (metadata.get("labels") or {}).get(REGION_LABEL, "")
    waits = "" if status.get("phase") == "Running" else _reason(status, is_scheduled=bool(node))
    return Pod(metadata["namespace"], metadata["name"], node, region, waits)


def _reason(status: Mapping[str, Any], *, is_scheduled: bool) -> str:
    """Why a pod is Pending, in the words of the scheduler or the kubelet."""
    containers = [*(status.get("initContainerStatuses") or ()), *(status.get("containerStatuses") or ())]
    waiting = [(one.get("state") or {}).get("waiting") or {} for one in containers]
    scheduled = [one for one in status.get("conditions") or () if one.get("type") == "PodScheduled"]
    said = [one.get("message") or one.get("reason") for one in (waiting if is_scheduled else scheduled)]
    return next((str(one) for one in said if one), "no reason given")


async def pod_of_node(api: KubeApi, node: str, namespace: str = "") -> Pod:
    """The running pod on a node. Raises SurveyError: no such node (with near names), no pod there, it does not run."""
    pods = await pods_in_cluster(api, namespace)
    if not pods:
        where = f"namespace {namespace}" if namespace else "this cluster"
        raise SurveyError(
            f"{where} has no pods of speil ({POD_LABEL}): is it installed, and is --context the right one?"
        )
    here = [pod for pod in pods if pod.node == node]
    if running := [pod for pod in here if not pod.waits]:
        return running[0]
    if here:
        raise SurveyError(f"node {node}: pod {here[0].name} is Pending: {here[0].waits}")
    if await _exists(api, node):
        raise SurveyError(
            f"node {node} has no pod of speil: does its region label match a release, and do its taints allow the pod?"
        )
    raise SurveyError(f"there is no node {node!r}{near(node, [pod.node for pod in pods])}")


async def _exists(api: KubeApi, node: str) -> bool:
    """Whether the cluster has a node of that name; False where it may not be asked."""
    try:
        await api.request("GET", f"/api/v1/nodes/{node}")
    except KubeNotFoundError:
        return False
    except KubeError:
        return False
    return True


def near(name: str, known: Iterable[str]) -> str:
    """The end of an error line: the nearest of the known names, else the names that there are."""
    names = sorted({one for one in known if one})
    if close := difflib.get_close_matches(name, names, n=3, cutoff=0.6):
        return f", did you mean {' or '.join(close)}?"
    more = " and more" if len(names) > NAMED_MAX else ""
    return f": there are {', '.join(names[:NAMED_MAX])}{more}" if names else ": there are none"
