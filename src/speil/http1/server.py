"""A port that speaks HTTP/1.1: an h11 server behind places, deadlines and bounds.

When hundreds of clients connect at the same instant, a bounded number of connections is accepted in each round of the
event loop: a probe that comes in between is answered in between.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any, Protocol

from speil.http1.connection import Connection
from speil.http1.message import Request
from speil.http1.own_addresses import OwnAddresses
from speil.http1.places import Bounds, Place, Places, Refusal
from speil.http1.reply import Reply
from speil.multiformats.network import prefix_of
from speil.observe.line_limit import LineLimit
from speil.observe.logs import get_log
from speil.observe.seldom import Seldom
from speil.setting import ListenAddress

BACKLOG = 512
# of the event loop; some milliseconds. With fewer a probe at the end of the queue waits for more rounds
ACCEPTS_PER_ROUND = 32
SHUTDOWN_SECONDS = 2.0  # a transfer that goes on longer is repaired by the client's Range request
RELIEF_CONNECTIONS = 16  # idle ones that are closed at once where no descriptor is left

Handler = Callable[[Request, Reply], Awaitable[None]]
log = get_log("http")


class Shares(Protocol):
    """Maps an address to the share that it counts against. `libp2p.neighbourhood` implements it."""

    def share_of(self, host: str) -> str:
        """A name for all addresses that are counted together."""


class _Prefixes:
    def share_of(self, host: str) -> str:
        return prefix_of(host)


class GuardedServer:
    """One port; `port_name` (registry, metrics, bootstrap) stands in log lines.

    `answer` sends one answer to each request. Where it raises before that, the client gets a 500; after the head, the
    connection ends with FIN. When the server stops it is cancelled after SHUTDOWN_SECONDS.
    """

    def __init__(
        self,
        port_name: str,
        answer: Handler,
        bounds: Bounds,
        *,
        own: OwnAddresses | None = None,
        neighbourhood: Shares | None = None,
        count_refused: Callable[[Refusal], None] = lambda reason: None,
        count_malformed: Callable[[], None] = lambda: None,
        lines: LineLimit | None = None,
    ) -> None:
        """`lines` limits log lines by share; it may be one that others write with."""
        self._port_name, self.answer = port_name, answer
        self.own, self._shares = own or OwnAddresses(), neighbourhood or _Prefixes()
        self.places = Places(bounds)
        self._count_refused, self._count_malformed = count_refused, count_malformed
        self._lines, self._bugs = lines or LineLimit(), Seldom()
        self._connections: set[Connection] = set()
        self._answers: set[asyncio.Task[None]] = set()
        self._tasks: asyncio.TaskGroup
        self._none_is_open = asyncio.Event()
        self._stops = False

    @asynccontextmanager
    async def serve(self, address: ListenAddress) -> AsyncIterator[None]:
        """Listen on `address` (an empty host is all of both families). Raises OSError."""
        loop = asyncio.get_running_loop()
        listening = await loop.create_server(
            lambda: Connection(self), address.host or None, address.port, backlog=ACCEPTS_PER_ROUND, start_serving=False
        )
        failure: Exception | None = None
        async with asyncio.TaskGroup() as self._tasks:
            self._stops = False
            self._none_is_open.set()
            try:
                await listening.start_serving()
                _lengthen_backlog(listening)
                yield
            except Exception as error:
                failure = error  # raised outside of the group, which would wrap it
            finally:
                listening.close()
                await self._stop()
        if failure is not None:
            raise failure

    def start(self, answer: Coroutine[Any, Any, None]) -> None:
        """Answer a request in a task of its own."""
        task = self._tasks.create_task(answer)
        self._answers.add(task)
        task.add_done_callback(self._answers.discard)

    def take_place(self, transport: asyncio.Transport) -> Place | None:
        """A place for a connection that has just come; None where it is refused, or where an error of ours came up."""
        try:
            return self._place(transport)
        except Exception as error:  # asyncio would leave the connection open, and nobody would end it
            self.failed(error)
            return None

    def _place(self, transport: asyncio.Transport) -> Place | None:
        host, reached = _host(transport, "peername"), _host(transport, "sockname")
        is_own, now = self.own.cover(host, reached), asyncio.get_running_loop().time()
        share = self._shares.share_of(host)
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

    def opened(self, connection: Connection) -> None:
        """A connection has its place."""
        self._connections.add(connection)
        self._none_is_open.clear()
        if self._stops:
            connection.stop()

    def closed(self, connection: Connection) -> None:
        """A connection is gone."""
        if connection in self._connections:
            self._connections.discard(connection)
            self.places.leave(connection.place)
            if not self._connections:
                self._none_is_open.set()

    def proved(self, place: Place) -> None:
        """The client at this place showed the node token."""
        self.own.proved(place.host)
        self.places.proved(place)

    def refused(self, reason: Refusal) -> None:
        """Count a connection that was refused or closed."""
        self._count_refused(reason)

    def relieve(self) -> None:
        """No descriptor is left: close connections that only wait."""
        for place in self.places.idle_of_strangers(RELIEF_CONNECTIONS):
            self.places.leave(place)
            self.refused(Refusal.DESCRIPTORS)
            place.close()

    def malformed(self, place: Place, why: str) -> None:
        """What a client sent is no request."""
        self._count_malformed()
        if (left_out := self._lines.due(place.share)) is not None:
            log.warning(
                "what a client sent is no HTTP request", port=self._port_name, client=place.host, why=why,
                left_out=left_out or None,
            )  # fmt: skip

    def failed(self, error: Exception) -> None:
        """An error of ours: a handler raised, or a connection got no place."""
        if self._bugs.due(repr(error)):
            log.exception("a request failed", error, port=self._port_name)

    async def _stop(self) -> None:
        """Close what waits, give what is being answered SHUTDOWN_SECONDS, then end it."""
        self._stops = True
        for connection in list(self._connections):
            connection.stop()
        try:
            async with asyncio.timeout(SHUTDOWN_SECONDS):
                await self._none_is_open.wait()
        except TimeoutError:
            pass
        finally:
            for task in self._answers:
                task.cancel()
            for connection in list(self._connections):
                connection.abort()
        await self._none_is_open.wait()


def _host(transport: asyncio.Transport, which: str) -> str:
    address = transport.get_extra_info(which)
    return str(address[0]) if isinstance(address, tuple) and address else ""


def _lengthen_backlog(server: asyncio.Server) -> None:
    """asyncio accepts as many connections in a row as the backlog is long; the kernel shall queue more than that."""
    for listening in server.sockets:
        with socket.socket(fileno=os.dup(listening.fileno())) as duplicate:
            duplicate.listen(BACKLOG)
