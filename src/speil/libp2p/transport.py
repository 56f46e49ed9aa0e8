"""Raw byte connections: the port below the protocols, its TCP adapter, and the port of the connection gate.

A region's border is enforced here: the transport and the gate see every dial and every inbound connection, whatever
protocol they are for. The gate has the methods of go-libp2p's ConnectionGater.
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
UNDRAINED_BYTES_MAX = 256 * 1024  # of answers that are sent without waiting for the peer to read
WRITE_BUFFER_BYTES_MAX = 64 * 1024  # per connection; a writer waits above it
READ_BYTES_MAX = 64 * 1024  # in one read: limits the memory and time that one peer takes in a turn


class RawConnection(Protocol):
    """An open byte connection."""

    remote: Multiaddr

    def attach(self, on_data: Callable[[bytes], None], on_closed: Callable[[], None]) -> None:
        """Pass received bytes to `on_data`, first those received already. `on_closed` is called once, at the end."""

    def write(self, data: bytes) -> None:
        """Queue bytes; call `drain` before queueing many more."""

    async def drain(self) -> None:
        """Wait until the queue is below its limit. Raises ConnectionClosedError."""

    def pause(self, paused: bool) -> None:
        """Stop or continue reading from the network."""

    def close(self) -> None:
        """Send the queued bytes, then close."""

    def abort(self) -> None:
        """Close now, without sending queued bytes."""


class Transport(Protocol):
    """Makes raw connections."""

    async def dial(self, address: Multiaddr) -> RawConnection:
        """A connection to `address`. No time limit of its own. Raises PeerUnreachableError."""

    async def listen(self, address: ListenAddress, on_connection: Callable[[RawConnection], None]) -> list[Multiaddr]:
        """Listen until `close`; the addresses bound to. Raises OSError."""

    async def close(self) -> None:
        """Stop listening."""


class ConnectionGate(Protocol):
    """Decides which peers are connected. Methods return the name of the rule that refuses (a metric label), or None."""

    def intercept_dial(self, address: Multiaddr) -> str | None:
        """Called before a dial."""

    def intercept_accept(self, remote: Multiaddr) -> str | None:
        """Called for an inbound connection."""

    def intercept_secured(self, peer_id: PeerId, *, inbound: bool) -> str | None:
        """Called when Noise has proved the peer id."""

    def intercept_identified(self, peer_id: PeerId, protocols: frozenset[str], agent_version: str) -> str | None:
        """Called when identify has been read, also for a push."""

    def handshake_failed(self, remote: Multiaddr, reason: str) -> None:
        """Called when a peer could not prove that it has the pre-shared key. It is disconnected already."""


class OpenGate:
    """Refuses nobody: a mesh without regions."""

    def intercept_dial(self, address: Multiaddr) -> str | None:
        """See ConnectionGate."""
        return None

    def intercept_accept(self, remote: Multiaddr) -> str | None:
        """See ConnectionGate."""
        return None

    def intercept_secured(self, peer_id: PeerId, *, inbound: bool) -> str | None:
        """See ConnectionGate."""
        return None

    def intercept_identified(self, peer_id: PeerId, protocols: frozenset[str], agent_version: str) -> str | None:
        """See ConnectionGate."""
        return None

    def handshake_failed(self, remote: Multiaddr, reason: str) -> None:
        """See ConnectionGate."""


class TcpConnection(asyncio.Protocol):
    """A TCP connection. Bytes that arrive before `attach` are kept."""

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
            self._transport.abort()  # the peer sends pings or opens streams and never reads the answers

    async def drain(self) -> None:
        """See RawConnection."""
        while self._drained and not self._closed:  # another writer may have filled the queue again
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
        """See Transport. An empty host binds both families, as in Go. After an error `close` ends what is open."""
        bound: list[Multiaddr] = []
        for host in [address.host] if address.host else ["0.0.0.0", "::"]:
            try:
                server = await asyncio.get_running_loop().create_server(
                    lambda: TcpConnection(on_connection),
                    host,
                    address.port,
                    backlog=LISTEN_BACKLOG,
                    start_serving=False,  # or a cancellation could lose the server while its socket is open
                )
            except OSError:
                if host == "::" and bound:
                    continue  # this machine has no IPv6
                raise
            self._servers.append(server)
            await server.start_serving()
            bound += [Multiaddr.of_tcp(*entry.getsockname()[:2]) for entry in server.sockets]
        return bound

    async def close(self) -> None:
        """See Transport."""
        for server in self._servers:
            server.close()
        self._servers.clear()
