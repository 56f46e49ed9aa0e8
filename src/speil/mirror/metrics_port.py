"""The metrics port: `/metrics`, the node's state as JSON, and the node's pages (`speil.web`)."""

from __future__ import annotations

import asyncio
import json
from contextlib import AbstractAsyncContextManager
from typing import Any, Protocol

from speil.http1.guard import Guard
from speil.http1.message import Request
from speil.http1.own_addresses import OwnAddresses
from speil.http1.places import Bounds, Place
from speil.http1.reply import Reply
from speil.http1.server import GuardedServer, Handler, Shares
from speil.mirror.series import MirrorSeries
from speil.observe.metrics import CONTENT_TYPE, Metrics
from speil.setting import ListenAddress
from speil.token_bucket import Buckets

# of one address or prefix: a page costs some milliseconds, so this is a twentieth of the loop's time. Prometheus asks
# every few seconds, somebody who watches a few times a second
PAGES_BURST, PAGES_PER_SECOND = 50, 10.0
RATES_MAX = 1024  # addresses and prefixes whose rate is remembered
CONNECTIONS = Bounds(total=64, own=16, per_share=16)  # a few scrapers, and people who look at the page

WEB_PATH = "/debug/web"  # Spegel's


class State(Protocol):
    """The node's state, as JSON objects."""

    def document(self) -> dict[str, Any]:
        """All of it."""

    def brief(self) -> dict[str, Any]:
        """Without what is of use for one node alone."""


class MetricsServer:
    """The port. `/debug/state?brief=true` is for those who read the state of many nodes."""

    def __init__(
        self,
        metrics: Metrics,
        state: State,
        *,
        web: Handler | None = None,
        guard: Guard | None = None,
        bounds: Bounds = CONNECTIONS,
        own: OwnAddresses | None = None,
        neighbourhood: Shares | None = None,
    ) -> None:
        """`web` answers all below `/debug/web`; None: that is a 404. `guard` refuses browsers that another site's name
        led here (DNS rebinding).
        """
        self._metrics, self._state, series = metrics, state, metrics.of(MirrorSeries)
        self._rates = Buckets(PAGES_BURST, PAGES_PER_SECOND, RATES_MAX)
        self._pages = {"/metrics": self._metrics_page, "/debug/state": self._state_page}
        self._web, self._guard = web, guard or Guard()
        self.port = GuardedServer(
            "metrics", self._answer, bounds, own=own, neighbourhood=neighbourhood,
            count_refused=lambda reason: series.http_connections_refused.labels("metrics", reason).inc(),
            count_malformed=series.http_malformed_requests.labels("metrics").inc,
        )  # fmt: skip

    def serve(self, address: ListenAddress) -> AbstractAsyncContextManager[None]:
        """Listen on `address`. Raises OSError."""
        return self.port.serve(address)

    async def _answer(self, request: Request, reply: Reply) -> None:
        page, path = self._pages.get(request.path), request.path
        web = self._web if path == WEB_PATH or path.startswith(f"{WEB_PATH}/") else None
        if page is None and web is None:
            await reply.send(404)
        elif page is not None and request.method not in ("GET", "HEAD"):
            await reply.send(405, [("Allow", "GET, HEAD")])
        elif not self._has_turn(request.place):
            await reply.send(429, [("Retry-After", "1")])
        elif web is not None:
            await web(request, reply)
        elif (refused := self._guard.refusal_of_browser(request)) is not None:
            await reply.send(refused.status, [("Content-Type", "text/plain; charset=utf-8")], refused.why.encode())
        elif page is not None:
            kind, body = page(request)
            await reply.send(200, [("Content-Type", kind)], body)

    def _has_turn(self, place: Place) -> bool:
        if place.is_own:
            return True
        now = asyncio.get_running_loop().time()
        return self._rates.of(place.share, now).take(now)

    def _metrics_page(self, request: Request) -> tuple[str, bytes]:
        return CONTENT_TYPE, self._metrics.exposition()

    def _state_page(self, request: Request) -> tuple[str, bytes]:
        is_brief = request.query.get("brief") == "true"
        found = self._state.brief() if is_brief else self._state.document()
        return "application/json; charset=utf-8", json.dumps(found).encode()
