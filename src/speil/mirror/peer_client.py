"""GET and HEAD from a peer: HTTP/1.1 over a plain connection, head and body apart.

A library client reads ahead into the body; here the head is read up to its last byte and the body is handed on as it
comes, so that a relay may move it without reading. Only what a speil or Spegel answers is understood: a Content-Length,
no chunks, no encoding, no redirect. Anything else is the peer's error and another peer is asked (`mirror.peer_head`).
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from speil.border.http import HttpDoor
from speil.mirror.body import COPY_BYTES, BodySink
from speil.mirror.connection_pool import (
    CONNECT_SECONDS_MAX,
    OWN_LIMITS,
    ConnectionPool,
    Endpoint,
    PeerConnection,
)
from speil.mirror.peer_head import HEAD_BYTES_MAX, BadHeadError, HeadParser, ResponseHead
from speil.mirror.splice import NotSpliceableError, SourceBrokeOffError, SourceStalledError, Splice, receive
from speil.mirror.uploads import BUSY_HEADER
from speil.mirror.wire import Wire
from speil.multiformats.peer_id import PeerId
from speil.observe.logs import get_log
from speil.oci import media_type
from speil.region.proof import bound

__all__ = ["Endpoint", "PeerBusyError", "PeerClient", "PeerError", "PeerResponse", "RangeRefusedError"]

RETRY_AFTER_SECONDS_MAX = 60.0  # a peer that says more is asked again all the same
SILENCE_SECONDS = 0.5  # without an answer on a kept connection: others to the same peer may be dead too
SPLICE_BYTES_MIN = 64 << 10  # below it, setting up costs more than a copy
ACCEPT = ", ".join((*sorted(media_type.MANIFESTS), "*/*"))

log = get_log("peer")

_GiveBack = Callable[[PeerConnection, bool], None]  # the connection, and whether its answer was taken to the end


class PeerError(Exception):
    """The peer can't serve this; `outcome` is the metric's label, `blame` whether it did something wrong."""

    def __init__(self, outcome: str, message: str, *, blame: bool = True) -> None:
        super().__init__(message)
        self.outcome, self.blame = outcome, blame


class PeerBusyError(PeerError):
    """The peer has as many uploads as it wants (503): nothing is wrong with it, others are to be asked."""

    def __init__(self, reason: str, retry_after_seconds: float) -> None:
        super().__init__("busy", f"it is busy ({reason})", blame=False)
        self.retry_after_seconds = retry_after_seconds


class RangeRefusedError(PeerError):
    """The peer has the content, and the range lies behind its end: the answer is 416, whoever is asked."""

    def __init__(self, content_range: str) -> None:
        super().__init__("range", f"416, {content_range}", blame=False)
        self.content_range = content_range


@dataclass(frozen=True, slots=True)
class _Asked:
    endpoint: Endpoint
    method: str
    target: str
    peer_id: PeerId
    range_header: str


class PeerResponse:
    """A good head, and the body behind it; `left` counts the body bytes still to come. Close it."""

    def __init__(
        self,
        status: int,
        headers: dict[str, str],
        size: int,
        connection: PeerConnection,
        give_back: _GiveBack,
        wire: Wire,
    ) -> None:
        self.status, self.headers, self.left = status, headers, size
        self._connection, self._give_back, self._wire = connection, give_back, wire
        self._splice: Splice | None = None
        self._read_seconds = 0.0
        self._closed = False

    @property
    def peer_seconds(self) -> float:
        """Time spent waiting for the peer's bytes; what a slow client took is not in it."""
        return self._read_seconds + (self._splice.source_seconds if self._splice else 0.0)

    async def move(self, sink: BodySink, stall_seconds: float) -> int:
        """Move the next piece of the body to the client; its size. What was moved is told before a break is raised.

        Raises PeerError where the peer sends nothing for `stall_seconds` or breaks off, ClientGoneError.
        """
        if self._splice is None and not self._connection.unread:
            self._splice = await self._open_splice(sink)
        if self._splice is not None:
            self._splice.stall_seconds = stall_seconds
            try:
                size = await self._splice.piece()
            except NotSpliceableError as error:
                log.warning(
                    "the kernel does not splice here: bodies of peers are copied from now on", error=error.__cause__
                )
                self._wire.splices = False
                self._connection.unread = self._splice.rescue()
                self._end_splice()
            except (SourceBrokeOffError, SourceStalledError) as error:
                raise self._failure(error) from error
            else:
                self.left -= size
                sink.moved(size)
                return size
        data = await self.read(stall_seconds)
        await sink.write(data)
        return len(data)

    async def read(self, stall_seconds: float, size_max: int = COPY_BYTES) -> bytes:
        """The next piece of the body, empty behind its end. Raises PeerError where it stalls or breaks off."""
        wanted = min(self.left, size_max)
        if not wanted:
            return b""
        if unread := self._connection.unread:
            data, self._connection.unread = unread[:wanted], unread[wanted:]
        else:
            loop = asyncio.get_running_loop()
            started = loop.time()
            try:
                data = await receive(self._wire, self._connection.socket, wanted, stall_seconds=stall_seconds)
            except (SourceBrokeOffError, SourceStalledError) as error:
                raise self._failure(error) from error
            finally:
                self._read_seconds += loop.time() - started
        self.left -= len(data)
        return data

    def close(self) -> None:
        """Keep the connection if the body was taken to its end, close it otherwise."""
        if not self._closed:
            self._closed = True
            self._end_splice()
            self._give_back(self._connection, not self.left)

    def _failure(self, error: SourceBrokeOffError | SourceStalledError) -> PeerError:
        outcome = "timeout" if isinstance(error, SourceStalledError) else "broken"
        return PeerError(outcome, f"{error}, {self.left} bytes missing")

    async def _open_splice(self, sink: BodySink) -> Splice | None:
        if self.left < SPLICE_BYTES_MIN or not self._wire.splices or not await sink.claim():
            return None
        if (pipe := self._wire.pipes.take()) is None:
            return None
        return Splice(self._wire, sink, self._connection.socket, pipe, self.left)

    def _end_splice(self) -> None:
        if self._splice is not None:
            self._read_seconds += self._splice.source_seconds
            self._wire.pipes.give_back(self._splice.pipe, is_empty=self._splice.is_empty)
            self._splice = None


class PeerClient:
    """Requests to peers, with a bounded pool of idle connections."""

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
    ) -> PeerResponse:
        """Send a request to `peer_id` at `endpoint`; the answer's head. Raises PeerError for all but 200 and 206.

        There is no time limit here but that of connecting: whoever waits decides when to ask elsewhere.
        """
        if not self._door.may_ask(endpoint.host):
            raise PeerError("refused", f"{endpoint.host} is outside the region's networks")
        asked = _Asked(endpoint, method, target, peer_id, range_header)
        loop = asyncio.get_running_loop()
        while connection := self._pool.take(endpoint):
            started = loop.time()
            try:
                return await self._exchange(connection, asked)
            except PeerError as error:
                if error.outcome != "broken":
                    raise
                # the peer closed it while it was idle: that says nothing about the peer
            except asyncio.CancelledError:
                if loop.time() - started >= SILENCE_SECONDS:
                    self._pool.forget(endpoint)
                raise
        return await self._exchange(await self._connect(endpoint), asked)

    def close(self) -> None:
        """Close what is idle."""
        self._pool.close()

    def _give_back(self, endpoint: Endpoint, connection: PeerConnection, is_whole: bool) -> None:
        if is_whole:
            self._pool.keep(endpoint, connection)
        else:
            connection.close()

    async def _connect(self, endpoint: Endpoint) -> PeerConnection:
        try:
            return await self._pool.connect(endpoint)
        except TimeoutError:
            raise PeerError("timeout", f"{endpoint.host} can't be connected to in {CONNECT_SECONDS_MAX:g} s") from None
        except OSError as error:
            if error.errno in OWN_LIMITS:
                raise PeerError("own_limit", f"no connection can be opened: {error.strerror}", blame=False) from error
            raise PeerError("refused", f"{endpoint.host}: {error.strerror or error}") from error

    def _head(self, asked: _Asked, ours: dict[str, str]) -> bytes:
        host = asked.endpoint.host
        lines = [
            f"{asked.method} {asked.target} HTTP/1.1",
            f"Host: [{host}]" if ":" in host else f"Host: {host}",
            f"User-Agent: {self._user_agent}",
            f"Accept: {ACCEPT}",
            *(f"{name}: {value}" for name, value in ours.items()),
            # Spegel always sends one; the credentials are for whoever has proved to know them, and a token does that
            "Authorization: Basic Og==",
        ]
        if asked.range_header:
            lines.append(f"Range: {asked.range_header}")
        return "\r\n".join((*lines, "", "")).encode()

    async def _exchange(self, connection: PeerConnection, asked: _Asked) -> PeerResponse:
        method, endpoint = asked.method, asked.endpoint
        # a token is good once: each connection gets its own
        ours = self._door.request_headers(method, asked.target, asked.peer_id, asked.range_header)
        try:
            await asyncio.get_running_loop().sock_sendall(connection.socket, self._head(asked, ours))
            head = await _receive_head(connection, method)
            status = head.status
            if self._door.is_unproven(endpoint.host, ours, status, head.headers):
                raise PeerError("bad_answer", "it does not prove that it is of this region")
            headers = bound(head.headers.items())  # what the proof does not cover is not looked at
            if status not in (200, 206):
                refusal = _refusal(status, headers, asked_range=bool(asked.range_header))
                if refusal.outcome != "bad_answer":
                    # an error's body is short; a connection is not worth reading it
                    is_whole = head.keeps_alive and (method == "HEAD" or head.length == 0)
                    self._give_back(endpoint, connection, is_whole)
                raise refusal
            if head.length is None:
                raise PeerError("bad_answer", "no Content-Length")
            if self._door.refuses_answer(endpoint.host, headers):
                raise PeerError("bad_answer", "it is of another region")
            if headers.get("content-encoding", "identity").lower() != "identity":
                raise PeerError("bad_answer", "an encoded body")
        except OSError as error:
            connection.close()
            raise PeerError("broken", f"closed without an answer: {error!r}") from error
        except PeerError as error:
            if error.outcome in ("bad_answer", "broken"):
                connection.close()
            raise
        except BaseException:
            connection.close()
            raise
        size = 0 if method == "HEAD" else head.length
        give_back = partial(self._give_back, endpoint) if head.keeps_alive else _close
        return PeerResponse(status, headers, size, connection, give_back, self._wire)


async def _receive_head(connection: PeerConnection, method: str) -> ResponseHead:
    """A whole head; what came behind it stays with the connection. Raises PeerError, OSError."""
    loop, parser = asyncio.get_running_loop(), HeadParser(method)
    while True:
        data = await loop.sock_recv(connection.socket, HEAD_BYTES_MAX)
        if not data:
            raise PeerError("broken", "closed without an answer")
        try:
            head = parser.feed(data)
        except BadHeadError as error:
            raise PeerError("bad_answer", str(error)) from error
        if head is not None:
            connection.unread = parser.unread
            return head


def _close(connection: PeerConnection, _is_whole: bool) -> None:
    connection.close()


def _refusal(status: int, headers: dict[str, str], *, asked_range: bool) -> PeerError:
    if status == 416 and asked_range and re.fullmatch(r"bytes \*/[0-9]{1,19}", headers.get("content-range", "")):
        return RangeRefusedError(headers["content-range"])
    if status == 404:
        return PeerError("not_found", "it does not have it (any more)", blame=False)
    if status == 503:
        told = headers.get("retry-after", "")
        seconds = min(float(told), RETRY_AFTER_SECONDS_MAX) if re.fullmatch(r"[0-9]{1,9}", told) else 0.0
        return PeerBusyError(_reason(headers.get(BUSY_HEADER.lower(), "")), seconds)
    return PeerError("bad_answer", f"status {status}")


def _reason(told: str) -> str:
    """What a busy peer says of it, as far as it can be shown to people."""
    return told if re.fullmatch(r"[\x20-\x7e]{1,40}", told) else "it does not say why"
