"""A secured connection to a peer: its streams, its keepalive, its end.

Frames are processed as they arrive. A stream that the peer opens is passed to `on_stream`. A peer that breaks the
protocol is disconnected and counted by reason; it gets no answer.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from speil.libp2p import multistream
from speil.libp2p.budget import Account, Budget
from speil.libp2p.channel import Channel
from speil.libp2p.error import ConnectionClosedError, PeerMisbehavedError, StreamResetError
from speil.libp2p.identity import Identity
from speil.libp2p.remote_peer import RemotePeer
from speil.libp2p.stream import Stream
from speil.libp2p.stream_slots import StreamSlots
from speil.libp2p.transport import RawConnection
from speil.libp2p.yamux import (
    FRAME_PAYLOAD_BYTES_MAX,
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
from speil.token_bucket import Bucket

KEEPALIVE_SECONDS = 30.0  # go-yamux pings as often
PONG_SECONDS_MAX = 10.0  # go-yamux drops a peer that is silent for as long
OPEN_SECONDS_MAX = 10.0
FRAMES_PER_TURN_MAX = 64  # then other connections are served: one read holds 20,000 frames without a payload
FRAMES_BURST, FRAMES_PER_SECOND = 20_000, 10_000.0  # of one address or prefix: a frame costs some microseconds
STREAMS_BEFORE_ADMISSION_MAX = 64  # go-libp2p opens three before it has answered identify
STREAMS_BURST, STREAMS_PER_SECOND = 1024, 200.0  # that a peer may open
STARVED_MAX = 64  # streams reset because the share of memory is full (one more each second); then the peer is cut off


class Connection:
    """One connection. Whoever makes it calls `secure`, then `start`, and keeps `run` running."""

    def __init__(
        self,
        raw: RawConnection,
        *,
        inbound: bool,
        on_stream: Callable[[Connection, Stream], None],
        now: Callable[[], float],
        share: str = "",
        account: Account | None = None,
        dialled: Multiaddr | None = None,
        count: Callable[[str], None] = lambda reason: None,
        frames: Bucket | None = None,
    ) -> None:
        """`share` is the address or prefix whose limits the peer's costs count against (`neighbourhood`).

        account: counts the bytes held for the peer.
        dialled: the address that was dialled; None for an inbound connection.
        count: called with the reason when a stream is reset for what the peer did.
        frames: how many frames `share` may still send.
        """
        self.inbound, self.dialled = inbound, dialled
        self.peer: RemotePeer  # set by `secure`
        self.failure: PeerMisbehavedError | None = None
        self.polite = False
        self._remote, self._share = raw.remote, share
        self._account = account or Account(Budget(), "")
        self._channel = Channel(raw, self._lost)
        self._yamux = Yamux(dialer=not inbound)
        self._streams: dict[int, Stream] = {}
        self._on_stream, self._now, self._count = on_stream, now, count
        self._closed = asyncio.Event()
        self._admitted = asyncio.Event()
        self._pong = asyncio.Event()
        self._slots = StreamSlots(now)
        self._frames = frames or Bucket(FRAMES_BURST, FRAMES_PER_SECOND, now())
        self._openings = Bucket(STREAMS_BURST, STREAMS_PER_SECOND, now())
        self._starvable = Bucket(STARVED_MAX, 1, now())
        self._opened_early = self._pending = 0
        self._behind = False
        self._before_admission: set[Stream] = set()
        self.used_at = now()

    @property
    def peer_id(self) -> PeerId:
        """The peer, as the handshake proved it."""
        return self.peer.peer_id

    @property
    def closed(self) -> bool:
        """Whether it has ended."""
        return self._closed.is_set()

    @property
    def stream_count(self) -> int:
        """Open streams of both sides."""
        return len(self._streams)

    async def secure(self, identity: Identity, psks: tuple[bytes, ...]) -> None:
        """Run the handshake and agree on the muxer; `peer` is set afterwards. Raises Libp2pError."""
        found = await self._channel.upgrade(identity, psks, dialer=not self.inbound)
        self.peer = RemotePeer(found.peer_id, self._remote, self._share, PeerInfo(found.peer_id))

    def start(self) -> None:
        """Process frames from now on."""
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
        """A new stream that speaks `protocol`, within OPEN_SECONDS_MAX. The caller ends it.

        Raises ProtocolNotSupportedError, ConnectionClosedError, StreamResetError, PeerMisbehavedError, and
        OwnLimitError where this node has too many streams to the peer open.
        """
        await self._slots.take()
        try:
            stream = self._new_stream(multistream.encode(multistream.HEADER, protocol))
        except BaseException:
            self._slots.release()
            raise
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

    def _new_stream(self, first_data: bytes) -> Stream:
        """The stream releases its slot when neither side sends on it any more."""
        if self.closed:
            raise ConnectionClosedError(f"the connection to {self.peer_id.short} is closed")
        stream = Stream(self, self._yamux.open(first_data), self.peer)
        self._streams[stream.stream_id] = stream
        stream.on_gone = self._slots.release
        self._flush()
        return stream

    def admit(self) -> None:
        """The gate admitted the peer: its streams that waited for that are served now."""
        self._admitted.set()
        for stream in self._before_admission:
            stream.look()

    async def wait_admitted(self, stream: Stream) -> None:
        """Wait until the gate has admitted the peer.

        Raises ConnectionClosedError, StreamResetError where `stream` ends earlier.
        """
        self._before_admission.add(stream)
        try:
            await stream.wait_for(self._admitted)
        finally:
            self._before_admission.discard(stream)

    async def wait_closed(self) -> None:
        """Wait until the connection has ended."""
        await self._closed.wait()

    def close(self) -> None:
        """Send a go-away frame and close."""
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

    # --- StreamCarrier ----------------------------------------------------------------------------------

    async def send(self, stream_id: int, data: bytes) -> int:
        """See StreamCarrier."""
        await self._channel.drain()
        if not self._yamux.has(stream_id):
            raise StreamResetError("the stream has ended")
        size = min(self._yamux.send_window(stream_id), FRAME_PAYLOAD_BYTES_MAX, len(data))
        if size:
            self._yamux.send(stream_id, data[:size])
            self._flush()
        return size

    def release(self, stream_id: int, taken_bytes: int, credit_bytes: int) -> None:
        """See StreamCarrier."""
        self._account.release(taken_bytes)
        if credit_bytes:
            self._yamux.credit(stream_id, credit_bytes)
            self._flush()

    def finish(self, stream_id: int) -> None:
        """See StreamCarrier."""
        self._yamux.finish(stream_id)
        self._flush()
        self._forget_if_gone(stream_id)

    def reset(self, stream_id: int) -> None:
        """See StreamCarrier."""
        self._yamux.reset(stream_id)
        if stream := self._streams.pop(stream_id, None):
            stream.gone()
        self._flush()

    # --- frames that arrive -----------------------------------------------------------------------------

    def _receive(self, data: bytes) -> None:
        try:
            events = self._yamux.receive(data, FRAMES_PER_TURN_MAX)
            self._hold_pending()
            for event in events:
                self._handle(event)
        except PeerMisbehavedError as error:
            self.failure = error
            self.abort()
            return
        if self.closed:
            return
        self._flush()
        wait = self._frames.overdraw(self._now(), self._yamux.frames_taken)
        if (self._yamux.is_behind or wait) and not self._behind:
            self._behind = True
            self._channel.pause(True)
            asyncio.get_running_loop().call_later(wait, self._go_on)

    def _go_on(self) -> None:
        """Continue after other connections were served."""
        self._behind = False
        if self.closed:
            return
        self._receive(b"")
        if not self._behind and not self.closed:
            self._channel.pause(False)

    def _hold_pending(self) -> None:
        """Count received bytes that can't be passed on yet: a cut encrypted frame, and frames for later turns."""
        pending = self._channel.pending_bytes + self._yamux.pending_bytes
        # Only the peer's own share can cut it off. Others that fill the memory of the whole node can't.
        if pending > self._pending and not self._account.hold(pending - self._pending, in_any_case=True):
            raise PeerMisbehavedError("memory", f"the share of memory of {self._share or 'the peer'} is full")
        if pending < self._pending:
            self._account.release(self._pending - pending)
        self._pending = pending

    def _feed(self, stream: Stream, data: bytes) -> None:
        if self._account.hold(len(data)):
            stream.feed(data)
            return
        if not self._starvable.take(self._now()):
            raise PeerMisbehavedError("memory", f"{STARVED_MAX} streams whose messages do not end")
        self._count("memory")
        self.reset(stream.stream_id)
        stream.drop(StreamResetError("the share of memory of this peer is full"))

    def _open(self, stream_id: int) -> None:
        if not self._openings.take(self._now()):
            raise PeerMisbehavedError("stream_churn", f"over {STREAMS_PER_SECOND:.0f} streams a second")
        if not self._admitted.is_set():
            self._opened_early += 1
            if self._opened_early > STREAMS_BEFORE_ADMISSION_MAX:
                raise PeerMisbehavedError("stream_churn", f"{self._opened_early} streams before it was admitted")
        stream = self._streams[stream_id] = Stream(self, stream_id, self.peer)
        self._on_stream(self, stream)

    def _handle(self, event: Event) -> None:
        match event:
            case DataReceived(stream_id, data):
                if stream := self._streams.get(stream_id):
                    self.used_at = self._now()  # pings do not count as use: every connection has those
                    self._feed(stream, data)
            case StreamOpened(stream_id):
                self._open(stream_id)
            case StreamFinished(stream_id):
                if stream := self._streams.get(stream_id):
                    stream.finish()
                    self._forget_if_gone(stream_id)
            case StreamReset(stream_id):
                if stream := self._streams.pop(stream_id, None):
                    stream.fail(StreamResetError("reset by the peer"))
                    stream.gone()
            case WindowGrown(stream_id):
                if stream := self._streams.get(stream_id):
                    stream.window_grown()
            case PongReceived():
                self._pong.set()
            case GoAway():
                self.polite = True
                self.abort()

    def _forget_if_gone(self, stream_id: int) -> None:
        if not self._yamux.has(stream_id) and (stream := self._streams.pop(stream_id, None)):
            stream.gone()

    def _flush(self) -> None:
        if output := self._yamux.take_output():
            self._channel.send(output)

    def _lost(self) -> None:
        self.failure = self.failure or self._channel.failure
        self._closed.set()
        self._pong.set()
        self._account.close()
        streams, self._streams = self._streams, {}
        for stream in streams.values():
            stream.fail(ConnectionClosedError("the connection ended"))
            stream.gone()
