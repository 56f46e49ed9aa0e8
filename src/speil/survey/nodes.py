"""Reads the nodes of all regions: `/debug/state` of each node's metrics port, and `/metrics` of older versions."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Awaitable, Callable, Sequence
from math import isnan
from typing import TypeVar

from prometheus_client.parser import text_string_to_metric_families

from speil.http1.client import HttpClient, HttpError
from speil.kube.api import KubeApi
from speil.kube.error import KubeError
from speil.local_file import parse_json
from speil.overview.view import NodeView, Traffic
from speil.progress import Progress
from speil.survey.error import MissingRightError, SurveyError, survey_error
from speil.survey.node_state import read_state
from speil.survey.pods import Pod, pods_in_cluster

T = TypeVar("T")
R = TypeVar("R")
ASKED_AT_ONCE_MAX = 16  # through the API server's proxy: ten thousand nodes must not become ten thousand requests
REQUEST_SECONDS_MAX = 10.0
ANSWER_BYTES_MAX = 16 << 20  # the metrics of a node have some hundreds of KiB
STATE_PATH = "/debug/state?brief=true"
Fetch = Callable[[str], Awaitable[str]]  # a path on the metrics port → its text


async def nodes_in_cluster(
    api: KubeApi, port: int, namespace: str = "", progress: Progress | None = None
) -> list[NodeView]:
    """The speil pods of the cluster that run, or have not started. Raises SurveyError.

    A running pod that can't be read carries an error.
    """
    pods = await pods_in_cluster(api, namespace)

    def fetch(pod: Pod) -> tuple[str, Fetch]:
        async def get(path: str) -> str:
            try:
                return await api.get_text(pod.proxy_path(port) + path)
            except KubeError as error:
                raise survey_error(error) from error

        return pod.node or pod.name, get

    read = await _views([fetch(pod) for pod in pods if not pod.waits], progress)
    return [*read, *map(_pending, (pod for pod in pods if pod.waits))]


def _pending(pod: Pod) -> NodeView:
    """Named by its node once it has one."""
    return NodeView(pod.node or pod.name, region=pod.region, pending=f"pod {pod.name} is Pending: {pod.waits}")


async def nodes_at(urls: Sequence[str], progress: Progress | None = None) -> list[NodeView]:
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
        return await _views([fetch(url.rstrip("/")) for url in urls], progress)
    finally:
        await client.close()


async def _views(sources: Sequence[tuple[str, Fetch]], progress: Progress | None) -> list[NodeView]:
    if progress is not None:
        progress.stage("reading nodes", len(sources))

    async def view(source: tuple[str, Fetch]) -> NodeView:
        name, fetch = source
        try:
            state = await fetch(STATE_PATH)
            if (found := read_state(name, state)) is not None:
                return found
            return read_node(name, await fetch("/metrics"), state)
        except MissingRightError:
            raise
        except (SurveyError, ValueError, KeyError, TypeError) as error:
            return NodeView(
                name, error=str(error) if isinstance(error, SurveyError) else f"this is not a speil node: {error!r}"
            )
        finally:
            if progress is not None:
                progress.advance(note=name)

    return sorted(await each_node(view, sources), key=lambda node: node.name)


async def each_node(ask: Callable[[T], Awaitable[R]], nodes: Sequence[T]) -> list[R]:
    """What `ask` returns for each node, in their order; ASKED_AT_ONCE_MAX run at once. Raises SurveyError."""
    slots = asyncio.Semaphore(ASKED_AT_ONCE_MAX)

    async def one(node: T) -> R:
        async with slots:
            return await ask(node)

    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(one(node)) for node in nodes]
    except* SurveyError as errors:
        raise errors.exceptions[0] from None
    return [task.result() for task in tasks]


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
