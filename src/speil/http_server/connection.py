"""aiohttp's connection, with a place, with deadlines, and without tracebacks for what a stranger sends.

A head has some seconds from its first byte on, the first one from the connection on. Whatever the deadline, the
connection is aborted: closing it would wait for a client that takes nothing. An answer that is not taken counts as idle
time: its connection has as long as one without requests, and is as ready to make way.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError
from aiohttp.web_protocol import PayloadAccessError, RequestPayloadError

from speil.http_server.places import Place, Refusal

if TYPE_CHECKING:
    from speil.http_server.server import GuardedServer

HEAD_SECONDS_MAX = 10.0  # containerd sends its head in one piece
KEEPALIVE_SECONDS = 75.0  # above Go's idle connection habits on a node; peers keep theirs for 30 s
LINGER_SECONDS = 1.0  # a request's body is not for us; it is read that long, so that the client sees the answer
_GRACE_SECONDS = 5.0  # aiohttp ends an idle connection first, with FIN
_CLIENTS_FAULT = (HttpProcessingError, RequestPayloadError, PayloadAccessError)
_NOBODY = Place("", "", is_own=False, close=lambda: None)


class Connection(web.RequestHandler):
    """One client; `place` is its own from the connection on."""

    __slots__ = ("_deadline", "_owner", "_working", "place")

    def __init__(self, owner: GuardedServer, **kwargs: Any) -> None:
        super().__init__(owner.aiohttp_server, **kwargs)
        self._owner, self.place = owner, _NOBODY
        self._deadline: asyncio.TimerHandle | None = None
        self._working = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        place = self._owner.take_place(transport)
        if place is None:
            transport.abort()
            return
        self.place = place
        super().connection_made(transport)
        self._wait_for_head(HEAD_SECONDS_MAX)

    def connection_lost(self, exc: BaseException | None) -> None:
        self._stop_waiting()
        self._owner.places.leave(self.place)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if data and not self._working and self._deadline is not None:
            # a head has begun: it has less time than an idle connection
            deadline = self._loop.time() + HEAD_SECONDS_MAX
            if deadline < self._deadline.when():
                self._wait_until(deadline)

    def began(self) -> None:
        """A head is whole."""
        self._working = True
        self._stop_waiting()
        self._owner.places.work(self.place)

    def ended(self) -> None:
        """Its answer is on the way."""
        self._working = False
        if self.transport is not None:
            self._owner.places.rest(self.place)
            self._wait_for_head(KEEPALIVE_SECONDS + _GRACE_SECONDS)

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """What is no request is a 400, as Go's server says it; anything else is a bug of ours."""
        self._report(exc)
        if request.writer.output_size > 0:
            raise ConnectionResetError("the head is out")
        response = web.Response(status=status, text="400 Bad Request" if status == 400 else None)
        response.force_close()
        return response

    def log_exception(self, *args: Any, **kwargs: Any) -> None:
        """aiohttp calls this where it would write a traceback."""
        error = kwargs.get("exc_info")
        self._report(error if isinstance(error, BaseException) else None, str(args[0]) if args else "")

    def _report(self, error: BaseException | None, event: str = "") -> None:
        if isinstance(error, ConnectionError):
            return  # the client went away
        if isinstance(error, _CLIENTS_FAULT):
            self._owner.malformed(self.place, error)
        else:
            self._owner.failed(error, event)

    def _wait_for_head(self, seconds: float) -> None:
        self._wait_until(self._loop.time() + seconds)

    def _wait_until(self, deadline: float) -> None:
        self._stop_waiting()
        self._deadline = self._loop.call_at(deadline, self._no_head)

    def _stop_waiting(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _no_head(self) -> None:
        self._deadline = None
        self._owner.refused(Refusal.NO_HEAD)
        self.place.close()


def place_of(request: web.BaseRequest) -> Place:
    """Whose request it is."""
    return request.protocol.place if isinstance(request.protocol, Connection) else _NOBODY
