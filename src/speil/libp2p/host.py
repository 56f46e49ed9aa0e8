"""The libp2p host: one identity, one listener, one connection a peer, handlers by protocol.

    async with Host(identity, ListenAddress("", 5001), …) as host:
        host.set_handler("/app/1.0.0", handler)
        stream = await host.open_stream(peer, "/app/1.0.0")

Everything that runs is in the host's task group and ends with it. Who comes in is bounded: in all, per address, and
while shaking hands, so that a thousand strangers cost a bounded amount of memory and a slow one costs ten seconds.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from types import TracebackType

from speil.libp2p import identify, multistream
from speil.libp2p.admission import Admission, Ticket
from speil.libp2p.budget import Account, Budget
from speil.libp2p.connection import FRAMES_BURST, FRAMES_PER_SECOND, Connection
from speil.libp2p.dial_rules import DialRules
from speil.libp2p.dialer import Dialer, Target
from speil.libp2p.error import (
    ConnectionClosedError,
    Libp2pError,
    PeerMisbehavedError,
    PeerUnreachableError,
    RefusedError,
    StreamResetError,
)
from speil.libp2p.identity import Identity
from speil.libp2p.interfaces import announced_addresses
from speil.libp2p.neighbourhood import Neighbourhood, Network
from speil.libp2p.noise import NO_SECRET, WRONG_SECRET
from speil.libp2p.rate import Buckets
from speil.libp2p.serving import SHARES_MAX, Serving
from speil.libp2p.stream import Stream
from speil.libp2p.transport import ConnectionGate, OpenGate, RawConnection, TcpTransport, Transport
from speil.multiformats.multiaddr import Multiaddr
from speil.multiformats.peer_id import PeerId
from speil.multiformats.peer_info import PeerInfo
from speil.observe.line_limit import LineLimit
from speil.observe.logs import get_log
from speil.observe.metrics import Metrics
from speil.setting import ListenAddress

PING_PROTOCOL = "/ipfs/ping/1.0.0"
PING_BYTES = 32
HANDSHAKE_SECONDS_MAX = 10.0  # a slow-loris gets this long
IDENTIFY_SECONDS_MAX = 5.0  # go-libp2p's
DIAL_SECONDS_MAX = 5.0  # inside one region a dial takes milliseconds
NEGOTIATE_SECONDS_MAX = 10.0
CONNECTIONS_HIGH_WATER = 384  # above, the longest idle are closed …
CONNECTIONS_LOW_WATER = 256  # … down to this: k-buckets of a large region hold under 200 peers
SHARE_WHEN_FULL = 8  # connections of one address or prefix; above high water more are closed even when in use

# before a peer is let in it may ask this and nothing else
_ANSWERED_TO_ALL = frozenset((identify.PROTOCOL, identify.PUSH_PROTOCOL, PING_PROTOCOL))

log = get_log("libp2p")
StreamHandler = Callable[[Stream], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Identified:
    """A peer said what it speaks and where it listens: on a connection that `is_new`, or anew on one that was there."""

    peer: PeerInfo
    protocols: frozenset[str]
    is_new: bool = True


@dataclass(frozen=True, slots=True)
class Disconnected:
    """The last connection to a peer has ended; `polite` when one side had said goodbye, as trimming does."""

    peer_id: PeerId
    polite: bool


PeerEvent = Identified | Disconnected


class Host:
    """See the module."""

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
        told: tuple[str, ...] = (),
        psks: Callable[[], tuple[bytes, ...]] = tuple,
        dial_ports: Iterable[int] = (),
        never_dialled: frozenset[tuple[str, int]] = frozenset(),
        networks: Iterable[Network] = (),
    ) -> None:
        """`told` is told beside the protocols that have handlers; `psks` gives the pre-shared keys in force.

        `dial_ports` and `never_dialled` (host, port) are what DialRules says about addresses that peers told. In
        `networks`, as in this node's own subnet, each address is one node's.
        """
        self._identity, self._listen, self._agent_version = identity, listen, agent_version
        self._metrics, self._transport = metrics, transport or TcpTransport()
        self._gate: ConnectionGate = gate or OpenGate()
        self._announce, self._addresses = announce, announce
        self._told, self._psks = told, psks
        self._handlers: dict[str, StreamHandler] = {
            identify.PROTOCOL: self._answer_identify,
            identify.PUSH_PROTOCOL: self._learn_from_push,
            PING_PROTOCOL: self._answer_ping,
        }
        self._listeners: list[Callable[[PeerEvent], None]] = []
        self._connections: dict[PeerId, list[Connection]] = {}
        self._neighbourhood = Neighbourhood(networks)
        self._admission = Admission(self._neighbourhood)
        self._budget = Budget()
        self.dial_rules = DialRules(
            self._gate, metrics, self._neighbourhood, self._now, ports=dial_ports, never=never_dialled
        )
        self._lines = LineLimit()
        self._serving = Serving(self._now)
        self._frames = Buckets(FRAMES_BURST, FRAMES_PER_SECOND, SHARES_MAX)
        self._dialer = Dialer(self._transport, self.dial_rules, self._upgrade)
        self._sequence = 0
        self._closing = False
        self._tasks: asyncio.TaskGroup

    async def __aenter__(self) -> Host:
        self._tasks = await asyncio.TaskGroup().__aenter__()
        try:
            bound = await self._transport.listen(self._listen, self._accept)
        except BaseException:
            await self._tasks.__aexit__(None, None, None)  # it has no children yet
            raise
        self._addresses = self._announce or announced_addresses(self._listen, bound)
        for address in (*bound, *self._addresses):
            if tcp := address.tcp:
                self.dial_rules.add_port(tcp[1])
        self._neighbourhood.set_own(self.local.hosts)
        self._dialer.run_in(self._tasks)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._closing = True
        self._dialer.run_in(None)
        await self._transport.close()
        for connection in self.connections:
            connection.close()
        stop = _StopError()
        try:
            await self._tasks.__aexit__(_StopError, stop, None)
        except* _StopError:
            pass

    @property
    def local(self) -> PeerInfo:
        """This node and the addresses it tells others."""
        return PeerInfo(self._identity.peer_id, self._addresses)

    @property
    def neighbourhood(self) -> Neighbourhood:
        """Who is near this node, and whose share others count against."""
        return self._neighbourhood

    @property
    def connections(self) -> list[Connection]:
        """All identified connections."""
        return [connection for group in self._connections.values() for connection in group]

    def host_of(self, peer_id: PeerId) -> str:
        """The address at the other end of a peer's newest connection, "" where there is none."""
        connection = self._connected(peer_id)
        return connection.remote_address.components[0][1] if connection else ""

    @property
    def inbound_count(self) -> int:
        """Connections that came in and are open, those that still shake hands among them."""
        return self._admission.count

    @property
    def shaking_count(self) -> int:
        """Of these, those that still shake hands."""
        return self._admission.shaking_count

    @property
    def held_bytes(self) -> int:
        """Bytes that peers sent and that nobody has taken yet, as far as they count."""
        return self._budget.held

    async def wait_turn(self, connection: Connection) -> None:
        """See Serving; for handlers that answer many questions on a stream."""
        await self._serving.wait_turn(connection)

    def set_handler(self, protocol: str, handler: StreamHandler) -> None:
        """Answer streams of `protocol`; its name is told to peers that identify us from now on."""
        self._handlers[protocol] = handler

    def subscribe(self, listener: Callable[[PeerEvent], None]) -> None:
        """Hear of peers; called in the loop, must not block."""
        self._listeners.append(listener)

    async def connect(
        self, target: Multiaddr | PeerInfo, *, timeout_seconds: float = DIAL_SECONDS_MAX, named: bool | None = None
    ) -> Connection:
        """A connection to a peer, the one that is there or a new one; it is identified.

        An address without `/p2p` connects to whoever answers. What is `named` by the operator or the bootstrap (so is a
        bare address, unless said otherwise) is dialled as it stands, what peers told within `DialRules`. Callers that
        want the same peer share a dial; each may be cancelled. Raises PeerUnreachableError, RefusedError and other
        Libp2pErrors; for a peer id that does not match PeerMisbehavedError.
        """
        if isinstance(target, PeerInfo):
            wanted = Target(target.peer_id, target.addresses, bool(named))
        else:
            wanted = Target(target.peer_id, (target.without_peer_id,), named is not False)
        if connection := self._connected(wanted.peer_id) if wanted.peer_id else self._dialled(wanted.addresses[0]):
            return connection
        if wanted.peer_id == self._identity.peer_id:
            raise PeerUnreachableError("that is this node itself")
        return await self._dialer.dial(wanted, timeout_seconds)

    async def open_stream(self, peer: PeerInfo, protocol: str) -> Stream:
        """A stream to a peer, over a new connection where there is none.

        Raises PeerUnreachableError, ProtocolNotSupportedError and other Libp2pErrors.
        """
        connection = await self.connect(peer)
        connection.used_at = self._now()
        return await connection.open_stream(protocol)

    async def push_identify(self) -> None:
        """Tell all connected peers what we speak now."""
        async with asyncio.TaskGroup() as group:
            for connection in self.connections:
                if identify.PUSH_PROTOCOL in connection.protocols:
                    group.create_task(self._push_to(connection))

    async def _push_to(self, connection: Connection) -> None:
        try:
            async with asyncio.timeout(IDENTIFY_SECONDS_MAX):
                async with await connection.open_stream(identify.PUSH_PROTOCOL) as stream:
                    await stream.write_message(self._identification(connection))
                    stream.close_write()
                    await stream.read()  # its end: it was heard
        except (Libp2pError, TimeoutError) as error:
            log.debug("a peer was not told of a change", peer=connection.peer_id, error=error)

    # --- connections ------------------------------------------------------------------------------------

    def _accept(self, raw: RawConnection) -> None:
        source = raw.remote.components[0][1]
        if self._closing:
            raw.abort()
        elif layer := self._gate.intercept_accept(raw.remote) or self._admission.refusal(source, self._now()):
            self._refuse(layer)
            raw.abort()
        else:
            ticket, slowest = self._admission.came(source, self._now(), raw.abort)
            if slowest:
                self._refuse("slow_handshake")
                slowest.close()
            self._tasks.create_task(self._serve_inbound(raw, ticket))

    async def _serve_inbound(self, raw: RawConnection, ticket: Ticket) -> None:
        try:
            try:
                async with asyncio.timeout(HANDSHAKE_SECONDS_MAX):
                    connection = await self._upgrade(raw, None)
            finally:
                self._admission.shook_hands(ticket)
            await connection.wait_closed()
        except TimeoutError:
            self._metrics.rejected_connections.labels("slow_handshake").inc()
        except Libp2pError as error:
            log.debug("an incoming connection failed", remote=raw.remote, error=error)
        except Exception as error:
            if self._lines.due(ticket.share) is not None:
                log.exception("an incoming connection failed for a bug of ours", error)
        finally:
            self._admission.left(ticket)
            raw.abort()

    async def _upgrade(
        self, raw: RawConnection, expected: PeerId | None, *, dialled: Multiaddr | None = None
    ) -> Connection:
        """Secure and identify; the connection is then known and kept alive. Raises Libp2pError.

        `dialled` is the address that was dialled, None for a connection that came in.
        """
        inbound, host = dialled is None, raw.remote.components[0][1]
        share = self._neighbourhood.share_of(host)
        connection = Connection(
            raw,
            inbound=inbound,
            on_stream=self._on_stream,
            now=self._now,
            account=Account(self._budget, share),
            frames=self._frames.of(share, self._now()),
            dialled=dialled,
            count=lambda reason: self._metrics.rejected_connections.labels(reason).inc(),
        )
        connection.share, psks = share, self._psks()
        try:
            await connection.secure(self._identity, psks)
            if psks:
                self._neighbourhood.add_member(host)
            if expected and connection.peer_id != expected:
                raise PeerMisbehavedError("wrong_peer_id", f"{raw.remote} is {connection.peer_id}, not {expected}")
            if connection.peer_id == self._identity.peer_id:
                raise PeerUnreachableError("that is this node itself")
            if layer := self._gate.intercept_secured(connection.peer_id, inbound=inbound):
                raise self._refuse(layer)
            connection.start()
            async with asyncio.timeout(IDENTIFY_SECONDS_MAX):
                await self._identify(connection)
            if self._closing:
                raise ConnectionClosedError("the host is closing")
        except PeerMisbehavedError as error:
            self._metrics.rejected_connections.labels(error.reason).inc()
            if error.reason in (NO_SECRET, WRONG_SECRET):
                self._gate.handshake_failed(raw.remote, error.reason)
            connection.abort()
            raise
        except TimeoutError as error:
            connection.abort()
            raise PeerUnreachableError("identify was not answered") from error
        except BaseException:
            connection.abort()
            if failure := connection.failure:
                self._metrics.rejected_connections.labels(failure.reason).inc()
            raise
        self._connections.setdefault(connection.peer_id, []).append(connection)
        self._metrics.peers.set(len(self._connections))
        self._tasks.create_task(self._keep(connection))
        self._emit(Identified(connection.info, connection.protocols))
        connection.admit()
        self._trim()
        return connection

    async def _keep(self, connection: Connection) -> None:
        try:
            await connection.run()
        finally:
            group = self._connections[connection.peer_id]
            group.remove(connection)
            if connection.failure:
                self._metrics.rejected_connections.labels(connection.failure.reason).inc()
                log.debug("a peer broke the protocol", peer=connection.peer_id, error=connection.failure)
            if not group:
                del self._connections[connection.peer_id]
                self._emit(Disconnected(connection.peer_id, connection.polite))
            self._metrics.peers.set(len(self._connections))

    def _connected(self, peer_id: PeerId) -> Connection | None:
        # the newest: a peer that comes again has lost the older one, and we may not have noticed yet
        group = [connection for connection in self._connections.get(peer_id, ()) if not connection.closed]
        return group[-1] if group else None

    def _dialled(self, address: Multiaddr) -> Connection | None:
        """The connection that came of a dial of `address`: what peers say about their addresses proves nothing."""
        found = (one for one in self.connections if one.dialled == address and not one.closed)
        return next(found, None)

    def _trim(self) -> None:
        everyone = self.connections
        if len(everyone) <= CONNECTIONS_HIGH_WATER:
            return
        everyone.sort(key=lambda one: one.used_at, reverse=True)
        of_share = Counter[str]()
        surplus, idle = list[Connection](), list[Connection]()
        for connection in everyone:
            of_share[connection.share] += 1
            if of_share[connection.share] > SHARE_WHEN_FULL and not self._neighbourhood.is_near(
                connection.remote_address.components[0][1]
            ):
                surplus.append(connection)
            elif not connection.stream_count:
                idle.append(connection)
        # what one prefix has too much of goes first, then whoever was asked nothing for the longest time
        for connection in [*reversed(surplus), *reversed(idle)][: len(everyone) - CONNECTIONS_LOW_WATER]:
            connection.close()

    def _refuse(self, layer: str) -> RefusedError:
        self._metrics.rejected_connections.labels(layer).inc()
        return RefusedError(layer)

    # --- streams ----------------------------------------------------------------------------------------

    def _on_stream(self, stream: Stream) -> None:
        if self._closing or not self._serving.begin(stream.connection):
            self._metrics.rejected_connections.labels("too_many_streams").inc()
            stream.reset()
        else:
            self._tasks.create_task(self._serve_stream(stream))

    async def _serve_stream(self, stream: Stream) -> None:
        try:
            async with asyncio.timeout(NEGOTIATE_SECONDS_MAX):
                await self.wait_turn(stream.connection)
                stream.protocol = await multistream.accept(stream, self._handlers)
                if stream.protocol not in _ANSWERED_TO_ALL:
                    await stream.connection.wait_admitted(stream)
            await self._handlers[stream.protocol](stream)
            stream.drop(StreamResetError("its handler has ended"))
        except PeerMisbehavedError as error:
            self._metrics.rejected_connections.labels(error.reason).inc()
            stream.reset()
        except (TimeoutError, Libp2pError):
            stream.reset()
        except Exception as error:
            if self._lines.due(stream.connection.share) is not None:
                log.exception("a stream handler failed", error, protocol=stream.protocol)
            stream.reset()
        finally:
            self._serving.end(stream.connection)

    # --- identify and ping ------------------------------------------------------------------------------

    async def _identify(self, connection: Connection) -> None:
        async with await connection.open_stream(identify.PROTOCOL) as stream:
            self._learn(connection, await identify.read(stream))

    def _learn(self, connection: Connection, said: identify.Identification) -> None:
        if layer := self._gate.intercept_identified(connection.peer_id, said.protocols, said.agent_version):
            connection.abort()
            raise self._refuse(layer)
        connection.protocols, connection.agent_version = said.protocols, said.agent_version
        connection.info = PeerInfo(connection.peer_id, self.dial_rules.usable(said.addresses))

    async def _answer_identify(self, stream: Stream) -> None:
        await stream.write_message(self._identification(stream.connection))
        stream.close_write()

    async def _answer_ping(self, stream: Stream) -> None:
        while data := await stream.read(PING_BYTES):
            await self.wait_turn(stream.connection)
            await stream.write(data)
        stream.close_write()

    async def _learn_from_push(self, stream: Stream) -> None:
        self._learn(stream.connection, await identify.read(stream))
        stream.close_write()
        if self._connected(stream.peer_id):
            self._emit(Identified(stream.connection.info, stream.connection.protocols, is_new=False))

    def _identification(self, connection: Connection) -> bytes:
        self._sequence += 1
        return identify.answer(
            self._identity,
            [*self._handlers, *self._told],
            self._addresses,
            connection.remote_address,
            self._agent_version,
            self._sequence,
        )

    def _emit(self, event: PeerEvent) -> None:
        for listener in self._listeners:
            listener(event)

    def _now(self) -> float:
        return asyncio.get_running_loop().time()


class _StopError(Exception):
    """Ends the host's task group."""
