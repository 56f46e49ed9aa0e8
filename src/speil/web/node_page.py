"""The node's pages below `/debug/web`, on the metrics port.

| route | method | answer |
|---|---|---|
| `/debug/web/` | GET | the page |
| `/debug/web/measure` | GET | the same page, with the image of `?image=` in its form; it starts nothing |
| `/debug/web/trace` | POST | a trace (`trace_route`) |
| `/debug/web/measure` | POST | the same, which measures unless the query says otherwise |
| `/debug/web/metadata`, `/debug/web/stats` | GET | who this node is; what it holds and has served, as JSON |
| `/debug/web/events` | GET | what the page shows, as server-sent events |
| `/debug/web/<file>` | GET | the page's script and style |

An error is a line of text with what to do.
"""

from __future__ import annotations

import json
from collections.abc import Mapping

from speil.http1.guard import Guard, Refused
from speil.http1.message import Request
from speil.http1.reply import Reply
from speil.observe.logs import get_log
from speil.observe.seldom import Seldom
from speil.web.answers import refuse, send_json, until_abandoned
from speil.web.assets import SHARED, send_file
from speil.web.event_stream import EventStreams
from speil.web.headers import SECURITY_HEADERS
from speil.web.node_feed import NodeFeed
from speil.web.series import WebSeries
from speil.web.trace_route import TraceRoute

ROOT = "/debug/web/"
log = get_log("web")
_FILES = {"": "node.html", "measure": "node.html"}
_ROUTES = frozenset((*_FILES, *SHARED, "node.js", "events", "metadata", "stats", "trace"))


class NodePages:
    """Answers them; see `speil.web.build` for the parts."""

    def __init__(self, guard: Guard, trace: TraceRoute, feed: NodeFeed, series: WebSeries) -> None:
        self._guard, self.trace, self._feed, self._series = guard, trace, feed, series
        self.streams = EventStreams(feed, opened=series.streams.set, refused=series.refused.labels("streams").inc)
        self._refusals = Seldom()

    async def answer(self, request: Request, reply: Reply) -> None:
        """Answer one request below `/debug/web`."""
        name = request.path.removeprefix(ROOT) if request.path.startswith(ROOT) else None
        acts = name in ("trace", "measure") and request.method == "POST"
        if (refused := self._guard.refusal(request, acts=acts)) is not None:
            self._note(refused, request)
            await refuse(reply, refused)
        elif acts:
            await self._answer_trace(request, reply, measures=name == "measure")
        elif name is None:
            await reply.send(308, [("Location", "web/"), *SECURITY_HEADERS])
        elif name not in _ROUTES:
            await refuse(reply, Refused(404, "there is no such page"))
        elif request.method not in ("GET", "HEAD") or name == "trace":
            allowed = "POST" if name == "trace" else "GET, HEAD"
            await reply.send(405, [("Allow", allowed), *SECURITY_HEADERS])
        else:
            await self._answer_page(name, request, reply)

    def _note(self, refused: Refused, request: Request) -> None:
        reason = "host" if refused.status == 421 else "origin"
        self._series.refused.labels(reason).inc()
        if self._refusals.due(reason):
            log.warning("a request for a page was refused", client=request.place.host, why=refused.why)

    async def _answer_page(self, name: str, request: Request, reply: Reply) -> None:
        match name:
            case "events":
                await self.streams.answer(request, reply)
            case "metadata":
                await send_json(reply, json.loads(self._feed.sections()["node"]))
            case "stats":
                await send_json(reply, await self._feed.stats())
            case _:
                await send_file(reply, _FILES.get(name, name))

    async def _answer_trace(self, request: Request, reply: Reply, *, measures: bool) -> None:
        if measures:
            request = _with_query(request, {"measure": "true", **request.query})
        try:
            async with until_abandoned(reply):
                found = await self.trace.answer(request)
        except TimeoutError:
            found = Refused(503, "this node stops")
        await (refuse(reply, found) if isinstance(found, Refused) else send_json(reply, found))


def _with_query(request: Request, query: Mapping[str, str]) -> Request:
    return Request(request.method, request.target, request.path, query, request.headers, request.place)
