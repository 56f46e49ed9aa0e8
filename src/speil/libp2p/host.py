"""The libp2p host: one identity, one listener, one connection a peer, handlers by protocol.

    async with Host(identity, ListenAddress("", 5001), …) as host:
        host.set_handler("/app/1.0.0", handler)
        stream = await host.open_stream(peer, "/app/1.0.0")

Everything that runs is in the host's task group and ends with it. Who comes in is bounded: in all, per address, and
while shaking hands, so that a thousand strangers cost a bounded amount of memory and a slow one costs ten seconds.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from types import TracebackType

from speil.libp2p import identify, multistream
from speil.libp2p.admission import Admission
from speil.libp2p.connection import Connection
from speil.libp2p.error import (
    ConnectionClosedError,
    Libp2pError,
    PeerMisbehavedError,
    PeerUnreachableError,
    RefusedError,
)
from speil.libp2p.identity import Identity
from speil.libp2p.interfaces import announced_addresses
from speil.libp2p.noise import NO_SECRET, WRONG_SECRET
from speil.libp2p.stream import Stream
from speil.libp2p.transport import ConnectionGate, OpenGate, RawConnection, TcpTransport, Transport
from speil.multiformats.multiaddr import Multiaddr
from speil.multiformats.peer_id import PeerId
from speil.multiformats.peer_info import PeerInfo
from speil.observe.logs import get_log
from speil.observe.metrics import Metrics
from speil.setting import ListenAddress

PING_PROTOCOL = "/ipfs/ping/1.0.0"
PING_BYTES = 32
HANDSHAKE_SECONDS_MAX = 10.0  # a slow-loris gets this long
IDENTIFY_SECONDS_MAX = 5.0  # go-libp2p's
DIAL_SECONDS_MAX = 5.0  # inside one region a dial takes milliseconds
DIAL_ADDRESSES_MAX = 4  # of one peer; each further one only delays the verdict
NEGOTIATE_SECONDS_MAX = 10.0
CONNECTIONS_HIGH_WATER = 384  # above, the longest idle are closed …
CONNECTIONS_LOW_WATER = 256  # … down to this: k-buckets of a large region hold under 200 peers

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
    ) -> None:
        """`told` is told beside the protocols that have handlers; `psks` gives the pre-shared keys in force."""
        self._identity, self._listen, self._agent_version = identity, listen, agent_version
        self._metrics, self._transport = metrics, transport or TcpTransport()
        self._gate: ConnectionGate = gate or OpenGate()
        self._announce, self._addresses = announce, announce
        self._told, self._psks = told, psks
        self._handlers: dict[str, StreamHandler] = {
            identify.PROTOCOL: self._answer_identify,
            identify.PUSH_PROTOCOL: self._learn_from_push,
            PING_PROTOCOL: _answer_ping,
        }
        self._listeners: list[Callable[[PeerEvent], None]] = []
        self._connections: dict[PeerId, list[Connection]] = {}
        self._dials: dict[PeerId, asyncio.Future[Connection]] = {}
        self._admission = Admission()
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
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._closing = True
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

    def set_handler(self, protocol: str, handler: StreamHandler) -> None:
        """Answer streams of `protocol`; its name is told to peers that identify us from now on."""
        self._handlers[protocol] = handler

    def subscribe(self, listener: Callable[[PeerEvent], None]) -> None:
        """Hear of peers; called in the loop, must not block."""
        self._listeners.append(listener)

    async def connect(self, target: Multiaddr | PeerInfo, *, timeout_seconds: float = DIAL_SECONDS_MAX) -> Connection:
        """A connection to a peer, the one that is there or a new one; it is identified.

        An address without `/p2p` connects to whoever answers. Raises PeerUnreachableError, RefusedError and other
        Libp2pErrors; for a peer id that does not match PeerMisbehavedError.
        """
        peer = target if isinstance(target, PeerInfo) else None
        if isinstance(target, Multiaddr):
            if (peer_id := target.peer_id) is None:
                return await self._dial((target,), None, timeout_seconds)
            peer = PeerInfo(peer_id, (target.without_peer_id,))
        assert peer is not None
        if connection := self._connected(peer.peer_id):
            return connection
        if peer.peer_id == self._identity.peer_id:
            raise PeerUnreachableError("that is this node itself")
        if running := self._dials.get(peer.peer_id):
            return await asyncio.shield(running)
        future = self._dials[peer.peer_id] = asyncio.get_running_loop().create_future()
        try:
            connection = await self._dial(peer.addresses[:DIAL_ADDRESSES_MAX], peer.peer_id, timeout_seconds)
        except BaseException as error:
            failed = error if isinstance(error, Libp2pError) else PeerUnreachableError("the dial was cancelled")
            future.set_exception(failed)
            future.exception()  # others may or may not have waited for it
            raise
        finally:
            del self._dials[peer.peer_id]
        future.set_result(connection)
        return connection

    async def open_stream(self, peer: PeerInfo, protocol: str) -> Stream:
        """A stream to a peer, over a new connection where there is none.

        Raises PeerUnreachableError, ProtocolNotSupportedError and other Libp2pErrors.
        """
        connection = await self.connect(peer)
        connection.used_at = self._now()
        return await connection.open_stream(protocol)

    async def push_identify(self) -> None:
        """Tell all connected peers what we speak now."""
        for connection in self.connections:
            if identify.PUSH_PROTOCOL in connection.protocols:
                async with await connection.open_stream(identify.PUSH_PROTOCOL) as stream:
                    await stream.write_message(self._identification(connection))
                    stream.close_write()

    # --- connections ------------------------------------------------------------------------------------

    async def _dial(
        self, addresses: tuple[Multiaddr, ...], expected: PeerId | None, timeout_seconds: float
    ) -> Connection:
        failure: Libp2pError = PeerUnreachableError(f"no address of {expected.short if expected else 'the peer'}")
        for address in addresses:
            if layer := self._gate.intercept_dial(address):
                failure = self._refuse(layer)
                continue
            try:
                async with asyncio.timeout(timeout_seconds):
                    raw = await self._transport.dial(address)
                    return await self._upgrade(raw, expected, inbound=False)
            except TimeoutError:
                failure = PeerUnreachableError(f"{address} did not answer in {timeout_seconds:g} s")
            except Libp2pError as error:
                failure = error
        raise failure

    def _accept(self, raw: RawConnection) -> None:
        source = raw.remote.components[0][1]
        if self._closing:
            raw.abort()
        elif layer := self._gate.intercept_accept(raw.remote) or self._admission.refusal(source):
            self._refuse(layer)
            raw.abort()
        else:
            self._admission.came(source)
            self._tasks.create_task(self._serve_inbound(raw, source))

    async def _serve_inbound(self, raw: RawConnection, source: str) -> None:
        try:
            try:
                async with asyncio.timeout(HANDSHAKE_SECONDS_MAX):
                    connection = await self._upgrade(raw, None, inbound=True)
            finally:
                self._admission.shook_hands()
            await connection.wait_closed()
        except TimeoutError:
            self._metrics.rejected_connections.labels("slow_handshake").inc()
        except Libp2pError as error:
            log.debug("an incoming connection failed", remote=raw.remote, error=error)
        finally:
            self._admission.left(source)
            raw.abort()

    async def _upgrade(self, raw: RawConnection, expected: PeerId | None, *, inbound: bool) -> Connection:
        """Secure and identify; the connection is then known and kept alive. Raises Libp2pError."""
        connection = Connection(raw, inbound=inbound, on_stream=self._on_stream, now=self._now)
        try:
            await connection.secure(self._identity, self._psks())
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

    def _trim(self) -> None:
        everyone = self.connections
        if len(everyone) <= CONNECTIONS_HIGH_WATER:
            return
        idle = sorted((one for one in everyone if not one.stream_count), key=lambda one: one.used_at)
        for connection in idle[: len(everyone) - CONNECTIONS_LOW_WATER]:
            connection.close()

    def _refuse(self, layer: str) -> RefusedError:
        self._metrics.rejected_connections.labels(layer).inc()
        return RefusedError(layer)

    # --- streams ----------------------------------------------------------------------------------------

    def _on_stream(self, stream: Stream) -> None:
        if self._closing:
            stream.reset()
        else:
            self._tasks.create_task(self._serve_stream(stream))

    async def _serve_stream(self, stream: Stream) -> None:
        try:
            async with asyncio.timeout(NEGOTIATE_SECONDS_MAX):
                stream.protocol = await multistream.accept(stream, self._handlers)
                if stream.protocol not in _ANSWERED_TO_ALL:
                    await stream.connection.wait_admitted()
            await self._handlers[stream.protocol](stream)
        except PeerMisbehavedError as error:
            self._metrics.rejected_connections.labels(error.reason).inc()
            stream.reset()
        except (TimeoutError, Libp2pError):
            stream.reset()
        except Exception as error:
            log.exception("a stream handler failed", error, protocol=stream.protocol)
            stream.reset()

    # --- identify and ping ------------------------------------------------------------------------------

    async def _identify(self, connection: Connection) -> None:
        async with await connection.open_stream(identify.PROTOCOL) as stream:
            self._learn(connection, await identify.read(stream))

    def _learn(self, connection: Connection, said: identify.Identification) -> None:
        if layer := self._gate.intercept_identified(connection.peer_id, said.protocols, said.agent_version):
            connection.abort()
            raise self._refuse(layer)
        connection.protocols, connection.agent_version = said.protocols, said.agent_version
        connection.info = PeerInfo(connection.peer_id, said.addresses)

    async def _answer_identify(self, stream: Stream) -> None:
        await stream.write_message(self._identification(stream.connection))
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


async def _answer_ping(stream: Stream) -> None:
    while data := await stream.read(PING_BYTES):
        await stream.write(data)
    stream.close_write()


class _StopError(Exception):
    """Ends the host's task group."""
