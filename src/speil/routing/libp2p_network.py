"""The DHT's network: its messages on libp2p streams of the protocol `<prefix>/kad/1.0.0`.

Streams are reused: a request takes an idle one or opens another, within a limit per peer. A request that fails on a
reused stream (go-libp2p resets idle ones after a minute) is retried on a new one.

The region's border is checked here once more, for a peer that passed the gate: a peer with another topology label than
this node is not dialled or asked, gets no answers, and its records are dropped. Answers are filtered by label too: a
node without a label knows peers of several labels, and never names peers of one label to another.

speil nodes speak `<prefix>/kad-places/1.0.0` as well: the same messages, in which an ADD_PROVIDER may name many keys
by their places. Other peers get one ADD_PROVIDER for each key. Nodes that share content in flight list
`<prefix>/kad-claims/1.0.0` too.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Collection, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from weakref import WeakValueDictionary

from speil.border.record import BorderRecord
from speil.kad.key import Key
from speil.kad.message import ANSWER_BYTES_MAX, REQUEST_BYTES_MAX, Message, MessageError, MessageType, announcements
from speil.libp2p.connection_table import Disconnected, Identified, PeerEvent
from speil.libp2p.error import Libp2pError, OwnLimitError, PeerMisbehavedError, PeerUnreachableError
from speil.libp2p.host import Host
from speil.libp2p.series import Libp2pSeries
from speil.libp2p.stream import Stream
from speil.multiformats.multiaddr import Multiaddr
from speil.multiformats.peer_id import PeerId
from speil.multiformats.peer_info import PeerInfo
from speil.observe.metrics import Metrics
from speil.region.policy import Layer, Policy, label_said
from speil.routing.advertised import Advertised
from speil.routing.hearsay import Hearsay
from speil.routing.network import NetworkError, NotAskedError, RequestHandler
from speil.routing.series import DhtSeries
from speil.routing.turns import Turns

REQUEST_SECONDS_MAX = 10.0  # go-libp2p-kad-dht's read timeout
MESSAGE_SECONDS_MAX = 10.0  # from a message's first byte to its last; go-libp2p-kad-dht's write timeout
ANSWERS_AT_ONCE_MAX = 16  # to one address or prefix: each holds its request until the peer reads the answer
IDLE_STREAMS_PER_PEER_MAX = 8  # a lookup asks a peer once; the layers of an image are looked up at the same time
IDLE_SECONDS_MAX = 45.0  # go-libp2p resets an idle stream after 60 s
INBOUND_IDLE_SECONDS_MAX = 60.0  # how long we keep a peer's idle stream, as go-libp2p does
OPEN = Policy()
_KAD, _PLACES, _CLAIMS = "/kad/1.0.0", "/kad-places/1.0.0", "/kad-claims/1.0.0"


class Libp2pNetwork:
    """PeerNetwork on a `Host`."""

    def __init__(
        self, host: Host, protocol_prefix: str, metrics: Metrics, record: BorderRecord, policy: Policy = OPEN
    ) -> None:
        """`policy` is used for topology labels only: the name of the protocol keeps other regions out."""
        self._host, self._series, self._record, self._policy = host, metrics.of(DhtSeries), record, policy
        self.protocol, self.places_protocol = protocol_prefix + _KAD, protocol_prefix + _PLACES
        self.claims_protocol = protocol_prefix + _CLAIMS
        self._turns = Turns(self._series)
        self._idle: dict[PeerId, list[tuple[Stream, float]]] = {}
        self._advertised = Advertised(self.claims_protocol)
        refused = metrics.of(Libp2pSeries).dials_refused
        self._hearsay = Hearsay(self._has_met, lambda: refused.labels("teller").inc())
        self._answering: WeakValueDictionary[str, asyncio.Semaphore] = WeakValueDictionary()
        self._handler: RequestHandler
        self._on_joined: Callable[[PeerInfo, bool], None]
        self._on_left: Callable[[PeerId, bool], None]

    @property
    def local(self) -> PeerInfo:
        """This node."""
        return self._host.local

    def attach(
        self,
        handler: RequestHandler,
        on_joined: Callable[[PeerInfo, bool], None],
        on_left: Callable[[PeerId, bool], None],
    ) -> None:
        """See PeerNetwork."""
        self._handler, self._on_joined, self._on_left = handler, on_joined, on_left
        self._host.set_handler(self.protocol, self._serve)
        self._host.set_handler(self.places_protocol, self._serve)
        self._host.subscribe(self._heard)

    def zone_of(self, peer_id: PeerId) -> str:
        """See PeerNetwork."""
        return self._advertised.zone_of(peer_id)

    def host_of(self, peer_id: PeerId) -> str:
        """See PeerNetwork."""
        return self._host.host_of(peer_id)

    def enable_claims(self) -> None:
        """See PeerNetwork."""
        self._host.set_handler(self.claims_protocol, self._serve)

    def understands_claims(self, peer_id: PeerId) -> bool:
        """See PeerNetwork."""
        return self._advertised.understands_claims(peer_id)

    def foreign_to(self, peer_id: PeerId) -> Collection[PeerId]:
        """See PeerNetwork."""
        is_local = peer_id == self._host.local.peer_id
        return self._advertised.foreign_to(self._policy.label if is_local else self._advertised.label_of(peer_id))

    def usable(self, namer: PeerId, named: Sequence[PeerInfo], *, any_port: bool = False) -> tuple[PeerInfo, ...]:
        """See PeerNetwork."""
        host = self._host.host_of(namer)
        share = self._host.neighbourhood.share_of(host) if host else str(namer)
        foreign, rules = self.foreign_to(self._host.local.peer_id), self._host.dial_rules
        peers = [
            _at(peer, rules.usable(peer.addresses, any_port=any_port)) for peer in named if peer.peer_id not in foreign
        ]
        time = asyncio.get_running_loop().time()
        return self._hearsay.believed(share, [peer for peer in peers if peer.addresses], time)

    async def dial(self, address: Multiaddr) -> PeerInfo | None:
        """See PeerNetwork."""
        try:
            connection = await self._host.connect(address)
        except Libp2pError as error:
            raise NetworkError(str(error)) from error
        protocols = connection.peer.protocols
        if self.protocol not in protocols or self._refuses(connection.peer_id, protocols):
            return None
        # Also for a connection that existed before: the routing table may have dropped the peer.
        self._on_joined(connection.peer.info, False)
        return connection.peer.info

    async def request(self, peer: PeerInfo, message: Message) -> Message:
        """See PeerNetwork."""
        self._check_label(peer.peer_id)
        self._series.messages.labels("out", message.type.name).inc()
        while idle := self._take_idle(peer.peer_id):
            try:
                return await self._exchange(idle, message)
            except NetworkError:
                continue
        return await self._exchange(await self._open(peer), message)

    async def send(self, peer: PeerInfo, message: Message) -> None:
        """See PeerNetwork."""
        self._check_label(peer.peer_id)
        self._series.messages.labels("out", message.type.name).inc()
        while idle := self._take_idle(peer.peer_id):
            try:
                await self._write(idle, message)
            except NetworkError:
                continue
            return
        await self._write(await self._open(peer), message)

    async def announce(self, peer: PeerInfo, keys: Sequence[Key]) -> None:
        """See PeerNetwork."""
        self._check_label(peer.peer_id)
        try:
            async with asyncio.timeout(REQUEST_SECONDS_MAX):
                packed = self.places_protocol in (await self._host.connect(peer)).peer.protocols
                stream = await self._host.open_stream(peer, self.places_protocol if packed else self.protocol)
                self._check_label(peer.peer_id)
                async with stream:
                    for message in announcements(self.local, keys, packed=packed):
                        self._series.messages.labels("out", MessageType.ADD_PROVIDER.name).inc()
                        await stream.write_message(message.encode())
                    stream.close_write()
                    await stream.read()  # the end of the stream: the peer has read everything
        except (Libp2pError, TimeoutError) as error:
            raise self._failure(peer.peer_id, error) from error

    def _failure(self, peer_id: PeerId, error: Exception) -> NetworkError:
        if isinstance(error, OwnLimitError):
            return NotAskedError(f"{peer_id.short}: {error}")
        if isinstance(error, PeerUnreachableError):
            self._hearsay.unreachable(peer_id, asyncio.get_running_loop().time())
        return NetworkError(f"{peer_id.short}: {error!r}")

    async def _open(self, peer: PeerInfo) -> Stream:
        try:
            stream = await self._host.open_stream(peer, self.protocol)
        except Libp2pError as error:
            raise self._failure(peer.peer_id, error) from error
        try:
            self._check_label(peer.peer_id)  # a new connection may have brought the label
        except NetworkError:
            stream.reset()
            raise
        return stream

    async def _exchange(self, stream: Stream, message: Message) -> Message:
        async with self._used(stream, REQUEST_SECONDS_MAX):
            await stream.write_message(message.encode())
            data = await stream.read_message(ANSWER_BYTES_MAX)
            if data is None:
                raise NetworkError("the peer closed the stream instead of answering")
            answer = self._usable(stream, Message.decode(data))
        return self._filtered_for(self._policy.label, answer)

    async def _write(self, stream: Stream, message: Message) -> None:
        async with self._used(stream, MESSAGE_SECONDS_MAX):
            await stream.write_message(message.encode())

    @asynccontextmanager
    async def _used(self, stream: Stream, seconds_max: float) -> AsyncIterator[None]:
        """Keep the stream for further requests; after a failure reset it. Raises NetworkError."""
        try:
            async with asyncio.timeout(seconds_max):
                yield
        except (Libp2pError, MessageError, TimeoutError) as error:
            stream.reset()
            raise NetworkError(f"{stream.peer_id.short}: {error!r}") from error
        except BaseException:
            stream.reset()
            raise
        self._keep_idle(stream)

    def _take_idle(self, peer_id: PeerId) -> Stream | None:
        streams = self._idle.get(peer_id, [])
        while streams:
            stream, since = streams.pop()
            if asyncio.get_running_loop().time() - since < IDLE_SECONDS_MAX:
                return stream
            stream.reset()
        return None

    def _keep_idle(self, stream: Stream) -> None:
        if not stream.is_open or stream.held_bytes:
            stream.reset()  # bytes behind the answer are no answer to the next request
            return
        streams = self._idle.setdefault(stream.peer_id, [])
        if len(streams) >= IDLE_STREAMS_PER_PEER_MAX:
            stream.reset()
        else:
            streams.append((stream, asyncio.get_running_loop().time()))

    def _heard(self, event: PeerEvent) -> None:
        match event:
            case Identified(peer, protocols, is_new) if self.protocol in protocols:
                if self._refuses(peer.peer_id, protocols):
                    self._on_left(peer.peer_id, False)  # it had another label before
                    return
                self._advertised.learn(peer.peer_id, protocols)
                self._on_joined(peer, is_new)
            case Identified(peer, protocols):
                if other := next((name for name in sorted(protocols) if name.endswith(_KAD)), None):
                    self._record.rejected(Layer.DHT_PROTOCOL, str(peer.peer_id), f"its DHT protocol is {other}")
            case Disconnected(peer_id, polite):
                self._idle.pop(peer_id, None)
                self._on_left(peer_id, polite)

    def _refuses(self, peer_id: PeerId, protocols: Iterable[str]) -> bool:
        """Store the topology label of a peer; whether it differs from this node's, which is counted."""
        label = self._advertised.learn_label(peer_id, protocols)
        if self._policy.shares(label):
            return False
        self._record.other_label(Layer.DHT_PROTOCOL, str(peer_id), label, self._policy.label)
        return True

    def _check_label(self, peer_id: PeerId) -> None:
        """Raises NetworkError for a peer with another topology label."""
        label = self._advertised.label_of(peer_id)
        if not self._policy.shares(label):
            self._record.other_label(Layer.DHT_PROTOCOL, str(peer_id), label, self._policy.label)
            raise NetworkError(f"{peer_id.short}: its node's topology label is {label!r}")

    def _filtered_for(self, label: str, message: Message) -> Message:
        """`message` without the peers that have another label than `label`."""
        named = (*message.closer_peers, *message.provider_peers)
        foreign = {peer.peer_id for peer in named if _differ(label, self._advertised.label_of(peer.peer_id))}
        if not foreign:
            return message
        return replace(
            message,
            closer_peers=tuple(peer for peer in message.closer_peers if peer.peer_id not in foreign),
            provider_peers=tuple(peer for peer in message.provider_peers if peer.peer_id not in foreign),
        )

    def _has_met(self, peer: PeerInfo) -> bool:
        return peer.peer_id in self._advertised or self._host.dial_rules.has_reached(peer.addresses)

    def _usable(self, stream: Stream, message: Message) -> Message:
        """A peer's message without addresses that must not be dialled and peers that must not be believed."""
        usable = self._host.dial_rules.usable
        closer = (_at(peer, usable(peer.addresses)) for peer in message.closer_peers)
        # The port of a provider does not matter: its registry listens on another one.
        providers = (_at(peer, usable(peer.addresses, any_port=True)) for peer in message.provider_peers)
        namer, time = stream.peer.share, asyncio.get_running_loop().time()
        return replace(
            message,
            closer_peers=self._hearsay.believed(namer, [peer for peer in closer if peer.addresses], time),
            provider_peers=tuple(providers),
        )

    async def _serve(self, stream: Stream) -> None:
        if self._refuses(stream.peer_id, stream.peer.protocols):
            stream.reset()
            return
        asker = label_said(stream.peer.protocols)
        answering = self._answering.setdefault(stream.peer.share, asyncio.Semaphore(ANSWERS_AT_ONCE_MAX))
        while True:
            async with asyncio.timeout(INBOUND_IDLE_SECONDS_MAX):
                if not await stream.has_more():
                    stream.close_write()
                    return
            try:
                async with asyncio.timeout(MESSAGE_SECONDS_MAX):
                    data = await stream.read_message(REQUEST_BYTES_MAX)
            except TimeoutError:
                raise PeerMisbehavedError("slow_message", f"{MESSAGE_SECONDS_MAX:.0f} s for a message") from None
            if not data:
                raise PeerMisbehavedError("bad_dht_message", "an empty message")
            if not await self._turns.wait(stream.peer_id, stream.peer.host, len(data)):
                stream.reset()
                return
            async with answering, asyncio.timeout(MESSAGE_SECONDS_MAX):
                await self._answer(stream, data, asker)

    async def _answer(self, stream: Stream, data: bytes, asker: str) -> None:
        try:
            message = Message.decode(data)
        except MessageError as error:
            raise PeerMisbehavedError("bad_dht_message", str(error)) from error
        self._series.messages.labels("in", message.type.name).inc()
        if self.protocol in stream.peer.protocols:
            # A peer that asks is alive, also one that was dropped because it was slow for a moment.
            self._on_joined(stream.peer.info, False)
        if (answer := self._handler(stream.peer.info, self._usable(stream, message))) is not None:
            await stream.write_message(self._filtered_for(asker, answer).encode())


def _at(peer: PeerInfo, addresses: tuple[Multiaddr, ...]) -> PeerInfo:
    """The peer with these of its addresses."""
    return peer if addresses == peer.addresses else replace(peer, addresses=addresses)


def _differ(label: str, other: str) -> bool:
    return bool(label and other) and label != other
