"""A secured connection to a peer: its streams, its sign of life, its end.

Frames are taken in as they arrive; a stream that the peer opens is given to `on_stream`. A peer that breaks the
protocol is cut off, counted by reason, and told nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from speil.libp2p import multistream
from speil.libp2p.channel import Channel
from speil.libp2p.error import ConnectionClosedError, PeerMisbehavedError, StreamResetError
from speil.libp2p.identity import Identity
from speil.libp2p.stream import Stream
from speil.libp2p.transport import RawConnection
from speil.libp2p.yamux import (
    DataReceived,
    Event,
    GoAway,
    PongReceived,
    StreamFinished,
    StreamOpened,
    StreamReset,
    WindowGrown,
    Yamux,
)
from speil.multiformats.multiaddr import Multiaddr
from speil.multiformats.peer_id import PeerId
from speil.multiformats.peer_info import PeerInfo

KEEPALIVE_SECONDS = 30.0  # go-yamux pings as often
PONG_SECONDS_MAX = 10.0  # go-yamux drops a peer that is silent for as long
STREAMS_OUTBOUND_MAX = 60  # go-libp2p resets what comes above 64 per peer and protocol
OPEN_SECONDS_MAX = 10.0


class Connection:
    """One connection; the host makes it with `secure` and keeps `run` going."""

    def __init__(
        self, raw: RawConnection, *, inbound: bool, on_stream: Callable[[Stream], None], now: Callable[[], float]
    ) -> None:
        self.remote_address: Multiaddr = raw.remote
        self.inbound = inbound
        self.peer_id: PeerId
        self.protocols: frozenset[str] = frozenset()
        self.info: PeerInfo
        self.agent_version = ""
        self.failure: PeerMisbehavedError | None = None
        self.polite = False
        self._channel = Channel(raw, self._lost)
        self._yamux = Yamux(dialer=not inbound)
        self._streams: dict[int, Stream] = {}
        self._on_stream, self._now = on_stream, now
        self._closed = asyncio.Event()
        self._admitted = asyncio.Event()
        self._pong = asyncio.Event()
        self._slots = asyncio.Semaphore(STREAMS_OUTBOUND_MAX)
        self.used_at = now()

    @property
    def closed(self) -> bool:
        """Whether it has ended."""
        return self._closed.is_set()

    @property
    def stream_count(self) -> int:
        """Open streams, both sides'."""
        return len(self._streams)

    async def secure(self, identity: Identity, psks: tuple[bytes, ...]) -> None:
        """Handshake and muxer; `peer_id` is proved afterwards. Raises Libp2pError."""
        remote = await self._channel.upgrade(identity, psks, dialer=not self.inbound)
        self.peer_id = remote.peer_id
        self.info = PeerInfo(remote.peer_id)

    def start(self) -> None:
        """Take frames from now on."""
        self._channel.start(self._receive)

    async def run(self) -> None:
        """Keep the connection alive until it ends; then all its streams have ended too."""
        try:
            number = 0
            while not self.closed:
                number += 1
                self._pong.clear()
                self._yamux.ping(number)
                self._flush()
                if not await self._is_set(self._pong, PONG_SECONDS_MAX):
                    self.abort()
                await self._is_set(self._closed, KEEPALIVE_SECONDS)
        finally:
            self.abort()

    async def _is_set(self, event: asyncio.Event, seconds: float) -> bool:
        try:
            async with asyncio.timeout(seconds):
                await event.wait()
        except TimeoutError:
            return False
        return True

    async def open_stream(self, protocol: str) -> Stream:
        """A new stream that speaks `protocol`.

        Raises ProtocolNotSupportedError, ConnectionClosedError, StreamResetError, PeerMisbehavedError.
        """
        async with self._slots:
            if self.closed:
                raise ConnectionClosedError(f"connection to {self.peer_id.short} is closed")
            stream = Stream(self, self._yamux.open(multistream.encode(multistream.HEADER, protocol)))
            self._streams[stream.stream_id] = stream
            self._flush()
            try:
                async with asyncio.timeout(OPEN_SECONDS_MAX):
                    await multistream.expect(stream, protocol)
            except TimeoutError:
                stream.reset()
                raise StreamResetError(f"{protocol} was not agreed on in {OPEN_SECONDS_MAX:.0f} s") from None
            except BaseException:
                stream.reset()
                raise
        stream.protocol = protocol
        return stream

    def admit(self) -> None:
        """The gate let the peer in: what it asked meanwhile is answered now."""
        self._admitted.set()

    async def wait_admitted(self) -> None:
        """Until the gate let the peer in. Raises ConnectionClosedError where it did not."""
        await self._admitted.wait()
        if self.closed:
            raise ConnectionClosedError("closed before the peer was let in")

    async def wait_closed(self) -> None:
        """Until it has ended."""
        await self._closed.wait()

    def close(self) -> None:
        """Say goodbye and close."""
        if not self.closed:
            self.polite = True
            self._yamux.go_away()
            self._flush()
            self._channel.close()

    def abort(self) -> None:
        """Close now."""
        if not self.closed:
            self._channel.abort()
            self._lost()

    # --- what streams need ------------------------------------------------------------------------------

    def send_window(self, stream_id: int) -> int:
        """Bytes the stream may send now."""
        return self._yamux.send_window(stream_id)

    async def send(self, stream_id: int, data: bytes) -> None:
        """Send within the window, then wait for the connection's buffer."""
        self._yamux.send(stream_id, data)
        self._flush()
        await self._channel.drain()

    def credit(self, stream_id: int, size: int) -> None:
        """A reader took bytes."""
        self._yamux.credit(stream_id, size)
        self._flush()

    def finish(self, stream_id: int) -> None:
        """Half-close a stream."""
        self._yamux.finish(stream_id)
        self._flush()
        self._forget_if_gone(stream_id)

    def reset(self, stream_id: int) -> None:
        """Give a stream up."""
        self._yamux.reset(stream_id)
        self._streams.pop(stream_id, None)
        self._flush()

    # --- frames come in ---------------------------------------------------------------------------------

    def _receive(self, data: bytes) -> None:
        try:
            events = self._yamux.receive(data)
        except PeerMisbehavedError as error:
            self.failure = error
            self.abort()
            return
        self.used_at = self._now()
        for event in events:
            self._handle(event)
        self._flush()

    def _handle(self, event: Event) -> None:
        match event:
            case DataReceived(stream_id, data):
                if stream := self._streams.get(stream_id):
                    stream.feed(data)
            case StreamOpened(stream_id):
                stream = self._streams[stream_id] = Stream(self, stream_id)
                self._on_stream(stream)
            case StreamFinished(stream_id):
                if stream := self._streams.get(stream_id):
                    stream.finish()
                    self._forget_if_gone(stream_id)
            case StreamReset(stream_id):
                if stream := self._streams.pop(stream_id, None):
                    stream.fail(StreamResetError("reset by the peer"))
            case WindowGrown(stream_id):
                if stream := self._streams.get(stream_id):
                    stream.window_grown()
            case PongReceived():
                self._pong.set()
            case GoAway():
                self.polite = True
                self.abort()

    def _forget_if_gone(self, stream_id: int) -> None:
        if not self._yamux.has(stream_id):
            self._streams.pop(stream_id, None)

    def _flush(self) -> None:
        if output := self._yamux.take_output():
            self._channel.send(output)

    def _lost(self) -> None:
        self.failure = self.failure or self._channel.failure
        self._closed.set()
        self._admitted.set()  # whoever waits learns of the end
        self._pong.set()
        streams, self._streams = self._streams, {}
        for stream in streams.values():
            stream.fail(ConnectionClosedError("the connection ended"))
