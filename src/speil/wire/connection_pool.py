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

from speil.tcp import addresses_of, connect

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
        async with asyncio.timeout(CONNECT_SECONDS_MAX):
            first, *_ = await addresses_of(endpoint.host, endpoint.port)
            return Connection(await connect(first))

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
