"""A port that speaks HTTP: aiohttp's low-level server behind places, deadlines and bounds.

When hundreds of clients come at the same instant, so many connections are accepted in each round of the event loop: a
probe that comes in between is answered in between.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

from aiohttp import web

from speil.http_server.connection import KEEPALIVE_SECONDS, LINGER_SECONDS, Connection
from speil.http_server.own_addresses import OwnAddresses
from speil.http_server.places import Bounds, Place, Places, Refusal
from speil.libp2p.neighbourhood import Neighbourhood
from speil.observe.line_limit import LineLimit
from speil.observe.logs import get_log
from speil.observe.seldom import Seldom
from speil.setting import ListenAddress

HEADER_BYTES_MAX = 8190  # of one line; the whole head is bounded by aiohttp too
BACKLOG = 512
# of the event loop; some milliseconds. With fewer a probe at the end of the queue waits for more rounds
ACCEPTS_PER_ROUND = 32
SHUTDOWN_SECONDS = 2.0  # a transfer that goes on longer is repaired by the client's Range request
RELIEF_CONNECTIONS = 16  # idle ones that are closed at once where no descriptor is left

Handler = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]
log = get_log("http")


class GuardedServer:
    """One port; `port_name` (registry, metrics, bootstrap) stands in log lines."""

    def __init__(
        self,
        port_name: str,
        answer: Handler,
        bounds: Bounds,
        *,
        own: OwnAddresses | None = None,
        neighbourhood: Neighbourhood | None = None,
        count_refused: Callable[[Refusal], None] = lambda reason: None,
        count_malformed: Callable[[], None] = lambda: None,
        lines: LineLimit | None = None,
        request_type: type[web.BaseRequest] = web.BaseRequest,
    ) -> None:
        """`lines` limits log lines by share; it may be one that others write with."""
        self._port_name, self._answer, self._request_type = port_name, answer, request_type
        self.own, self._neighbourhood = own or OwnAddresses(), neighbourhood or Neighbourhood()
        self.places = Places(bounds)
        self._count_refused, self._count_malformed = count_refused, count_malformed
        self._lines, self._bugs = lines or LineLimit(), Seldom()
        self.aiohttp_server: _Server

    @asynccontextmanager
    async def serve(self, address: ListenAddress) -> AsyncIterator[None]:
        """Listen on `address` (an empty host is all of both families). Raises OSError."""
        loop = asyncio.get_running_loop()
        self.aiohttp_server = _Server(
            self._dispatch, self, access_log=None, keepalive_timeout=KEEPALIVE_SECONDS, max_line_size=HEADER_BYTES_MAX,
            max_field_size=HEADER_BYTES_MAX, lingering_time=LINGER_SECONDS,
            request_factory=lambda message, payload, protocol, writer, task: self._request_type(
                message, payload, protocol, writer, task, loop
            ),
        )  # fmt: skip
        runner = web.ServerRunner(self.aiohttp_server, shutdown_timeout=SHUTDOWN_SECONDS)
        await runner.setup()
        try:
            site = web.TCPSite(runner, address.host or None, address.port, backlog=ACCEPTS_PER_ROUND)
            await site.start()
            _lengthen_backlog(site)
            yield
        finally:
            await runner.cleanup()

    def take_place(self, transport: asyncio.Transport) -> Place | None:
        """A place for a connection that has just come; None where it is refused."""
        host, reached = _host(transport, "peername"), _host(transport, "sockname")
        is_own, now = self.own.cover(host, reached), asyncio.get_running_loop().time()
        share = self._neighbourhood.share_of(host)
        place, leaver = self.places.come(host, share, now, transport.abort, is_own=is_own)
        if leaver is not None:
            self.refused(Refusal.MADE_WAY)
            leaver.close()
        if isinstance(place, Refusal):
            self.refused(place)
            if (left_out := self._lines.due(share)) is not None:
                log.warning(
                    "connections are refused", port=self._port_name, reason=place, client=host, open=self.places.count,
                    left_out=left_out or None,
                )  # fmt: skip
            return None
        return place

    def proved(self, place: Place) -> None:
        """The client at this place showed the node token."""
        self.own.proved(place.host)
        self.places.proved(place)

    def refused(self, reason: Refusal) -> None:
        """Count a connection that was refused or closed."""
        self._count_refused(reason)

    def relieve(self) -> None:
        """No descriptor is left: end what only waits."""
        for place in self.places.idle_of_strangers(RELIEF_CONNECTIONS):
            self.places.leave(place)
            self.refused(Refusal.DESCRIPTORS)
            place.close()

    def malformed(self, place: Place, error: BaseException) -> None:
        """What a client sent is no request."""
        self._count_malformed()
        if (left_out := self._lines.due(place.share)) is not None:
            first_line = str(getattr(error, "message", "") or type(error).__name__).partition("\n")[0]
            log.warning(
                "what a client sent is no HTTP request", port=self._port_name, client=place.host, why=first_line,
                left_out=left_out or None,
            )  # fmt: skip

    def failed(self, error: BaseException | None, event: str) -> None:
        """A bug of ours, or of aiohttp's."""
        if self._bugs.due(repr(error) if error else event):
            log.exception("a request failed", error or RuntimeError(event), port=self._port_name)

    async def _dispatch(self, request: web.BaseRequest) -> web.StreamResponse:
        connection = request.protocol
        if not isinstance(connection, Connection):
            return await self._answer(request)
        connection.began()
        try:
            return await self._answer(request)
        finally:
            connection.ended()


class _Server(web.Server):
    def __init__(self, handler: Handler, owner: GuardedServer, **kwargs: Any) -> None:
        super().__init__(handler, **kwargs)
        self._owner = owner

    def __call__(self) -> web.RequestHandler:
        return Connection(self._owner, loop=self._loop, **self._kwargs)


def _host(transport: asyncio.Transport, which: str) -> str:
    address = transport.get_extra_info(which)
    return str(address[0]) if isinstance(address, tuple) and address else ""


def _lengthen_backlog(site: web.TCPSite) -> None:
    """asyncio accepts as many connections in a row as the backlog is long; the kernel shall queue more than that."""
    server = site._server
    assert isinstance(server, asyncio.Server)
    for listening in server.sockets:
        with socket.socket(fileno=os.dup(listening.fileno())) as duplicate:
            duplicate.listen(BACKLOG)
