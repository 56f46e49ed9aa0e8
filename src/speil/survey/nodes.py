"""Reads the nodes of all regions: `/metrics` and `/debug/state` of each node's metrics port."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Awaitable, Callable, Sequence
from math import isnan
from typing import Any

from prometheus_client.parser import text_string_to_metric_families

from speil.http1.client import HttpClient, HttpError
from speil.kube.api import KubeApi
from speil.kube.error import KubeError
from speil.local_file import parse_json
from speil.overview.view import NodeView, Traffic
from speil.survey.leases import SurveyError

POD_LABEL = "app.kubernetes.io/name=speil"
REGION_LABEL = "speil.dev/region"  # the chart's
ASKED_AT_ONCE_MAX = 16  # through the API server's proxy: ten thousand nodes must not become ten thousand requests
REQUEST_SECONDS_MAX = 10.0
ANSWER_BYTES_MAX = 16 << 20  # the metrics of a node have some hundreds of KiB
Fetch = Callable[[str], Awaitable[str]]  # a path on the metrics port → its text


async def nodes_in_cluster(api: KubeApi, port: int) -> list[NodeView]:
    """The speil pods of the cluster that run, or have not started. Raises SurveyError.

    A running pod that can't be read carries an error.
    """
    try:
        answer = await api.request("GET", "/api/v1/pods", params={"labelSelector": POD_LABEL})
    except KubeError as error:
        raise SurveyError(str(error)) from error
    items: list[dict[str, Any]] = [pod for pod in answer.document.get("items") or () if isinstance(pod, dict)]
    pods = [pod for pod in items if _is_in(pod, "Running")]
    pending = [_pending(pod) for pod in items if _is_in(pod, "Pending")]

    def fetch(pod: dict[str, Any]) -> tuple[str, Fetch]:
        metadata = pod["metadata"]
        base = f"/api/v1/namespaces/{metadata['namespace']}/pods/{metadata['name']}:{port}/proxy"

        async def get(path: str) -> str:
            try:
                return await api.get_text(base + path)
            except KubeError as error:
                raise SurveyError(str(error)) from error

        return pod.get("spec", {}).get("nodeName") or metadata["name"], get

    return [*await _views([fetch(pod) for pod in pods]), *pending]


def _is_in(pod: dict[str, Any], phase: str) -> bool:
    return (pod.get("status") or {}).get("phase") == phase and not pod["metadata"].get("deletionTimestamp")


def _pending(pod: dict[str, Any]) -> NodeView:
    """Named by its node once it has one. The reason is the scheduler's or the kubelet's."""
    metadata, status = pod["metadata"], pod.get("status") or {}
    node = (pod.get("spec") or {}).get("nodeName") or ""
    containers = [*(status.get("initContainerStatuses") or ()), *(status.get("containerStatuses") or ())]
    waiting = [(one.get("state") or {}).get("waiting") or {} for one in containers]
    scheduled = [one for one in status.get("conditions") or () if one.get("type") == "PodScheduled"]
    said = [one.get("message") or one.get("reason") for one in (waiting if node else scheduled)]
    reason = next((one for one in said if one), "no reason given")
    region = (metadata.get("labels") or {}).get(REGION_LABEL, "")
    return NodeView(node or metadata["name"], region=region, pending=f"pod {metadata['name']} is Pending: {reason}")


async def nodes_at(urls: Sequence[str]) -> list[NodeView]:
    """The nodes whose metrics ports are at `urls`. A node that can't be read carries an error."""
    client = HttpClient(timeout_seconds=REQUEST_SECONDS_MAX, connections_max=ASKED_AT_ONCE_MAX)

    def fetch(url: str) -> tuple[str, Fetch]:
        async def get(path: str) -> str:
            try:
                answer = await client.request("GET", url + path, answer_bytes_max=ANSWER_BYTES_MAX)
            except HttpError as error:
                raise SurveyError(str(error)) from error
            if answer.status != 200:
                raise SurveyError(f"{url}{path} answered {answer.status}")
            return answer.text

        return url.removeprefix("http://"), get

    try:
        return await _views([fetch(url.rstrip("/")) for url in urls])
    finally:
        await client.close()


async def _views(sources: Sequence[tuple[str, Fetch]]) -> list[NodeView]:
    slots = asyncio.Semaphore(ASKED_AT_ONCE_MAX)

    async def view(name: str, fetch: Fetch) -> NodeView:
        async with slots:
            try:
                return read_node(name, await fetch("/metrics"), await fetch("/debug/state"))
            except (SurveyError, ValueError, KeyError, TypeError) as error:
                return NodeView(
                    name, error=str(error) if isinstance(error, SurveyError) else f"this is not a speil node: {error!r}"
                )

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(view(*source)) for source in sources]
    return sorted((task.result() for task in tasks), key=lambda node: node.name)


def read_node(name: str, metrics: str, state: str) -> NodeView:
    """A node from the texts of `/metrics` and `/debug/state`.

    Raises ValueError, KeyError or TypeError where they are not those of a speil node.
    """
    document = parse_json(state)
    traffic: defaultdict[str, Traffic] = defaultdict(Traffic)
    rejected: dict[str, int] = {}
    leads, elects, started_at = False, False, 0.0
    for family in text_string_to_metric_families(metrics):
        for sample in family.samples:
            labels = sample.labels
            value = 0 if isnan(sample.value) else int(sample.value)  # a gauge without a value yet is NaN
            registry = labels.get("registry", "")
            match sample.name, labels:
                case "spegel_mirror_requests_total", {"cache": "hit"}:
                    traffic[registry] += Traffic(hits=value)
                case "spegel_mirror_requests_total", {"cache": "miss"}:
                    traffic[registry] += Traffic(misses=value)
                case "speil_served_bytes_total", {"client": "node", "source": "store"}:
                    traffic[registry] += Traffic(own_bytes=value)
                case "speil_served_bytes_total", {"client": "node", "source": "peer"}:
                    traffic[registry] += Traffic(peer_bytes=value)
                case "speil_served_bytes_total", {"client": "peer"}:
                    traffic[registry] += Traffic(sent_bytes=value)
                case "speil_upstream_bytes_total", _:
                    traffic[registry] += Traffic(upstream_bytes=value)
                case "speil_cross_region_rejected_total", {"layer": layer} if value:
                    rejected[layer] = value
                case "speil_election_state", {"state": state_name}:
                    elects = True
                    leads = leads or (state_name == "leader" and bool(value))
                case "process_start_time_seconds", _:
                    started_at = sample.value
    return NodeView(
        name=name,
        region=document["region"],
        zone=document["zone"],
        lease=document["lease"],
        label=document.get("topology_region"),
        region_source=document.get("region_from", ""),
        is_guarded=bool(document.get("has_secret") or document.get("has_networks")),
        lease_is_foreign=bool(document.get("lease_is_foreign")),
        peer_id=document["peer_id"],
        ready=document["ready"],
        leads=leads,
        elects=elects,
        peers=tuple(peer["peer"] for peer in document["peers"]),
        started_at=started_at,
        traffic=dict(traffic),
        rejected=rejected,
    )
