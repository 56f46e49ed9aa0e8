"""Connections to peers, kept for the next request.

A connection comes back only when its answer was taken to the last byte. One that turns readable while it is idle was
closed by the peer, or holds bytes that nobody asked for: both end it.
"""

from __future__ import annotations

import asyncio
import errno
import socket
from collections import defaultdict
from dataclasses import dataclass

CONNECT_SECONDS_MAX = 1.0  # inside a region a connection takes a millisecond; a dead host must not cost more
IDLE_PER_PEER_MAX = 4  # containerd asks for three layers at a time
IDLE_TOTAL_MAX = 64
IDLE_SECONDS_MAX = 30.0  # below the server's keep-alive, so that a kept connection is a living one

# the machine's or the process's limits: nothing that the peer did
OWN_LIMITS = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM, errno.EADDRNOTAVAIL})


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where a peer's registry listens."""

    host: str
    port: int


@dataclass(slots=True)
class PeerConnection:
    """A non-blocking socket, and what was read from it behind a head (`unread`)."""

    socket: socket.socket
    unread: bytes = b""
    idle_since: float = 0.0

    def close(self) -> None:
        """Close it, whatever is under way on it."""
        self.socket.close()

    @property
    def is_quiet(self) -> bool:
        """Whether it is open and nothing waits to be read."""
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
    """Idle connections, within the bounds above."""

    def __init__(self) -> None:
        self._idle: defaultdict[Endpoint, list[PeerConnection]] = defaultdict(list)
        self._sweep: asyncio.TimerHandle | None = None

    @property
    def idle_count(self) -> int:
        """How many are kept."""
        return sum(map(len, self._idle.values()))

    def take(self, endpoint: Endpoint) -> PeerConnection | None:
        """A kept connection that is still good, the last used first."""
        connections = self._idle.get(endpoint, [])
        while connections:
            connection = connections.pop()
            if connection.is_quiet:
                return connection
            connection.close()
        return None

    async def connect(self, endpoint: Endpoint) -> PeerConnection:
        """A new connection. Raises OSError, and TimeoutError after CONNECT_SECONDS_MAX."""
        loop = asyncio.get_running_loop()
        family = socket.AF_INET6 if ":" in endpoint.host else socket.AF_INET
        async with asyncio.timeout(CONNECT_SECONDS_MAX):
            address: tuple[object, ...] = (endpoint.host, endpoint.port)
            if not _is_ip(endpoint.host):
                family, _, _, _, address = (
                    await loop.getaddrinfo(endpoint.host, endpoint.port, type=socket.SOCK_STREAM)
                )[0]
            opened = socket.socket(family, socket.SOCK_STREAM)
            try:
                opened.setblocking(False)
                await loop.sock_connect(opened, address)
            except BaseException:
                opened.close()
                raise
        return PeerConnection(opened)

    def keep(self, endpoint: Endpoint, connection: PeerConnection) -> None:
        """Take back a connection whose answer was taken to the end."""
        full = len(self._idle.get(endpoint, ())) >= IDLE_PER_PEER_MAX or self.idle_count >= IDLE_TOTAL_MAX
        if full or not connection.is_quiet:
            connection.close()
            return
        loop = asyncio.get_running_loop()
        connection.idle_since = loop.time()
        self._idle[endpoint].append(connection)
        if self._sweep is None:
            self._sweep = loop.call_later(IDLE_SECONDS_MAX, self._close_old)

    def forget(self, endpoint: Endpoint) -> None:
        """Close what is kept to an endpoint: one of its kind did not answer."""
        for connection in self._idle.pop(endpoint, []):
            connection.close()

    def close(self) -> None:
        """Close what is kept."""
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


def _is_ip(host: str) -> bool:
    for family in (socket.AF_INET, socket.AF_INET6):
        try:
            socket.inet_pton(family, host)
        except OSError:
            continue
        return True
    return False
