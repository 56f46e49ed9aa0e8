"""Raw byte connections: the port below the protocols, TCP as the adapter, and the gate that stands at each door.

A region's border is drawn here: whoever wraps the transport or the gate sees every dial and every accept, whichever
protocol asks for it. The gate's four questions are go-libp2p's ConnectionGater's.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from typing import Protocol

from speil.libp2p.error import ConnectionClosedError, PeerUnreachableError
from speil.multiformats.multiaddr import Multiaddr
from speil.multiformats.peer_id import PeerId
from speil.setting import ListenAddress

LISTEN_BACKLOG = 256
UNDRAINED_BYTES_MAX = 256 * 1024  # answers that nobody waits for may pile up to this
WRITE_BUFFER_BYTES_MAX = 64 * 1024  # per connection; a writer waits above it
READ_BYTES_MAX = 64 * 1024  # at once: what a turn of one peer may hold and cost


class RawConnection(Protocol):
    """An open byte connection."""

    remote: Multiaddr

    def attach(self, on_data: Callable[[bytes], None], on_closed: Callable[[], None]) -> None:
        """Hand over the bytes, those that have come already first."""

    def write(self, data: bytes) -> None:
        """Queue bytes; call `drain` before queueing many more."""

    async def drain(self) -> None:
        """Until the queue is below its bound. Raises ConnectionClosedError."""

    def pause(self, paused: bool) -> None:
        """Stop or go on taking bytes off the network."""

    def close(self) -> None:
        """Send what is queued, then close."""

    def abort(self) -> None:
        """Close now."""


class Transport(Protocol):
    """Makes raw connections."""

    async def dial(self, address: Multiaddr) -> RawConnection:
        """Raises PeerUnreachableError."""

    async def listen(self, address: ListenAddress, on_connection: Callable[[RawConnection], None]) -> list[Multiaddr]:
        """Listen until `close`; the addresses bound to. Raises OSError."""

    async def close(self) -> None:
        """Stop listening."""


class ConnectionGate(Protocol):
    """Says who may pass; a text is the name of the rule that refuses (a metric label), None lets through."""

    def intercept_dial(self, address: Multiaddr) -> str | None:
        """Before a connection goes out."""

    def intercept_accept(self, remote: Multiaddr) -> str | None:
        """When one comes in."""

    def intercept_secured(self, peer_id: PeerId, *, inbound: bool) -> str | None:
        """When Noise has proved who it is."""

    def intercept_identified(self, peer_id: PeerId, protocols: frozenset[str], agent_version: str) -> str | None:
        """When identify has told what it speaks."""

    def handshake_failed(self, remote: Multiaddr, reason: str) -> None:
        """When a peer could not prove that it holds the pre-shared key; it is out already."""


class OpenGate:
    """Lets everybody through: a mesh without borders."""

    def intercept_dial(self, address: Multiaddr) -> str | None:
        """Yes."""
        return None

    def intercept_accept(self, remote: Multiaddr) -> str | None:
        """Yes."""
        return None

    def intercept_secured(self, peer_id: PeerId, *, inbound: bool) -> str | None:
        """Yes."""
        return None

    def intercept_identified(self, peer_id: PeerId, protocols: frozenset[str], agent_version: str) -> str | None:
        """Yes."""
        return None

    def handshake_failed(self, remote: Multiaddr, reason: str) -> None:
        """Nothing to note."""


class TcpConnection(asyncio.Protocol):
    """A TCP connection; bytes that come before `attach` wait, bounded by the kernel's buffer and ours."""

    def __init__(self, on_made: Callable[[TcpConnection], None] | None = None) -> None:
        self.remote = Multiaddr((("ip4", "0.0.0.0"),))
        self._on_made = on_made
        self._early = bytearray()
        self._on_data: Callable[[bytes], None] | None = None
        self._on_closed: Callable[[], None] | None = None
        self._closed = False
        self._drained: asyncio.Future[None] | None = None
        self._transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """asyncio calls this once."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        if hasattr(transport, "max_size"):  # asyncio's own transports have it, at 256 KiB
            transport.max_size = READ_BYTES_MAX
        transport.set_write_buffer_limits(high=WRITE_BUFFER_BYTES_MAX)
        transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        host, port = transport.get_extra_info("peername")[:2]
        self.remote = Multiaddr.of_tcp(host.partition("%")[0].removeprefix("::ffff:"), port)
        if self._on_made:
            self._on_made(self)

    def data_received(self, data: bytes) -> None:
        """asyncio calls this."""
        if self._on_data:
            self._on_data(data)
        else:
            self._early += data

    def connection_lost(self, exc: Exception | None) -> None:
        """asyncio calls this once."""
        self._closed = True
        if self._drained and not self._drained.done():
            self._drained.set_result(None)
        if self._on_closed:
            self._on_closed()

    def pause_writing(self) -> None:
        """asyncio calls this above the write bound."""
        self._drained = asyncio.get_running_loop().create_future()

    def resume_writing(self) -> None:
        """asyncio calls this below it."""
        if self._drained and not self._drained.done():
            self._drained.set_result(None)
        self._drained = None

    def attach(self, on_data: Callable[[bytes], None], on_closed: Callable[[], None]) -> None:
        """See RawConnection."""
        self._on_data, self._on_closed = on_data, on_closed
        if self._early:
            early, self._early = bytes(self._early), bytearray()
            on_data(early)
        if self._closed:
            on_closed()

    def write(self, data: bytes) -> None:
        """See RawConnection."""
        if self._transport.is_closing():
            return
        self._transport.write(data)
        if self._transport.get_write_buffer_size() > UNDRAINED_BYTES_MAX:
            self._transport.abort()  # it asks (pings, opens, …) and never reads the answers

    async def drain(self) -> None:
        """See RawConnection."""
        while self._drained and not self._closed:  # another writer may have filled it again
            await asyncio.shield(self._drained)
        if self._closed:
            raise ConnectionClosedError("the connection is closed")

    def pause(self, paused: bool) -> None:
        """See RawConnection."""
        if self._transport.is_closing():
            return
        if paused:
            self._transport.pause_reading()
        else:
            self._transport.resume_reading()

    def close(self) -> None:
        """See RawConnection."""
        self._transport.close()

    def abort(self) -> None:
        """See RawConnection."""
        self._transport.abort()


class TcpTransport:
    """TCP over IPv4 and IPv6."""

    def __init__(self) -> None:
        self._servers: list[asyncio.Server] = []

    async def dial(self, address: Multiaddr) -> RawConnection:
        """See Transport."""
        if (tcp := address.tcp) is None:
            raise PeerUnreachableError(f"{address} is not a TCP address")
        try:
            loop = asyncio.get_running_loop()
            _, connection = await loop.create_connection(TcpConnection, *tcp)
        except OSError as error:
            raise PeerUnreachableError(f"{address}: {error.strerror or error}") from error
        return connection

    async def listen(self, address: ListenAddress, on_connection: Callable[[RawConnection], None]) -> list[Multiaddr]:
        """See Transport. An empty host binds both families, as Go does."""
        bound: list[Multiaddr] = []
        for host in [address.host] if address.host else ["0.0.0.0", "::"]:
            try:
                server = await asyncio.get_running_loop().create_server(
                    lambda: TcpConnection(on_connection), host, address.port, backlog=LISTEN_BACKLOG
                )
            except OSError:
                if host == "::" and bound:
                    continue  # a machine without IPv6
                raise
            self._servers.append(server)
            bound += [Multiaddr.of_tcp(*entry.getsockname()[:2]) for entry in server.sockets]
        return bound

    async def close(self) -> None:
        """See Transport."""
        for server in self._servers:
            server.close()
        self._servers.clear()
