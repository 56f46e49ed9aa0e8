"""Traces an image on many nodes: each is asked at its metrics port, some at once."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from speil.http1.client import HttpClient, HttpError
from speil.http1.guard import CLIENT_HEADER
from speil.kube.api import KubeApi
from speil.kube.error import KubeError, KubeNotFoundError, KubeTooManyRequestsError
from speil.local_file import parse_json
from speil.progress import Progress
from speil.survey.error import MissingRightError, SurveyError, survey_error
from speil.survey.nodes import ANSWER_BYTES_MAX, ASKED_AT_ONCE_MAX, each_node
from speil.survey.pods import Pod, near, pods_in_cluster
from speil.survey.table import printable

TRACE_PATH, STATE_PATH = "/debug/web/trace", "/debug/state"
REQUEST_SECONDS_MAX = 45.0  # a node ends a trace after 30 s
TRIES_MAX, PAUSE_SECONDS = 10, 1.0  # where a node runs other traces
SAID_CHARS_MAX = 200  # of what a server says about a refusal
OLD = "its speil has no traces: it is older, or runs with --debug-web-enabled=false"


class BusyError(Exception):
    """The node runs other traces now."""


@dataclass(frozen=True, slots=True)
class NodeTrace:
    """What one node found. With an `error` there is no `document`, which is the node's JSON (speil.trace.document)."""

    node: str
    region: str = ""
    zone: str = ""
    document: Mapping[str, Any] | None = None
    error: str = ""

    @property
    def parts(self) -> list[Mapping[str, Any]]:
        """The manifests, the config and the layers; none where the image is not known on the node."""
        return list((self.document or {}).get("parts") or ())


@dataclass(frozen=True, slots=True)
class _Source:
    """A node to ask. `ask` sends a request and returns the JSON. It raises SurveyError, BusyError."""

    name: str
    ask: Callable[[str, str, Mapping[str, str]], Awaitable[Mapping[str, Any]]]  # method, path, query


async def trace_in_cluster(
    api: KubeApi, image: str, port: int, namespace: str, regions: Sequence[str], query: Mapping[str, str],
    progress: Progress,
) -> list[NodeTrace]:  # fmt: skip
    """The traces of all nodes of these regions (none: of all), sorted by region and node. Raises SurveyError."""
    pods = [pod for pod in await pods_in_cluster(api, namespace) if not pod.waits]
    if not pods:
        raise SurveyError("no pod of speil runs in this cluster: is it installed, and is --context the right one?")
    # the chart labels pods; without the label the node itself says its region
    chosen = [pod for pod in pods if not regions or not pod.region or pod.region in regions]

    def source(pod: Pod) -> _Source:
        async def ask(method: str, path: str, query: Mapping[str, str]) -> Mapping[str, Any]:
            try:
                headers = {CLIENT_HEADER: "speil"}
                return (await api.request(method, pod.proxy_path(port) + path, params=query, headers=headers)).document
            except KubeTooManyRequestsError:
                raise BusyError from None
            except KubeNotFoundError as error:
                raise SurveyError(OLD if path == TRACE_PATH else str(error)) from error
            except KubeError as error:
                raise survey_error(error) from error

        return _Source(pod.node or pod.name, ask)

    found = await _traces(list(map(source, chosen)), image, regions, query, progress)
    known = {pod.region for pod in pods} | {one.region for one in found}
    return _of_regions(found, regions, known)


async def trace_at(
    urls: Sequence[str], image: str, regions: Sequence[str], query: Mapping[str, str], progress: Progress
) -> list[NodeTrace]:
    """The same for nodes whose metrics ports are at `urls`. Raises SurveyError."""
    client = HttpClient(timeout_seconds=REQUEST_SECONDS_MAX, connections_max=ASKED_AT_ONCE_MAX)

    def source(url: str) -> _Source:
        async def ask(method: str, path: str, query: Mapping[str, str]) -> Mapping[str, Any]:
            try:
                answer = await client.request(
                    method, url + path, params=query, headers={CLIENT_HEADER: "speil"},
                    answer_bytes_max=ANSWER_BYTES_MAX,
                )  # fmt: skip
            except HttpError as error:
                raise SurveyError(str(error)) from error
            if answer.status == 429:
                raise BusyError
            if answer.status == 404 and path == TRACE_PATH:
                raise SurveyError(OLD)
            if answer.status != 200:
                raise SurveyError(f"{url}{path} answered {answer.status}{_first_line(answer.text)}")
            try:
                document = parse_json(answer.body)
            except ValueError:
                document = None
            if not isinstance(document, dict):
                raise SurveyError(f"{url}{path} is not of a speil node")
            return document

        return _Source(url.removeprefix("http://"), ask)

    try:
        found = await _traces([source(url.rstrip("/")) for url in urls], image, regions, query, progress)
    finally:
        await client.close()
    return _of_regions(found, regions, {one.region for one in found})


async def _traces(
    sources: Sequence[_Source], image: str, regions: Sequence[str], query: Mapping[str, str], progress: Progress
) -> list[NodeTrace]:
    progress.stage(f"tracing {image} on the nodes", len(sources))

    async def trace(source: _Source) -> NodeTrace:
        found = NodeTrace(source.name)
        try:
            state = await source.ask("GET", STATE_PATH, {})
            found = NodeTrace(source.name, str(state.get("region", "")), str(state.get("zone", "")))
            if regions and found.region not in regions:
                return found
            return replace(found, document=await _once_free(source, {**query, "image": image}))
        except MissingRightError:
            raise
        except BusyError:
            return replace(found, error="it runs other traces, or has too many requests: try again in a moment")
        except SurveyError as error:
            return replace(found, error=str(error))
        finally:
            progress.advance(note=source.name)

    found = await each_node(trace, sources)
    return sorted(found, key=lambda one: (one.region, one.node))


def _first_line(text: str) -> str:
    """What a server says about a refusal: one line, as it stands behind the status."""
    line = next(iter(text.strip().splitlines()), "")[:SAID_CHARS_MAX]
    if line.startswith("<"):  # a page for a browser
        return ""
    return f": {printable(line)}" if line else ""


async def _once_free(source: _Source, query: Mapping[str, str]) -> Mapping[str, Any]:
    """The trace, once the node has a place for it. Raises SurveyError, BusyError."""
    for _ in range(TRIES_MAX - 1):
        try:
            return await source.ask("POST", TRACE_PATH, query)
        except BusyError:
            await asyncio.sleep(PAUSE_SECONDS)
    return await source.ask("POST", TRACE_PATH, query)


def _of_regions(found: Sequence[NodeTrace], regions: Sequence[str], known: set[str]) -> list[NodeTrace]:
    """Those of the regions; a node that can't be read stays. Raises SurveyError for a region that is not known."""
    if not any(one.error and not one.region for one in found):
        for region in regions:
            if region not in known:
                raise SurveyError(f"there is no region {region!r}{near(region, known)}")
    return [one for one in found if not regions or one.region in regions or (one.error and not one.region)]
