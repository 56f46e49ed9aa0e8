"""The registry port: its routes, the probes, the region's door, and how many of whom it serves.

Places are counted by whose they are (`http_server`): a stranger that opens a thousand connections costs a bounded
amount of memory, and containerd's next request still gets through, as does the kubelet's probe.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager

from aiohttp import web

from speil.border.http import NODE_TOKEN_HEADER, HttpDoor, is_peer
from speil.http_server.connection import place_of
from speil.http_server.own_addresses import OwnAddresses
from speil.http_server.places import Bounds
from speil.http_server.server import GuardedServer
from speil.libp2p.neighbourhood import Neighbourhood
from speil.mirror.handlers import VISIT, Handlers
from speil.mirror.turnstile import Turnstile
from speil.observe.logs import get_log
from speil.observe.metrics import Metrics
from speil.observe.seldom import Seldom
from speil.setting import ListenAddress

# one node's containerd needs ten, hundreds of peers one or two each
CONNECTIONS = Bounds(total=2048, own=256, per_share=256)
STRANGERS_PER_ROUND = 5  # requests of any kind in a round of the event loop; each costs a third of a millisecond

log = get_log("mirror")


class _Request(web.BaseRequest):
    """aiohttp's request, whose answer carries the proof that it needs."""

    async def _prepare_hook(self, response: web.StreamResponse) -> None:
        # the last moment before the head is written: status and headers are what they will be
        if (visit := self.get(VISIT)) is not None:
            response.headers.update(visit.proof(response.status, response.headers.items()))


class RegistryServer:
    """Routes, probes and metrics of the registry port."""

    def __init__(
        self,
        handlers: Handlers,
        door: HttpDoor,
        ready: Callable[[], bool],
        metrics: Metrics,
        *,
        bounds: Bounds = CONNECTIONS,
        own: OwnAddresses | None = None,
        neighbourhood: Neighbourhood | None = None,
    ) -> None:
        self._handlers, self._door, self._ready, self._metrics = handlers, door, ready, metrics
        self._bugs = Seldom()
        self._strangers = Turnstile(STRANGERS_PER_ROUND)
        self.port = GuardedServer(
            "registry", self._dispatch, bounds, own=own, neighbourhood=neighbourhood,
            count_refused=lambda reason: metrics.http_connections_refused.labels("registry", reason).inc(),
            count_malformed=metrics.http_malformed_requests.labels("registry").inc,
            lines=handlers.lines, request_type=_Request,
        )  # fmt: skip

    def serve(self, address: ListenAddress) -> AbstractAsyncContextManager[None]:
        """Listen on `address` (an empty host is all of both families). Raises OSError."""
        return self.port.serve(address)

    async def _dispatch(self, request: web.BaseRequest) -> web.StreamResponse:
        if not (place := place_of(request)).is_own:
            await self._strangers.enter(place.share)
        handler = _handler_label(request.path)
        loop, inflight = asyncio.get_running_loop(), self._metrics.http_requests_inflight.labels(handler)
        started, response = loop.time(), None
        inflight.inc()
        try:
            response = await self._route(request, handler)
            return response
        finally:
            inflight.dec()
            method = request.method if request.method in ("GET", "HEAD") else "other"
            labels = (handler, method, str(response.status) if response else "499")
            self._metrics.http_request_duration.labels(*labels).observe(loop.time() - started)
            if response is not None and response.content_length is not None:
                self._metrics.http_response_size.labels(*labels).observe(response.content_length)

    async def _route(self, request: web.BaseRequest, handler: str) -> web.StreamResponse:
        if handler == "/v2/*":
            # the door is here and not in the handlers: nothing below /v2 can be reached around it
            visit = self._door.enter(request.method, request.raw_path, request.headers, request.remote or "")
            if visit is None:
                return web.Response(status=404)
            request[VISIT] = visit
            if self._door.has_secret and NODE_TOKEN_HEADER in request.headers and not is_peer(request.headers):
                self.port.proved(place_of(request))  # wherever it comes from: only this node's hosts.toml has the token
            return await self._handle(request)
        if request.method not in ("GET", "HEAD") or handler == "other":
            return web.Response(status=404)
        if handler == "/livez" or self._ready():
            return web.Response()
        return web.Response(status=500, text="not ready: no decision about bootstrap yet, see the log\n")

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        """A bug of ours is a miss: containerd goes upstream at once, as with everything that is not here."""
        try:
            return await self._handlers.handle(request)
        except Exception as error:
            if request.writer.output_size:
                raise  # the head is out: this answer can only break off
            if self._bugs.due(repr(error)):
                log.exception("a request failed", error, method=request.method, path=request.path)
            return web.Response(status=404)


def _handler_label(path: str) -> str:
    if path in ("/readyz", "/livez", "/healthz"):
        return path
    return "/v2/*" if path == "/v2" or path.startswith("/v2/") else "other"
