"""A peer with a real handshake whose yamux frames are its own, and a host with a DHT network to attack."""

from __future__ import annotations

import asyncio
import contextlib

from speil.border.record import BorderRecord
from speil.kad.message import Message
from speil.libp2p import identify, multistream
from speil.libp2p.channel import Channel
from speil.libp2p.error import ConnectionClosedError
from speil.libp2p.host import Host
from speil.libp2p.identity import Identity
from speil.libp2p.transport import RawConnection, TcpTransport
from speil.libp2p.yamux import FRAME_PAYLOAD_BYTES_MAX, DataReceived, Yamux
from speil.multiformats.multiaddr import Multiaddr
from speil.observe.metrics import Metrics
from speil.routing.libp2p_network import Libp2pNetwork
from speil.testing.eventually import eventually
from speil.testing.samples import sample
from tests.shell.mesh import new_host

KAD = "/t/kad/1.0.0"
OPENING = multistream.encode(multistream.HEADER, KAD)
_IDENTIFY = multistream.encode(identify.PROTOCOL)


def rejected(metrics: Metrics, reason: str) -> float:
    """Connections and streams that were closed for `reason`."""
    return sample(metrics, "speil_rejected_connections_total", reason=reason)


class Attacker:
    """`polite`: it answers identify, so that a host admits it. `closed` is set when its connection has ended."""

    def __init__(self, *, polite: bool = False) -> None:
        self.polite, self.closed = polite, asyncio.Event()
        self.identity = Identity.generate()
        self.channel: Channel
        self.yamux = Yamux(dialer=True)
        self._received: dict[int, bytes] = {}

    async def connect(self, target: Multiaddr) -> None:
        """Dial and shake hands. Identify may not have ended then: see `meet`."""
        raw: RawConnection = await TcpTransport().dial(target)
        self.channel = Channel(raw, self.closed.set)
        await self.channel.upgrade(self.identity, (), dialer=True)
        self.channel.start(self._receive)

    async def meet(self, host: Host) -> None:
        """Connect; a polite one is admitted then.

        It waits for the connection of this attacker, not for a number of connections: a host may close those of earlier
        attackers at any time, because the memory of their share is full.
        """
        await self.connect(host.local.addresses[0])
        if self.polite:
            await eventually(lambda: self.is_admitted(host), what="the attacker is admitted")

    def is_admitted(self, host: Host) -> bool:
        """Whether the host has a connection to it."""
        return any(one.peer_id == self.identity.peer_id for one in host.connections)

    async def open(self, count: int, data: bytes = b"") -> list[int]:
        """Streams to the DHT with `data` behind the negotiation, at most a window of it."""
        opened = [self.yamux.open(OPENING) for _ in range(count)]
        for stream_id in opened:
            for start in range(0, len(data), FRAME_PAYLOAD_BYTES_MAX):
                self.yamux.send(stream_id, data[start : start + FRAME_PAYLOAD_BYTES_MAX])
            self.flush()
            await self.drain()
        return opened

    async def drain(self) -> None:
        """Wait until the connection takes more, or has ended."""
        with contextlib.suppress(ConnectionClosedError):
            await self.channel.drain()

    def flush(self) -> None:
        """Send the frames that are queued."""
        if not self.closed.is_set():
            self.channel.send(self.yamux.take_output())

    def leave(self) -> None:
        """Close the connection."""
        self.channel.abort()

    def _receive(self, data: bytes) -> None:
        for event in self.yamux.receive(data):
            if isinstance(event, DataReceived) and event.stream_id % 2 == 0 and self.polite:
                received = self._received[event.stream_id] = self._received.get(event.stream_id, b"") + event.data
                if received.endswith(_IDENTIFY):
                    answer = multistream.encode(multistream.HEADER, identify.PROTOCOL) + b"\0"
                    self.yamux.send(event.stream_id, answer)
                    self.yamux.finish(event.stream_id)
        self.flush()


class Victim:
    """A host with a DHT network that answers each request with itself. `asked` counts them."""

    def __init__(self) -> None:
        self.metrics, self.asked = Metrics(), 0
        self.host = new_host(metrics=self.metrics)
        self.network = Libp2pNetwork(self.host, "/t", self.metrics, BorderRecord("", self.metrics))
        self.network.attach(self._answer, lambda *_: None, lambda *_: None)

    def _answer(self, _: object, message: Message) -> Message:
        self.asked += 1
        return message
