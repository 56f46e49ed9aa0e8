"""The metrics port: `/metrics`, the node's state as JSON, and a page to look at it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from html import escape
from typing import Any

from aiohttp import web

from speil.http_server.connection import place_of
from speil.http_server.own_addresses import OwnAddresses
from speil.http_server.places import Bounds
from speil.http_server.server import GuardedServer
from speil.libp2p.neighbourhood import Neighbourhood
from speil.observe.metrics import CONTENT_TYPE, Metrics
from speil.setting import ListenAddress
from speil.token_bucket import Buckets

# of one address or prefix: a page costs some milliseconds, so this is a twentieth of the loop's time. Prometheus asks
# every few seconds, somebody who watches a few times a second
PAGES_BURST, PAGES_PER_SECOND = 50, 10.0
RATES_MAX = 1024  # addresses and prefixes whose rate is remembered
CONNECTIONS = Bounds(total=64, own=16, per_share=16)  # a few who scrape, and whoever looks at the page

State = Callable[[], dict[str, Any]]


class DebugServer:
    """Serves `metrics` and what `state` says."""

    def __init__(
        self,
        metrics: Metrics,
        state: State,
        *,
        web_enabled: bool,
        bounds: Bounds = CONNECTIONS,
        own: OwnAddresses | None = None,
        neighbourhood: Neighbourhood | None = None,
    ) -> None:
        self._metrics, self._state = metrics, state
        self._rates = Buckets(PAGES_BURST, PAGES_PER_SECOND, RATES_MAX)
        self._pages = {"/metrics": self._answer_metrics, "/debug/state": self._answer_state}
        if web_enabled:
            self._pages["/debug/web/"] = self._answer_page
        self.port = GuardedServer(
            "metrics", self._answer, bounds, own=own, neighbourhood=neighbourhood,
            count_refused=lambda reason: metrics.http_connections_refused.labels("metrics", reason).inc(),
            count_malformed=metrics.http_malformed_requests.labels("metrics").inc,
        )  # fmt: skip

    def serve(self, address: ListenAddress) -> AbstractAsyncContextManager[None]:
        """Listen on `address`. Raises OSError."""
        return self.port.serve(address)

    async def _answer(self, request: web.BaseRequest) -> web.StreamResponse:
        page = self._pages.get(request.path)
        if page is None:
            return web.Response(status=404)
        if request.method not in ("GET", "HEAD"):
            return web.Response(status=405, headers={"Allow": "GET, HEAD"})
        if not (place := place_of(request)).is_own:
            now = asyncio.get_running_loop().time()
            if not self._rates.of(place.share, now).take(now):
                return web.Response(status=429, headers={"Retry-After": "1"})
        return page()

    def _answer_metrics(self) -> web.Response:
        return web.Response(body=self._metrics.exposition(), headers={"Content-Type": CONTENT_TYPE})

    def _answer_state(self) -> web.Response:
        return web.json_response(self._state())

    def _answer_page(self) -> web.Response:
        return web.Response(text=_page(self._state()), content_type="text/html")


def _page(state: dict[str, Any]) -> str:
    facts = "".join(
        f"<tr><th>{escape(name)}</th><td>{escape(str(value))}</td></tr>"
        for name, value in state.items()
        if not isinstance(value, list)
    )
    tables = "".join(_table(name, rows) for name, rows in state.items() if isinstance(rows, list))
    style = "body{font:14px sans-serif;margin:2em}table{border-collapse:collapse}th,td{text-align:left;padding:2px 1em}"
    return f"<!doctype html><title>speil</title><style>{style}</style><h1>speil</h1><table>{facts}</table>{tables}"


def _table(name: str, rows: list[dict[str, Any]]) -> str:
    if not rows:
        return f"<h2>{escape(name)}</h2><p>none</p>"
    head = "".join(f"<th>{escape(column)}</th>" for column in rows[0])
    body = "".join(
        "<tr>" + "".join(f"<td>{escape(str(value))}</td>" for value in row.values()) + "</tr>" for row in rows
    )
    return f"<h2>{escape(name)}</h2><table><tr>{head}</tr>{body}</table>"
