"""The metrics port: `/metrics`, the node's state as JSON, and the same as a page."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from html import escape
from typing import Any

from speil.http1.message import Request
from speil.http1.own_addresses import OwnAddresses
from speil.http1.places import Bounds, Place
from speil.http1.reply import Reply
from speil.http1.server import GuardedServer, Shares
from speil.mirror.series import MirrorSeries
from speil.observe.metrics import CONTENT_TYPE, Metrics
from speil.setting import ListenAddress
from speil.token_bucket import Buckets

# of one address or prefix: a page costs some milliseconds, so this is a twentieth of the loop's time. Prometheus asks
# every few seconds, somebody who watches a few times a second
PAGES_BURST, PAGES_PER_SECOND = 50, 10.0
RATES_MAX = 1024  # addresses and prefixes whose rate is remembered
CONNECTIONS = Bounds(total=64, own=16, per_share=16)  # a few scrapers, and people who look at the page

State = Callable[[], dict[str, Any]]


class MetricsServer:
    """The port; `state` returns the node's state as a JSON object."""

    def __init__(
        self,
        metrics: Metrics,
        state: State,
        *,
        web_enabled: bool,
        bounds: Bounds = CONNECTIONS,
        own: OwnAddresses | None = None,
        neighbourhood: Shares | None = None,
    ) -> None:
        """`web_enabled`: serve the page `/debug/web/`."""
        self._metrics, self._state, series = metrics, state, metrics.of(MirrorSeries)
        self._rates = Buckets(PAGES_BURST, PAGES_PER_SECOND, RATES_MAX)
        self._pages = {"/metrics": self._metrics_page, "/debug/state": self._state_page}
        if web_enabled:
            self._pages["/debug/web/"] = self._web_page
        self.port = GuardedServer(
            "metrics", self._answer, bounds, own=own, neighbourhood=neighbourhood,
            count_refused=lambda reason: series.http_connections_refused.labels("metrics", reason).inc(),
            count_malformed=series.http_malformed_requests.labels("metrics").inc,
        )  # fmt: skip

    def serve(self, address: ListenAddress) -> AbstractAsyncContextManager[None]:
        """Listen on `address`. Raises OSError."""
        return self.port.serve(address)

    async def _answer(self, request: Request, reply: Reply) -> None:
        page = self._pages.get(request.path)
        if page is None:
            await reply.send(404)
        elif request.method not in ("GET", "HEAD"):
            await reply.send(405, [("Allow", "GET, HEAD")])
        elif not self._has_turn(request.place):
            await reply.send(429, [("Retry-After", "1")])
        else:
            kind, body = page()
            await reply.send(200, [("Content-Type", kind)], body)

    def _has_turn(self, place: Place) -> bool:
        if place.is_own:
            return True
        now = asyncio.get_running_loop().time()
        return self._rates.of(place.share, now).take(now)

    def _metrics_page(self) -> tuple[str, bytes]:
        return CONTENT_TYPE, self._metrics.exposition()

    def _state_page(self) -> tuple[str, bytes]:
        return "application/json; charset=utf-8", json.dumps(self._state()).encode()

    def _web_page(self) -> tuple[str, bytes]:
        return "text/html; charset=utf-8", _page(self._state()).encode()


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
