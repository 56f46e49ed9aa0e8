"""GET and HEAD from a peer: HTTP/1.1 over a plain connection, head and body apart.

A library's client reads ahead into the body. Here the head is read, and the body stays on the socket, so that it can be
moved to a client in the kernel. Only the responses of speil and Spegel are understood: with a Content-Length, without
chunks, encoding or redirect. Anything else is an error of the peer, and another peer is asked.
"""

from __future__ import annotations

import asyncio
import re
from dataclasses import dataclass
from functools import partial

from speil.border.http import HttpDoor
from speil.multiformats.peer_id import PeerId
from speil.oci import media_type
from speil.region.proof import bound
from speil.sources.peer_error import Outcome, PeerBusyError, PeerError, RangeRefusedError
from speil.sources.peer_head import HEAD_BYTES_MAX, BadHeadError, HeadParser, ResponseHead
from speil.wire.connection_pool import CONNECT_SECONDS_MAX, OWN_LIMITS, Connection, ConnectionPool, Endpoint
from speil.wire.sink import Sink
from speil.wire.socket_body import SocketBody, SourceBrokeOffError, SourceStalledError
from speil.wire.turns import Wire

FOLLOW_HEADER = "X-Speil-Follow"  # of a request, "true": content that the peer is downloading will do
GROWING_HEADER = "X-Speil-Growing"  # of a response, "true": the content is being downloaded, and is not verified yet
BUSY_HEADER = "X-Speil-Busy"  # of a 503: the reason; a body would cost the peer its connection
RETRY_AFTER_SECONDS_MAX = 60.0  # a peer that says more is asked again all the same
SILENCE_SECONDS = 0.5  # without an answer on a kept connection: others to the same peer may be dead too
_REFUSED_RANGE = re.compile(r"bytes \*/([0-9]{1,19})")
ACCEPT = ", ".join((*sorted(media_type.MANIFESTS), "*/*"))


@dataclass(frozen=True, slots=True)
class _Asked:
    endpoint: Endpoint
    method: str
    target: str
    peer_id: PeerId
    range_header: str
    follows: bool


class PeerResponse:
    """A response's head, and its body behind it. Close it."""

    def __init__(self, status: int, headers: dict[str, str], body: SocketBody) -> None:
        """Header names are in lower case; only headers that the proof covers are there."""
        self.status, self.headers, self._body = status, headers, body

    @property
    def left(self) -> int:
        """Body bytes still to come."""
        return self._body.left

    @property
    def peer_seconds(self) -> float:
        """Time spent waiting for the peer's bytes; what a slow client took is not in it."""
        return self._body.source_seconds

    async def move(self, sink: Sink, stall_seconds: float) -> int:
        """As `SocketBody.move`, but raises PeerError where the peer stalls or breaks off."""
        try:
            return await self._body.move(sink, stall_seconds)
        except (SourceBrokeOffError, SourceStalledError) as error:
            raise self._failure(error) from error

    async def read(self, stall_seconds: float) -> bytes:
        """As `SocketBody.read`, but raises PeerError where the peer stalls or breaks off."""
        try:
            return await self._body.read(stall_seconds)
        except (SourceBrokeOffError, SourceStalledError) as error:
            raise self._failure(error) from error

    @property
    def moving(self) -> int:
        """See `SocketBody.moving`."""
        return self._body.moving

    @property
    def moved_at(self) -> float:
        """See `SocketBody.moved_at`."""
        return self._body.moved_at

    @property
    def waits_for_client(self) -> bool:
        """See `SocketBody.waits_for_client`."""
        return self._body.waits_for_client

    def interrupt(self) -> None:
        """End a wait for the peer's bytes: `move` and `read` raise PeerError (TIMEOUT), or return what they moved."""
        self._body.interrupt()

    def close(self) -> None:
        """Keep the connection if the body was read to its end, close it otherwise."""
        self._body.close()

    def _failure(self, error: SourceBrokeOffError | SourceStalledError) -> PeerError:
        outcome = Outcome.TIMEOUT if isinstance(error, SourceStalledError) else Outcome.BROKEN
        return PeerError(outcome, f"{error}, {self.left} bytes missing")


class PeerClient:
    """Requests to peers, with a bounded pool of idle connections. Close it."""

    def __init__(self, user_agent: str, door: HttpDoor, wire: Wire) -> None:
        self._user_agent, self._door, self._wire = user_agent, door, wire
        self._pool = ConnectionPool()

    async def request(
        self,
        method: str,
        endpoint: Endpoint,
        peer_id: PeerId,
        target: str,
        range_header: str = "",
        *,
        follows: bool = False,
    ) -> PeerResponse:
        """Send a request to `peer_id` at `endpoint`; the response's head. Raises PeerError for all but 200 and 206.

        `follows`: content that the peer is downloading will do (FOLLOW_HEADER).

        Only connecting has a time limit here: the caller decides how long to wait for the head, and cancels.
        """
        if not self._door.may_ask(endpoint.host):
            raise PeerError(Outcome.REFUSED, f"{endpoint.host} is outside the region's networks")
        asked = _Asked(endpoint, method, target, peer_id, range_header, follows)
        loop = asyncio.get_running_loop()
        while connection := self._pool.take(endpoint):
            started = loop.time()
            try:
                return await self._exchange(connection, asked)
            except PeerError as error:
                if error.outcome is not Outcome.BROKEN:
                    raise
                # the peer closed it while it was idle: that is no failure
            except asyncio.CancelledError:
                if loop.time() - started >= SILENCE_SECONDS:
                    self._pool.forget(endpoint)
                raise
        return await self._exchange(await self._connect(endpoint), asked)

    def close(self) -> None:
        """Close the idle connections."""
        self._pool.close()

    def _give_back(self, endpoint: Endpoint, connection: Connection, is_whole: bool) -> None:
        if is_whole:
            self._pool.keep(endpoint, connection)
        else:
            connection.close()

    async def _connect(self, endpoint: Endpoint) -> Connection:
        try:
            return await self._pool.connect(endpoint)
        except TimeoutError:
            raise PeerError(
                Outcome.TIMEOUT, f"{endpoint.host} can't be connected to in {CONNECT_SECONDS_MAX:g} s"
            ) from None
        except OSError as error:
            if error.errno in OWN_LIMITS:
                raise PeerError(Outcome.OWN_LIMIT, f"no connection can be opened: {error.strerror}") from error
            raise PeerError(Outcome.REFUSED, f"{endpoint.host}: {error.strerror or error}") from error

    def _head(self, asked: _Asked, ours: dict[str, str]) -> bytes:
        host = asked.endpoint.host
        lines = [
            f"{asked.method} {asked.target} HTTP/1.1",
            f"Host: [{host}]" if ":" in host else f"Host: {host}",
            f"User-Agent: {self._user_agent}",
            f"Accept: {ACCEPT}",
            *(f"{name}: {value}" for name, value in ours.items()),
            # Spegel always sends one. The real credentials are never sent: a token proves that this node knows them
            "Authorization: Basic Og==",
        ]
        if asked.follows:
            lines.append(f"{FOLLOW_HEADER}: true")
        if asked.range_header:
            lines.append(f"Range: {asked.range_header}")
        return "\r\n".join((*lines, "", "")).encode()

    async def _exchange(self, connection: Connection, asked: _Asked) -> PeerResponse:
        method, endpoint = asked.method, asked.endpoint
        # a token is good once: each connection gets its own
        ours = self._door.request_headers(method, asked.target, asked.peer_id, asked.range_header)
        try:
            await asyncio.get_running_loop().sock_sendall(connection.socket, self._head(asked, ours))
            head = await _receive_head(connection, method)
            status = head.status
            if self._door.is_unproven(endpoint.host, ours, status, head.headers):
                raise PeerError(Outcome.BAD_ANSWER, "it does not prove that it is of this region")
            headers = bound(head.headers.items())  # headers that the proof does not cover are not used
            if status not in (200, 206):
                refusal = _refusal(status, headers, asked_range=bool(asked.range_header))
                if refusal.outcome is not Outcome.BAD_ANSWER:
                    # a body of an error is not read: a new connection costs less
                    is_whole = head.keeps_alive and (method == "HEAD" or head.length == 0)
                    self._give_back(endpoint, connection, is_whole)
                raise refusal
            if head.length is None:
                raise PeerError(Outcome.BAD_ANSWER, "no Content-Length")
            if self._door.refuses_answer(endpoint.host, headers):
                raise PeerError(Outcome.BAD_ANSWER, "it is of another region")
            if headers.get("content-encoding", "identity").lower() != "identity":
                raise PeerError(Outcome.BAD_ANSWER, "an encoded body")
        except OSError as error:
            connection.close()
            raise PeerError(Outcome.BROKEN, f"closed without an answer: {error!r}") from error
        except PeerError as error:
            if error.outcome in (Outcome.BAD_ANSWER, Outcome.BROKEN):
                connection.close()
            raise
        except BaseException:
            connection.close()
            raise
        size = 0 if method == "HEAD" else head.length
        give_back = partial(self._give_back, endpoint, connection) if head.keeps_alive else partial(_close, connection)
        return PeerResponse(status, headers, SocketBody(self._wire, connection, size, give_back))


async def _receive_head(connection: Connection, method: str) -> ResponseHead:
    """A whole head; bytes behind it are kept in `connection.unread`. Raises PeerError, OSError."""
    loop, parser = asyncio.get_running_loop(), HeadParser(method)
    while True:
        data = await loop.sock_recv(connection.socket, HEAD_BYTES_MAX)
        if not data:
            raise PeerError(Outcome.BROKEN, "closed without an answer")
        try:
            head = parser.feed(data)
        except BadHeadError as error:
            raise PeerError(Outcome.BAD_ANSWER, str(error)) from error
        if head is not None:
            connection.unread = parser.unread
            return head


def _close(connection: Connection, _is_whole: bool) -> None:
    connection.close()


def _refusal(status: int, headers: dict[str, str], *, asked_range: bool) -> PeerError:
    if status == 416 and asked_range and (match := _REFUSED_RANGE.fullmatch(headers.get("content-range", ""))):
        return RangeRefusedError(int(match[1]))
    if status == 404:
        return PeerError(Outcome.NOT_FOUND, "it does not have it (any more)")
    if status == 503:
        stated = headers.get("retry-after", "")
        seconds = min(float(stated), RETRY_AFTER_SECONDS_MAX) if re.fullmatch(r"[0-9]{1,9}", stated) else 0.0
        return PeerBusyError(_reason(headers.get(BUSY_HEADER.lower(), "")), seconds)
    return PeerError(Outcome.BAD_ANSWER, f"status {status}")


def _reason(stated: str) -> str:
    """The reason that a busy peer gives, if it is printable."""
    return stated if re.fullmatch(r"[\x20-\x7e]{1,40}", stated) else "no reason given"
