"""GET and HEAD from a peer: HTTP/1.1 over a plain connection, head and body apart.

A library client reads ahead into the body; here the head is read up to its last byte and the body is handed on as it
comes, so that a relay may move it without reading. Only what a speil or Spegel answers is understood: a Content-Length,
no chunks, no encoding, no redirect. Anything else is the peer's error and another peer is asked.
"""

from __future__ import annotations

import asyncio
import re
from collections import defaultdict
from dataclasses import dataclass, field

from speil.border.http import HttpDoor
from speil.mirror.body import BodySink
from speil.multiformats.peer_id import PeerId
from speil.oci import media_type

CONNECT_SECONDS_MAX = 1.0  # inside a region a connection takes a millisecond; a dead host must not cost more
HEAD_BYTES_MAX = 16 * 1024
IDLE_PER_PEER_MAX = 4  # containerd asks for three layers at a time
IDLE_TOTAL_MAX = 64
IDLE_SECONDS_MAX = 30.0  # below the server's keep-alive, so that a kept connection is a living one
RETRY_AFTER_SECONDS_MAX = 60.0  # a peer that says more is asked again all the same
CHUNK_BYTES = 256 * 1024
ACCEPT = ", ".join((*sorted(media_type.MANIFESTS), "*/*"))


class PeerError(Exception):
    """The peer can't serve this; `outcome` is the metric's label, `blame` whether it did something wrong."""

    def __init__(self, outcome: str, message: str, *, blame: bool = True) -> None:
        super().__init__(message)
        self.outcome, self.blame = outcome, blame


class PeerBusyError(PeerError):
    """The peer has as many uploads as it wants (503): nothing is wrong with it, others are to be asked."""

    def __init__(self, retry_after_seconds: float) -> None:
        super().__init__("busy", "it is busy", blame=False)
        self.retry_after_seconds = retry_after_seconds


class RangeRefusedError(PeerError):
    """The peer has the content, and the range lies behind its end: the answer is 416, whoever is asked."""

    def __init__(self, content_range: str) -> None:
        super().__init__("range", f"416, {content_range}", blame=False)
        self.content_range = content_range


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where a peer's registry listens."""

    host: str
    port: int


@dataclass(slots=True)
class _Connection:
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    idle_since: float = 0.0

    def close(self) -> None:
        self.writer.transport.abort()


@dataclass(slots=True)
class PeerResponse:
    """A good head, and the body behind it; `left` counts the body bytes still to come. Close it."""

    status: int
    headers: dict[str, str]
    left: int
    _connection: _Connection
    _client: PeerClient
    _endpoint: Endpoint
    _closed: bool = field(default=False)

    async def move(self, sink: BodySink, stall_seconds: float) -> int:
        """Move the next piece of the body to the client; its size. What was moved is told before a break is raised.

        Raises PeerError where the peer sends nothing for `stall_seconds` or breaks off, ClientGoneError.
        """
        data = await self.read(stall_seconds)
        await sink.write(data)
        return len(data)

    async def read(self, stall_seconds: float) -> bytes:
        """The next piece of the body, empty behind its end. Raises PeerError where it stalls or breaks off."""
        if not self.left:
            return b""
        try:
            async with asyncio.timeout(stall_seconds):
                data = await self._connection.reader.read(min(self.left, CHUNK_BYTES))
        except TimeoutError:
            raise PeerError("timeout", f"no byte in {stall_seconds:g} s") from None
        except OSError as error:
            raise PeerError("broken", f"broke off: {error.strerror or error}") from error
        if not data:
            raise PeerError("broken", f"broke off with {self.left} bytes missing")
        self.left -= len(data)
        return data

    def close(self) -> None:
        """Keep the connection if the body was read to its end, close it otherwise."""
        if not self._closed:
            self._closed = True
            self._client.release(self._endpoint, self._connection, reusable=not self.left)


class PeerClient:
    """Requests to peers, with a bounded pool of idle connections."""

    def __init__(self, user_agent: str, door: HttpDoor) -> None:
        self._user_agent, self._door = user_agent, door
        self._idle: defaultdict[Endpoint, list[_Connection]] = defaultdict(list)

    async def request(
        self,
        method: str,
        endpoint: Endpoint,
        peer_id: PeerId,
        target: str,
        *,
        authorization: str,
        range_header: str = "",
    ) -> PeerResponse:
        """Send a request to `peer_id` at `endpoint`; the answer's head. Raises PeerError for all but 200 and 206.

        There is no time limit here but that of connecting: whoever waits decides when to ask elsewhere.
        """
        if not self._door.may_ask(endpoint.host):
            raise PeerError("refused", f"{endpoint.host} is outside the region's networks")
        lines = [
            f"{method} {target} HTTP/1.1",
            f"Host: [{endpoint.host}]" if ":" in endpoint.host else f"Host: {endpoint.host}",
            f"User-Agent: {self._user_agent}",
            f"Accept: {ACCEPT}",
            *(f"{name}: {value}" for name, value in self._door.request_headers(method, target, peer_id).items()),
            f"Authorization: {authorization or 'Basic Og=='}",  # Spegel always sends one, empty without credentials
        ]
        if range_header:
            lines.append(f"Range: {range_header}")
        request = "\r\n".join((*lines, "", "")).encode()
        while connection := self._take_idle(endpoint):
            try:
                return await self._exchange(connection, endpoint, method, request)
            except PeerError as error:
                if error.outcome != "broken":
                    raise
                # the peer closed it while it was idle: that says nothing about the peer
        return await self._exchange(await self._connect(endpoint), endpoint, method, request)

    def release(self, endpoint: Endpoint, connection: _Connection, *, reusable: bool) -> None:
        """Take a connection back."""
        total = sum(map(len, self._idle.values()))
        if reusable and len(self._idle[endpoint]) < IDLE_PER_PEER_MAX and total < IDLE_TOTAL_MAX:
            connection.idle_since = asyncio.get_running_loop().time()
            self._idle[endpoint].append(connection)
        else:
            connection.close()
        if not self._idle[endpoint]:
            del self._idle[endpoint]

    def close(self) -> None:
        """Close what is idle."""
        for connections in self._idle.values():
            for connection in connections:
                connection.close()
        self._idle.clear()

    def _take_idle(self, endpoint: Endpoint) -> _Connection | None:
        now = asyncio.get_running_loop().time()
        connections = self._idle.get(endpoint, [])
        while connections:
            connection = connections.pop()
            if now - connection.idle_since < IDLE_SECONDS_MAX and not connection.reader.at_eof():
                return connection
            connection.close()
        return None

    async def _connect(self, endpoint: Endpoint) -> _Connection:
        try:
            async with asyncio.timeout(CONNECT_SECONDS_MAX):
                return _Connection(*await asyncio.open_connection(endpoint.host, endpoint.port, limit=CHUNK_BYTES))
        except TimeoutError:
            raise PeerError("timeout", f"{endpoint.host} can't be connected to in {CONNECT_SECONDS_MAX:g} s") from None
        except OSError as error:
            raise PeerError("refused", f"{endpoint.host}: {error.strerror or error}") from error

    async def _exchange(self, connection: _Connection, endpoint: Endpoint, method: str, request: bytes) -> PeerResponse:
        try:
            connection.writer.write(request)
            status, headers = _parse_head(await connection.reader.readuntil(b"\r\n\r\n"))
            length = _content_length(headers)
            left = 0 if method == "HEAD" else length
            if status not in (200, 206):
                refusal = _refusal(status, headers)
                # an error's body is short; a connection is not worth reading it
                self.release(endpoint, connection, reusable=left == 0 and refusal.outcome != "bad_answer")
                raise refusal
            if self._door.refuses_answer(endpoint.host, headers):
                raise PeerError("bad_answer", "it is of another region")
            if headers.get("content-encoding", "identity") != "identity":
                raise PeerError("bad_answer", "an encoded body")
            return PeerResponse(status, headers, left, connection, self, endpoint)
        except (asyncio.IncompleteReadError, OSError) as error:
            connection.close()
            raise PeerError("broken", f"closed without an answer: {error!r}") from error
        except asyncio.LimitOverrunError as error:
            connection.close()
            raise PeerError("bad_answer", "a head without an end") from error
        except PeerError as error:
            if error.outcome == "bad_answer":
                connection.close()
            raise
        except BaseException:
            connection.close()
            raise


def _refusal(status: int, headers: dict[str, str]) -> PeerError:
    if status == 416 and re.fullmatch(r"bytes \*/\d{1,19}", content_range := headers.get("content-range", "")):
        return RangeRefusedError(content_range)
    if status == 404:
        return PeerError("not_found", "it does not have it (any more)", blame=False)
    if status == 503:
        told = headers.get("retry-after", "")
        return PeerBusyError(min(float(told), RETRY_AFTER_SECONDS_MAX) if re.fullmatch(r"[0-9]{1,9}", told) else 0.0)
    return PeerError("bad_answer", f"status {status}")


def _parse_head(head: bytes) -> tuple[int, dict[str, str]]:
    """(status, headers with lower-case names). Raises PeerError."""
    if len(head) > HEAD_BYTES_MAX:
        raise PeerError("bad_answer", f"a head of {len(head)} bytes")
    first, *lines = head.decode("latin-1").split("\r\n")
    version, _, rest = first.partition(" ")
    if not version.startswith("HTTP/1.") or not rest[:3].isdigit():
        raise PeerError("bad_answer", f"no HTTP: {first[:50]!r}")
    headers = {}
    for line in lines:
        name, colon, value = line.partition(":")
        if colon:
            headers[name.strip().lower()] = value.strip()
    return int(rest[:3]), headers


def _content_length(headers: dict[str, str]) -> int:
    length = headers.get("content-length", "")
    if "transfer-encoding" in headers or not (length.isascii() and length.isdigit()):
        raise PeerError("bad_answer", "no Content-Length")
    return int(length)
