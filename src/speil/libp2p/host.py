"""The libp2p host: one identity, one listener, connections to peers, handlers by protocol.

    async with Host(identity, ListenAddress("", 5001), …) as host:
        host.set_handler("/app/1.0.0", handler)
        stream = await host.open_stream(peer, "/app/1.0.0")

The host puts its parts together: `dialer`, `listener` (with `inbound_admission`), `upgrader`, `identify_exchange`,
`connection_table` and `stream_server`. Each part owns its tasks, and they end with the host.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from contextlib import AsyncExitStack
from types import TracebackType

from speil.libp2p import identify, ping
from speil.libp2p.connection import Connection
from speil.libp2p.connection_table import ConnectionTable, PeerEvent
from speil.libp2p.dial_rules import DialRules
from speil.libp2p.dialer import Dialer, Target
from speil.libp2p.error import PeerUnreachableError
from speil.libp2p.identify_exchange import IdentifyExchange
from speil.libp2p.identity import Identity
from speil.libp2p.interfaces import announced_addresses
from speil.libp2p.listener import Listener
from speil.libp2p.neighbourhood import Neighbourhood
from speil.libp2p.series import Libp2pSeries
from speil.libp2p.stream import Stream, StreamHandler
from speil.libp2p.stream_server import StreamServer
from speil.libp2p.transport import ConnectionGate, OpenGate, TcpTransport, Transport
from speil.libp2p.upgrader import Upgrader
from speil.multiformats.multiaddr import Multiaddr
from speil.multiformats.network import Network
from speil.multiformats.peer_id import PeerId
from speil.multiformats.peer_info import PeerInfo
from speil.observe.metrics import Metrics
from speil.setting import ListenAddress

DIAL_SECONDS_MAX = 5.0  # for each address; inside one region a dial takes milliseconds


class Host:
    """An async context manager. All other coroutines are for the time in which it is entered."""

    def __init__(
        self,
        identity: Identity,
        listen: ListenAddress,
        *,
        agent_version: str,
        metrics: Metrics,
        transport: Transport | None = None,
        gate: ConnectionGate | None = None,
        announce: tuple[Multiaddr, ...] = (),
        extra_protocols: tuple[str, ...] = (),
        psks: Callable[[], tuple[bytes, ...]] = tuple,
        dial_ports: Iterable[int] = (),
        never_dialled: frozenset[tuple[str, int]] = frozenset(),
        networks: Iterable[Network] = (),
    ) -> None:
        """Nothing is opened yet.

        announce: the addresses to advertise; empty for those that are bound.
        extra_protocols: extra protocol ids to advertise, beside those that have handlers.
        psks: gives the pre-shared keys in force; empty for none.
        dial_ports, never_dialled: which addresses named by peers are dialled (`DialRules`); (host, port) pairs.
        networks: in these, as in this node's own subnet, each address counts as one node.
        """
        self._identity, self._listen, self._announce = identity, listen, announce
        self._extra_protocols = extra_protocols
        self._addresses = announce
        gate, transport, series = gate or OpenGate(), transport or TcpTransport(), metrics.of(Libp2pSeries)
        self._neighbourhood = Neighbourhood(networks)
        self.dial_rules = DialRules(gate, series, self._neighbourhood, self._now, ports=dial_ports, never=never_dialled)
        self._table = ConnectionTable(self._neighbourhood, series)
        self._streams = StreamServer(series, self._now)
        self._exchange = IdentifyExchange(
            identity,
            agent_version,
            gate,
            self.dial_rules,
            series,
            protocols=lambda: (*self._streams.protocols, *self._extra_protocols),
            addresses=lambda: self._addresses,
        )
        self._upgrade = Upgrader(
            identity,
            psks,
            gate,
            self._neighbourhood,
            self._exchange,
            self._table,
            self._streams.serve,
            series,
            self._now,
        )
        self._dialer = Dialer(transport, self.dial_rules, self._upgrade)
        self._listener = Listener(transport, gate, self._neighbourhood, self._upgrade, series, self._now)
        self._streams.set_handler(identify.PROTOCOL, self._exchange.answer)
        self._streams.set_handler(identify.PUSH_PROTOCOL, self._read_push)
        self._streams.set_handler(ping.PROTOCOL, ping.handler(lambda peer: self._streams.serving.wait_turn(peer)))
        self._parts: AsyncExitStack

    async def __aenter__(self) -> Host:
        """Listen and serve. Raises OSError where the address can't be bound."""
        async with AsyncExitStack() as parts:
            for part in (self._table, self._streams, self._listener, self._dialer):
                await parts.enter_async_context(part)
            bound = await self._listener.listen(self._listen)
            self._parts = parts.pop_all()
        self._addresses = self._announce or announced_addresses(self._listen, bound)
        for address in (*bound, *self._addresses):
            if tcp := address.tcp:
                self.dial_rules.add_port(tcp[1])
        self._neighbourhood.set_own(self.local.hosts)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._table.close()  # first, so that peers get a go-away
        await self._parts.__aexit__(kind, error, trace)

    @property
    def local(self) -> PeerInfo:
        """This node, with the addresses that it advertises."""
        return PeerInfo(self._identity.peer_id, self._addresses)

    @property
    def neighbourhood(self) -> Neighbourhood:
        """Which addresses are near this node, and whose share an address counts against."""
        return self._neighbourhood

    @property
    def connections(self) -> list[Connection]:
        """All identified connections."""
        return self._table.all

    def host_of(self, peer_id: PeerId) -> str:
        """The IP address that a peer's newest connection comes from; "" where the peer is not connected."""
        connection = self._table.find(peer_id)
        return connection.peer.host if connection else ""

    @property
    def inbound_count(self) -> int:
        """Open inbound connections, also those in the handshake."""
        return self._listener.count

    @property
    def shaking_count(self) -> int:
        """Inbound connections in the handshake."""
        return self._listener.shaking_count

    @property
    def held_bytes(self) -> int:
        """Bytes that peers sent and nobody has read yet, above what each connection has free."""
        return self._upgrade.held_bytes

    def set_handler(self, protocol: str, handler: StreamHandler) -> None:
        """Serve streams of `protocol`, and advertise it to peers that identify this node from now on."""
        self._streams.set_handler(protocol, handler)

    def subscribe(self, listener: Callable[[PeerEvent], None]) -> None:
        """Call `listener` for each event, in the event loop: it must not block or raise."""
        self._table.subscribe(listener)

    async def connect(
        self, target: Multiaddr | PeerInfo, *, timeout_seconds: float = DIAL_SECONDS_MAX, named: bool | None = None
    ) -> Connection:
        """An identified connection to a peer: the existing one, or a new one. The host owns it.

        An address without `/p2p` connects to any peer that answers. `named` says that the operator or the bootstrap
        named the address (the default for a bare address): it is dialled as it is. Addresses named by peers have to
        pass `DialRules`.

        Time limit: `timeout_seconds` for each address, of up to DIAL_ADDRESSES_MAX addresses of a peer one after the
        other, with the handshake and identify. Callers that want the same peer share a dial and the time limit of the
        first; each may be cancelled.

        Raises PeerUnreachableError, RefusedError, OwnLimitError, ConnectionClosedError where the host closes, and
        PeerMisbehavedError, also for a peer id that does not match.
        """
        if isinstance(target, PeerInfo):
            wanted = Target(target.peer_id, target.addresses, bool(named))
        else:
            wanted = Target(target.peer_id, (target.without_peer_id,), named is not False)
        table = self._table
        found = table.find(wanted.peer_id) if wanted.peer_id else table.find_dialled(wanted.addresses[0])
        if found:
            return found
        if wanted.peer_id == self._identity.peer_id:
            raise PeerUnreachableError("that is this node itself")
        return await self._dialer.dial(wanted, timeout_seconds)

    async def open_stream(self, peer: PeerInfo, protocol: str) -> Stream:
        """A new stream to a peer, on a new connection where there is none. The caller ends the stream.

        Raises what `connect` and `Connection.open_stream` raise.
        """
        connection = await self.connect(peer)
        connection.used_at = self._now()
        return await connection.open_stream(protocol)

    async def _read_push(self, stream: Stream) -> None:
        await self._exchange.read_push(stream)
        self._table.identified_again(stream.peer)

    def _now(self) -> float:
        return asyncio.get_running_loop().time()
