"""A client of HTTP/1.1 servers: kept connections, one time limit, bounded answers, errors by who erred.

For the few servers that speil asks: the API server, a bootstrap page, its own ports. No redirects, no cookies, no
proxies, no compression. Peers are asked by the mirror's own client, whose bodies never pass through Python.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass

from speil.http1.client_connection import ClientConnection, StaleError
from speil.http1.connect import connected_socket
from speil.http1.error import (
    AnswerTooLargeError,
    BadAnswerError,
    HttpError,
    NoAnswerError,
    RequestError,
    UnreachableError,
)
from speil.http1.message import Headers
from speil.http1.url import Origin, Url, parse_url

__all__ = [
    "Answer", "AnswerTooLargeError", "BadAnswerError", "HttpClient", "HttpError", "NoAnswerError", "RequestError",
    "StreamedAnswer", "UnreachableError",
]  # fmt: skip

CONNECTIONS_MAX = 16  # of one client
IDLE_SECONDS_MAX = 15.0
_IDEMPOTENT = frozenset({"GET", "HEAD", "PUT", "DELETE", "OPTIONS"})  # RFC 9110 §9.2.2
_WITH_BODY = frozenset({"POST", "PUT", "PATCH"})


@dataclass(frozen=True, slots=True)
class Answer:
    """A whole answer."""

    status: int
    headers: Headers
    body: bytes

    @property
    def text(self) -> str:
        """The body as UTF-8; what is not is replaced."""
        return self.body.decode("utf-8", "replace")


class StreamedAnswer:
    """An answer whose body is still to come: iterate over its pieces, once. Raises BadAnswerError."""

    def __init__(self, status: int, headers: Headers, connection: ClientConnection) -> None:
        self.status, self.headers = status, headers
        self._connection = connection

    def __aiter__(self) -> StreamedAnswer:
        return self

    async def __anext__(self) -> bytes:
        if (chunk := await self._connection.next_chunk()) is None:
            raise StopAsyncIteration
        return chunk


class HttpClient:
    """Requests to any server; close it when done. Its requests may run side by side."""

    def __init__(
        self,
        *,
        timeout_seconds: float,
        tls: ssl.SSLContext | None = None,
        headers: Mapping[str, str] | None = None,
        connections_max: int = CONNECTIONS_MAX,
        idle_seconds_max: float = IDLE_SECONDS_MAX,
    ) -> None:
        """`timeout_seconds` is for a whole request: a connection, the answer to its end, and what the caller does
        meanwhile. `tls` is for https (None: the system's authorities); `headers` go with each request.
        """
        self._timeout_seconds, self._tls, self._headers = timeout_seconds, tls, dict(headers or {})
        self._slots = asyncio.Semaphore(connections_max)
        self._connections_max, self._idle_seconds_max = connections_max, idle_seconds_max
        self._idle: dict[tuple[Origin, str], list[ClientConnection]] = {}
        self._expiry: asyncio.TimerHandle | None = None

    async def request(
        self,
        method: str,
        url: str,
        *,
        answer_bytes_max: int,
        params: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        body: bytes = b"",
        server_hostname: str = "",
    ) -> Answer:
        """The whole answer, whatever its status. Raises HttpError, or one of its kinds.

        `server_hostname` is what the server's certificate is checked for, "" the URL's host.
        """
        data = bytearray()
        async with self.stream(
            method, url, params=params, headers=headers, body=body, server_hostname=server_hostname
        ) as answer:
            async for chunk in answer:
                data += chunk
                if len(data) > answer_bytes_max:
                    raise AnswerTooLargeError(f"{_shown(url)} answered with more than {answer_bytes_max} bytes")
        return Answer(answer.status, answer.headers, bytes(data))

    @asynccontextmanager
    async def stream(
        self,
        method: str,
        url: str,
        *,
        params: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        body: bytes = b"",
        server_hostname: str = "",
    ) -> AsyncIterator[StreamedAnswer]:
        """An answer with its head; see `request`. A body that is not read to its end costs the connection."""
        parsed = parse_url(url, params)
        key = parsed.origin, server_hostname
        limit = asyncio.timeout(self._timeout_seconds)
        try:
            async with limit, self._slots:
                fields = self._fields(method, parsed, headers or {}, len(body))
                answer, connection = await self._ask(key, method, parsed.target, fields, body)
                try:
                    yield answer
                finally:
                    self._give_back(key, connection)
        except TimeoutError:
            if not limit.expired():
                raise
            raise NoAnswerError(f"{parsed.origin} gave no answer within {self._timeout_seconds:g} s") from None

    async def close(self) -> None:
        """Close the kept connections. A later request opens new ones."""
        if self._expiry is not None:
            self._expiry.cancel()
            self._expiry = None
        idle, self._idle = self._idle, {}
        for connections in idle.values():
            for connection in connections:
                connection.abort()
        await asyncio.sleep(0)  # the loop closes their sockets in its next round

    async def _ask(
        self, key: tuple[Origin, str], method: str, target: str, fields: list[tuple[str, str]], body: bytes
    ) -> tuple[StreamedAnswer, ClientConnection]:
        connection = self._take(key)
        is_kept = connection is not None
        while True:
            if connection is None:
                connection = await self._open(*key)
            try:
                status, headers = await connection.ask(method, target, fields, body)
            except StaleError:
                connection.abort()
                if not is_kept or method not in _IDEMPOTENT:
                    raise
                connection, is_kept = None, False  # the server had closed it already: once more, on a new one
            except BaseException:
                connection.abort()
                raise
            else:
                return StreamedAnswer(status, headers, connection), connection

    async def _open(self, origin: Origin, server_hostname: str) -> ClientConnection:
        tls, name = None, None
        if origin.scheme == "https":
            self._tls = self._tls or ssl.create_default_context()
            tls, name = self._tls, server_hostname or origin.host
        try:
            opened = await connected_socket(origin.host, origin.port)
            _, connection = await asyncio.get_running_loop().create_connection(
                lambda: ClientConnection(str(origin)), sock=opened, ssl=tls, server_hostname=name
            )
        except TimeoutError:
            raise UnreachableError(f"{origin} can't be reached: the connection timed out") from None
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", "") or str(error)
            raise UnreachableError(f"{origin} can't be reached: {reason}") from error
        return connection

    def _fields(self, method: str, url: Url, headers: Mapping[str, str], body_bytes: int) -> list[tuple[str, str]]:
        found = {"Host": url.origin.authority, **self._headers}
        if url.authorization:
            found["Authorization"] = url.authorization
        found |= headers
        if body_bytes or method in _WITH_BODY:
            found["Content-Length"] = str(body_bytes)
        return list(found.items())

    # --- kept connections -----------------------------------------------------------------------------------

    def _take(self, key: tuple[Origin, str]) -> ClientConnection | None:
        connections = self._idle.get(key, [])
        while connections:
            connection = connections.pop()
            if not connections:
                del self._idle[key]
            if connection.is_usable:
                return connection
            connection.abort()
        return None

    def _give_back(self, key: tuple[Origin, str], connection: ClientConnection) -> None:
        if not connection.is_usable:
            connection.abort()
            return
        loop = asyncio.get_running_loop()
        connection.idle_since = loop.time()
        self._idle.setdefault(key, []).append(connection)
        if sum(map(len, self._idle.values())) > self._connections_max:
            self._drop_oldest()
        if self._expiry is None:
            self._expiry = loop.call_later(self._idle_seconds_max, self._expire)

    def _drop_oldest(self) -> None:
        key = min(self._idle, key=lambda key: self._idle[key][0].idle_since)
        self._idle[key].pop(0).abort()
        if not self._idle[key]:
            del self._idle[key]

    def _expire(self) -> None:
        """Close what has been idle for too long; look again when the next one will have been."""
        self._expiry = None
        loop = asyncio.get_running_loop()
        while self._idle:
            oldest = min(connections[0].idle_since for connections in self._idle.values())
            if (left := oldest + self._idle_seconds_max - loop.time()) > 0:
                self._expiry = loop.call_later(left, self._expire)
                return
            self._drop_oldest()


def _shown(url: str) -> str:
    return str(parse_url(url).origin)
