"""The registry port: aiohttp's low-level server, the probes, and what guards them.

A connection that sends no whole head within some seconds is closed, and so is the one above the bound: a stranger that
opens a thousand connections costs a bounded amount of memory, and containerd's next request still gets through.

When hundreds of clients come at the same instant, so many connections are accepted in each round of the event loop, and
a few requests begun (`mirror.wire`): a probe that comes in between is answered in between.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from aiohttp import web

from speil.border.http import HttpDoor
from speil.mirror.handlers import VISIT, Handlers
from speil.observe.logs import get_log
from speil.observe.metrics import Metrics
from speil.observe.seldom import Seldom
from speil.setting import ListenAddress

HEAD_SECONDS_MAX = 10.0  # containerd sends its head in one piece
KEEPALIVE_SECONDS = 75.0  # above Go's idle connection habits on a node; peers keep theirs for 30 s
CONNECTIONS_MAX = 2048  # one node's containerd needs ten, hundreds of peers one or two each
HEADER_BYTES_MAX = 8190  # of one line; the whole head is bounded by aiohttp too
BACKLOG = 512
# of the event loop; some milliseconds. With fewer a probe at the end of the queue waits for more rounds
ACCEPTS_PER_ROUND = 32
SHUTDOWN_SECONDS = 2.0  # a transfer that goes on longer is repaired by the client's Range request

log = get_log("mirror")


class _Connection(web.RequestHandler):
    """aiohttp's connection, which must show a request in time."""

    __slots__ = ("_owner", "_timer")

    def __init__(self, owner: _Server, **kwargs: Any) -> None:
        super().__init__(owner, **kwargs)
        self._owner = owner
        self._timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        assert isinstance(transport, asyncio.Transport)
        if len(self._owner.connections) > CONNECTIONS_MAX:
            transport.abort()
            return
        self._timer = asyncio.get_running_loop().call_later(HEAD_SECONDS_MAX, transport.abort)

    def request_came(self) -> None:
        """The head is whole."""
        if self._timer:
            self._timer.cancel()
            self._timer = None

    def connection_lost(self, exc: BaseException | None) -> None:
        self.request_came()
        super().connection_lost(exc)


class _Request(web.BaseRequest):
    """aiohttp's request, whose answer carries the proof that it needs."""

    async def _prepare_hook(self, response: web.StreamResponse) -> None:
        # the last moment before the head is written: status and headers are what they will be
        if (visit := self.get(VISIT)) is not None:
            response.headers.update(visit.proof(response.status, response.headers.items()))


class _Server(web.Server):
    def __call__(self) -> web.RequestHandler:
        return _Connection(self, loop=self._loop, **self._kwargs)


class RegistryServer:
    """Routes, probes and metrics of the registry port."""

    def __init__(self, handlers: Handlers, door: HttpDoor, ready: Callable[[], bool], metrics: Metrics) -> None:
        self._handlers, self._door, self._ready, self._metrics = handlers, door, ready, metrics
        self._bugs = Seldom()

    @asynccontextmanager
    async def serve(self, address: ListenAddress) -> AsyncIterator[None]:
        """Listen on `address` (an empty host is all of both families). Raises OSError."""
        loop = asyncio.get_running_loop()
        server = _Server(
            self._dispatch, access_log=None, keepalive_timeout=KEEPALIVE_SECONDS, max_line_size=HEADER_BYTES_MAX,
            max_field_size=HEADER_BYTES_MAX,
            request_factory=lambda message, payload, protocol, writer, task: _Request(
                message, payload, protocol, writer, task, loop
            ),
        )  # fmt: skip
        runner = web.ServerRunner(server, shutdown_timeout=SHUTDOWN_SECONDS)
        await runner.setup()
        try:
            site = web.TCPSite(runner, address.host or None, address.port, backlog=ACCEPTS_PER_ROUND)
            await site.start()
            _lengthen_backlog(site)
            yield
        finally:
            await runner.cleanup()

    async def _dispatch(self, request: web.BaseRequest) -> web.StreamResponse:
        if isinstance(request.protocol, _Connection):
            request.protocol.request_came()
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


def _lengthen_backlog(site: web.TCPSite) -> None:
    """asyncio accepts as many connections in a row as the backlog is long; the kernel shall queue more than that."""
    server = site._server
    assert isinstance(server, asyncio.Server)
    for listening in server.sockets:
        with socket.socket(fileno=os.dup(listening.fileno())) as duplicate:
            duplicate.listen(BACKLOG)


def _handler_label(path: str) -> str:
    if path in ("/readyz", "/livez", "/healthz"):
        return path
    return "/v2/*" if path == "/v2" or path.startswith("/v2/") else "other"
