"""One client's connection: a place, deadlines, and its requests one after the other.

A head has some seconds from its first byte on, the first one from the connection on. Whatever the deadline, the
connection is aborted: closing it would wait for a client that takes nothing. An answer that is not taken counts as idle
time: its connection has as long as one without requests, and is as ready to make way.

While a request is answered, a bounded amount of what comes is read ahead: the next requests of a client that does not
wait for answers, or its FIN. A client that sends FIN after its requests still gets the answers. A request's body is
never for us: the answer goes out at once and is the last one, and what comes is read for a moment, so that the client
sees the answer and no reset.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from enum import Enum, auto
from http import HTTPStatus
from typing import Any, Protocol

import h11

from speil.http1.flow import Flow
from speil.http1.head import HEAD_BYTES_MAX, HeadBuffer, parse_head
from speil.http1.message import MalformedError, Request, parse_target
from speil.http1.places import Place, Places, Refusal
from speil.http1.reply import Reply

HEAD_SECONDS_MAX = 10.0  # containerd sends its head in one piece
KEEPALIVE_SECONDS = 75.0  # above Go's idle connection habits on a node; peers keep theirs for 30 s
LINGER_SECONDS = 1.0  # what comes after the last answer is read that long, so that the client sees the answer
LINGER_BYTES_MAX = 1 << 20  # and so many bytes of it
READ_AHEAD_BYTES_MAX = HEAD_BYTES_MAX  # of the next requests; then the socket is read no further


class _Stage(Enum):
    WAITING = auto()  # for a head
    ANSWERING = auto()
    ENDING = auto()  # the last answer is written; what comes is read and dropped


class Owner(Protocol):
    """The port that a connection belongs to (`http1.server`)."""

    answer: Callable[[Request, Reply], Awaitable[None]]
    places: Places

    def take_place(self, transport: asyncio.Transport) -> Place | None:
        """A place for a connection that has just come; None where it is refused."""

    def opened(self, connection: Connection) -> None:
        """A connection has its place."""

    def closed(self, connection: Connection) -> None:
        """A connection is gone; also called for one that had no place."""

    def start(self, answer: Coroutine[Any, Any, None]) -> None:
        """Run it in a task of the port's."""

    def refused(self, reason: Refusal) -> None:
        """Count a connection that was refused or closed."""

    def malformed(self, place: Place, why: str) -> None:
        """Count and log what is no request."""

    def failed(self, error: Exception) -> None:
        """Log a bug of ours."""


class Connection(asyncio.Protocol):
    """One client; `place` is its own from the connection on."""

    __slots__ = (
        "_deadline",
        "_dropped_bytes",
        "_drops",
        "_flow",
        "_has_ended",
        "_heads",
        "_is_last",
        "_loop",
        "_machine",
        "_owes_head",
        "_owner",
        "_reply",
        "_stage",
        "_timer",
        "_transport",
        "place",
    )

    def __init__(self, owner: Owner) -> None:
        self._owner = owner
        self._loop = asyncio.get_running_loop()
        self._machine = h11.Connection(h11.SERVER, max_incomplete_event_size=HEAD_BYTES_MAX)
        self._heads, self._flow = HeadBuffer(), Flow()
        self._stage = _Stage.WAITING
        self._transport: asyncio.Transport
        self.place: Place
        self._deadline = float("inf")
        self._timer: asyncio.TimerHandle | None = None
        self._owes_head = True  # from the connection on, and from the first byte of a later head on
        self._has_ended = False  # the client has sent FIN
        self._drops = False  # what comes is no request
        self._dropped_bytes = 0
        self._is_last = False  # the server stops: no request is begun any more
        self._reply: Reply | None = None  # of the request that is being answered

    # --- what asyncio calls ---------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See Protocol."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        place = self._owner.take_place(transport)
        if place is None:
            self._stage = _Stage.ENDING
            transport.abort()
            return
        self.place = place
        self._owner.opened(self)
        self._wait_until(self._loop.time() + HEAD_SECONDS_MAX)

    def connection_lost(self, exc: BaseException | None) -> None:
        """See Protocol."""
        self._flow.lose()
        self._client_left()
        self._deadline = float("inf")
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._owner.closed(self)

    def pause_writing(self) -> None:
        """See Protocol."""
        self._flow.pause()

    def resume_writing(self) -> None:
        """See Protocol."""
        self._flow.resume()
        if self._stage is _Stage.WAITING:
            self._next()

    def data_received(self, data: bytes) -> None:
        """See Protocol."""
        if self._drops or self._stage is _Stage.ENDING:
            self._drop(len(data))
            return
        self._heads.add(data)
        if self._stage is _Stage.ANSWERING:
            self._read_no_further()
        else:
            self._next()

    def eof_received(self) -> bool:
        """See Protocol: True keeps the connection for the answers that are still to be sent."""
        self._has_ended = True
        if self._stage is _Stage.ENDING:
            return False
        if self._stage is _Stage.WAITING:
            self._next()
        self._client_left()
        return self._stage is _Stage.ANSWERING or self._transport.get_write_buffer_size() > 0

    # --- one request after the other ------------------------------------------------------------------------

    def _next(self) -> None:
        """Begin the next request, where its head is whole and the answers before it are taken."""
        if self._flow.is_paused or self._transport.is_closing():
            self._read_no_further()
            return
        try:
            head = self._heads.take()
            if head is None:
                self._head_is_missing()
                return
            self._begin(head)
        except MalformedError as error:
            self._refuse(error)

    def _begin(self, head: bytes) -> None:
        if self._is_last:
            self._end()
            return
        event, headers, has_body = parse_head(self._machine, head)
        target = event.target.decode("ascii")
        path, query = parse_target(target)
        request = Request(event.method.decode("ascii"), target, path, query, headers, self.place)
        reply = Reply(self._machine, self._transport, self._flow, is_head=event.method == b"HEAD")
        self._owes_head, self._reply = False, reply
        if has_body:
            reply.closes = self._drops = True
            self._drop(len(self._heads))
            self._heads.clear()
        self._stage, self._deadline = _Stage.ANSWERING, float("inf")
        self._owner.places.work(self.place)
        self._owner.start(self._answer(request, reply))

    async def _answer(self, request: Request, reply: Reply) -> None:
        is_cancelled = False
        try:
            await self._owner.answer(request, reply)
            if reply.status is None:
                raise RuntimeError("a request was left without an answer")
        except asyncio.CancelledError:
            is_cancelled = True
            raise
        except Exception as error:
            reply.is_broken = True
            if not (self._is_gone and isinstance(error, ConnectionError)):
                self._owner.failed(error)
                if reply.status is None:
                    self._write_error(500)
        finally:
            if is_cancelled:
                self._transport.abort()
            self._answered(reply)  # raises nothing: an error here would end the server

    def _answered(self, reply: Reply) -> None:
        """The answer is written, or broken off."""
        self._reply = None
        if self._is_gone:
            return
        try:
            self._owner.places.rest(self.place)
            self._stage = _Stage.WAITING
            if reply.is_broken or self._is_last or self._machine.our_state is not h11.DONE:
                self._end()
                return
            self._machine.start_next_cycle()
            self._wait_until(self._loop.time() + KEEPALIVE_SECONDS)
            self._next()
        except Exception as error:
            self._owner.failed(error)
            self._transport.abort()

    def _head_is_missing(self) -> None:
        if self._has_ended:
            self._end()
            return
        if len(self._heads) and not self._owes_head:
            # a head has begun: it has less time than an idle connection
            self._owes_head = True
            self._wait_until(self._loop.time() + HEAD_SECONDS_MAX)
        self._transport.resume_reading()

    def _read_no_further(self) -> None:
        if len(self._heads) > READ_AHEAD_BYTES_MAX and not self._has_ended:
            self._transport.pause_reading()

    # --- the end --------------------------------------------------------------------------------------------

    def stop(self) -> None:
        """The server stops: the answer that is under way is the last one."""
        self._is_last = True
        if self._reply is not None:
            self._reply.abandon()
        if self._stage is _Stage.WAITING:
            self._end()

    def abort(self) -> None:
        """End at once, whatever is under way."""
        self._transport.abort()

    def _client_left(self) -> None:
        if self._reply is not None:
            self._reply.client_left()

    def _refuse(self, error: MalformedError) -> None:
        self._owner.malformed(self.place, str(error))
        self._write_error(error.status)
        self._end()

    def _write_error(self, status: int) -> None:
        """A short answer as Go's server gives it, whatever state the machine is in."""
        if not self._is_gone:
            text = f"{status} {HTTPStatus(status).phrase}"
            kind = "Content-Type: text/plain; charset=utf-8\r\nConnection: close"
            self._transport.write(f"HTTP/1.1 {text}\r\n{kind}\r\nContent-Length: {len(text)}\r\n\r\n{text}".encode())

    def _end(self) -> None:
        """FIN after what is written; what the client still sends is read for a moment, else it would see a reset."""
        self._stage, self._owes_head = _Stage.ENDING, False
        self._heads.clear()
        transport = self._transport
        is_unsent = transport.get_write_buffer_size() > 0
        self._wait_until(self._loop.time() + (KEEPALIVE_SECONDS if is_unsent else LINGER_SECONDS))
        if is_unsent or self._has_ended or self._is_last or not transport.can_write_eof():
            transport.close()
            return
        try:
            transport.write_eof()
        except OSError:  # the client has reset the connection, and the loop has not seen it yet
            transport.abort()
        else:
            transport.resume_reading()

    def _drop(self, size: int) -> None:
        self._dropped_bytes += size
        if self._dropped_bytes > LINGER_BYTES_MAX:
            if self._stage is _Stage.ENDING:
                self._transport.close()
            elif not self._has_ended:
                self._transport.pause_reading()

    # --- deadlines ------------------------------------------------------------------------------------------

    def _wait_until(self, deadline: float) -> None:
        """The timer is moved only where it would be too late: most requests come in time and cost none."""
        self._deadline = deadline
        if self._timer is None or self._timer.when() > deadline:
            if self._timer is not None:
                self._timer.cancel()
            self._timer = self._loop.call_at(deadline, self._look)

    def _look(self) -> None:
        self._timer = None
        if self._deadline == float("inf"):
            return
        if self._loop.time() < self._deadline:
            self._wait_until(self._deadline)
            return
        self._deadline = float("inf")
        is_unsent = self._transport.get_write_buffer_size() > 0
        if self._owes_head or is_unsent:
            self._owner.refused(Refusal.NO_HEAD)
            self._transport.abort()
        elif self._stage is _Stage.ENDING:
            self._transport.close()
        else:
            self._end()

    @property
    def _is_gone(self) -> bool:
        return self._flow.is_lost or self._transport.is_closing()
