"""Idle TCP connections, kept for the next request to the same endpoint.

A connection is kept only when its response was read to the last byte. One that becomes readable while it is idle was
closed by the other side, or holds bytes that nobody asked for: it is closed.
"""

from __future__ import annotations

import asyncio
import errno
import socket
from collections import defaultdict
from dataclasses import dataclass

CONNECT_SECONDS_MAX = 1.0  # inside a region a connection takes a millisecond; a dead host must not cost more
IDLE_PER_ENDPOINT_MAX = 4  # containerd asks for three layers at a time
IDLE_TOTAL_MAX = 64
IDLE_SECONDS_MAX = 30.0  # below the server's keep-alive, so that a kept connection is a living one

# the machine's or the process's limits: not the fault of the other side
OWN_LIMITS = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM, errno.EADDRNOTAVAIL})


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A host (a name or an IP address, IPv6 without brackets) and a TCP port."""

    host: str
    port: int


@dataclass(slots=True)
class Connection:
    """A non-blocking socket; `unread` is what was read from it and not used yet."""

    socket: socket.socket
    unread: bytes = b""
    idle_since: float = 0.0

    def close(self) -> None:
        """Close the socket at once."""
        self.socket.close()

    @property
    def is_quiet(self) -> bool:
        """Whether it is open and nothing can be read from it."""
        if self.unread:
            return False
        try:
            self.socket.recv(1, socket.MSG_PEEK)
        except BlockingIOError:
            return True
        except OSError:
            return False
        return False


class ConnectionPool:
    """Idle connections, within the bounds above. Close it."""

    def __init__(self) -> None:
        self._idle: defaultdict[Endpoint, list[Connection]] = defaultdict(list)
        self._sweep: asyncio.TimerHandle | None = None

    @property
    def idle_count(self) -> int:
        """How many connections are kept."""
        return sum(map(len, self._idle.values()))

    def take(self, endpoint: Endpoint) -> Connection | None:
        """A kept connection that is still good, the last used first."""
        connections = self._idle.get(endpoint, [])
        while connections:
            connection = connections.pop()
            if connection.is_quiet:
                return connection
            connection.close()
        return None

    async def connect(self, endpoint: Endpoint) -> Connection:
        """A new connection. Raises OSError, and TimeoutError after CONNECT_SECONDS_MAX."""
        loop = asyncio.get_running_loop()
        family = socket.AF_INET6 if ":" in endpoint.host else socket.AF_INET
        async with asyncio.timeout(CONNECT_SECONDS_MAX):
            address: tuple[object, ...] = (endpoint.host, endpoint.port)
            if not _is_ip(endpoint.host):
                family, address = await _resolve(endpoint)
            opened = socket.socket(family, socket.SOCK_STREAM)
            try:
                opened.setblocking(False)
                await loop.sock_connect(opened, address)
            except BaseException:
                opened.close()
                raise
        return Connection(opened)

    def keep(self, endpoint: Endpoint, connection: Connection) -> None:
        """Take a connection whose response was read to its end."""
        full = len(self._idle.get(endpoint, ())) >= IDLE_PER_ENDPOINT_MAX or self.idle_count >= IDLE_TOTAL_MAX
        if full or not connection.is_quiet:
            connection.close()
            return
        loop = asyncio.get_running_loop()
        connection.idle_since = loop.time()
        self._idle[endpoint].append(connection)
        if self._sweep is None:
            self._sweep = loop.call_later(IDLE_SECONDS_MAX, self._close_old)

    def forget(self, endpoint: Endpoint) -> None:
        """Close the idle connections to an endpoint: one of them did not answer."""
        for connection in self._idle.pop(endpoint, []):
            connection.close()

    def close(self) -> None:
        """Close all idle connections."""
        for endpoint in list(self._idle):
            self.forget(endpoint)
        if self._sweep is not None:
            self._sweep.cancel()
            self._sweep = None

    def _close_old(self) -> None:
        loop = asyncio.get_running_loop()
        self._sweep, limit = None, loop.time() - IDLE_SECONDS_MAX
        for endpoint, connections in list(self._idle.items()):
            for connection in [one for one in connections if one.idle_since <= limit]:
                connections.remove(connection)
                connection.close()
            if not connections:
                del self._idle[endpoint]
        if self._idle:
            oldest = min(one.idle_since for connections in self._idle.values() for one in connections)
            self._sweep = loop.call_at(oldest + IDLE_SECONDS_MAX, self._close_old)


async def _resolve(endpoint: Endpoint) -> tuple[socket.AddressFamily, tuple[object, ...]]:
    """The family and the first address of a name. Raises OSError, also for what can't be a name."""
    loop = asyncio.get_running_loop()
    try:
        found = await loop.getaddrinfo(endpoint.host, endpoint.port, type=socket.SOCK_STREAM)
    except UnicodeError as error:  # an empty label, or one of more than 63 bytes
        raise OSError(errno.EINVAL, f"not a host name: {error}") from None
    family, _, _, _, address = found[0]
    return family, address


def _is_ip(host: str) -> bool:
    for family in (socket.AF_INET, socket.AF_INET6):
        try:
            socket.inet_pton(family, host)
        except OSError:
            continue
        return True
    return False
