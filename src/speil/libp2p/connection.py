"""A secured connection to a peer: its streams, its sign of life, its end.

Frames are taken in as they arrive; a stream that the peer opens is given to `on_stream`. A peer that breaks the
protocol is cut off, counted by reason, and told nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from speil.libp2p import multistream
from speil.libp2p.budget import Account, Budget
from speil.libp2p.channel import Channel
from speil.libp2p.error import ConnectionClosedError, OwnLimitError, PeerMisbehavedError, StreamResetError
from speil.libp2p.identity import Identity
from speil.libp2p.rate import Bucket
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
FRAMES_PER_TURN_MAX = 64  # then the others' turn comes: a read holds 20,000 frames without a payload
FRAMES_BURST, FRAMES_PER_SECOND = 20_000, 10_000.0  # of one address or prefix: a frame costs some microseconds
SLOT_SECONDS_MAX = 2.0  # a lookup gives a peer three
STREAMS_BEFORE_ADMISSION_MAX = 64  # go-libp2p opens three before it has answered identify
STREAMS_BURST, STREAMS_PER_SECOND = 1024, 200.0  # that a peer may open; more is churn
# of ours to a peer, so that two busy nodes never take each other for hostile
OWN_STREAMS_BURST, OWN_STREAMS_PER_SECOND = 512, 100.0
STARVED_MAX = 64  # streams reset for a full share of memory (one more each second); then the peer is cut off


class Connection:
    """One connection; the host makes it with `secure` and keeps `run` going."""

    def __init__(
        self,
        raw: RawConnection,
        *,
        inbound: bool,
        on_stream: Callable[[Stream], None],
        now: Callable[[], float],
        account: Account | None = None,
        dialled: Multiaddr | None = None,
        count: Callable[[str], None] = lambda reason: None,
        frames: Bucket | None = None,
    ) -> None:
        """`account` counts the bytes held for the peer; `dialled` is the address as the dial knew it.

        `count` hears why a stream was reset for what the peer did. `frames` is what its share may still send.
        """
        self.remote_address: Multiaddr = raw.remote
        self.inbound, self.dialled = inbound, dialled
        self._account = account or Account(Budget(), "")
        self.peer_id: PeerId
        self.protocols: frozenset[str] = frozenset()
        self.info: PeerInfo
        self.agent_version = ""
        self.share = ""  # whose share its costs count against: its address, or a stranger's prefix
        self.failure: PeerMisbehavedError | None = None
        self.polite = False
        self._channel = Channel(raw, self._lost)
        self._yamux = Yamux(dialer=not inbound)
        self._streams: dict[int, Stream] = {}
        self._on_stream, self._now, self._count = on_stream, now, count
        self._closed = asyncio.Event()
        self._admitted = asyncio.Event()
        self._pong = asyncio.Event()
        self._slots = asyncio.Semaphore(STREAMS_OUTBOUND_MAX)
        self._frames = frames or Bucket(FRAMES_BURST, FRAMES_PER_SECOND, now())
        self._openings = Bucket(STREAMS_BURST, STREAMS_PER_SECOND, now())
        self._own_openings = Bucket(OWN_STREAMS_BURST, OWN_STREAMS_PER_SECOND, now())
        self._starvable = Bucket(STARVED_MAX, 1, now())
        self._opened_early = self._pending = 0
        self._behind = False
        self._before_admission: set[Stream] = set()
        self.serving_count = 0  # handlers that run for the peer, also of streams that it has reset
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

        Raises ProtocolNotSupportedError, ConnectionClosedError, StreamResetError, PeerMisbehavedError, and
        OwnLimitError where too many of ours are open.
        """
        await self._take_slot()
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

    async def _take_slot(self) -> None:
        """Wait until one more stream of ours fits. Raises OwnLimitError."""
        try:
            async with asyncio.timeout(SLOT_SECONDS_MAX):
                if wait := self._own_openings.owe(self._now()):
                    await asyncio.sleep(wait)
                await self._slots.acquire()
        except TimeoutError:
            self._own_openings.give_back()
            raise OwnLimitError(f"{STREAMS_OUTBOUND_MAX} streams to {self.peer_id.short} are open") from None

    def _new_stream(self, first_data: bytes) -> Stream:
        """Its slot is given back when neither side sends on it any more."""
        if self.closed:
            raise ConnectionClosedError(f"connection to {self.peer_id.short} is closed")
        stream = Stream(self, self._yamux.open(first_data))
        self._streams[stream.stream_id] = stream
        stream.on_gone = self._slots.release
        self._flush()
        return stream

    def admit(self) -> None:
        """The gate let the peer in: what it asked meanwhile is answered now."""
        self._admitted.set()
        for stream in self._before_admission:
            stream.look()

    async def wait_admitted(self, stream: Stream) -> None:
        """Until the gate let the peer in. Raises ConnectionClosedError, StreamResetError where `stream` ends before."""
        self._before_admission.add(stream)
        try:
            await stream.wait_for(self._admitted)
        finally:
            self._before_admission.discard(stream)

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
        """Wait for the connection's buffer, then send; the window must have room."""
        await self._channel.drain()
        if self._yamux.has(stream_id):
            self._yamux.send(stream_id, data)
            self._flush()

    def credit(self, stream_id: int, size: int) -> None:
        """A reader took bytes."""
        self._yamux.credit(stream_id, size)
        self._flush()

    def taken(self, size: int) -> None:
        """Bytes that were held are held no more."""
        self._account.release(size)

    def finish(self, stream_id: int) -> None:
        """Half-close a stream."""
        self._yamux.finish(stream_id)
        self._flush()
        self._forget_if_gone(stream_id)

    def reset(self, stream_id: int) -> None:
        """Give a stream up."""
        self._yamux.reset(stream_id)
        if stream := self._streams.pop(stream_id, None):
            stream.gone()
        self._flush()

    # --- frames come in ---------------------------------------------------------------------------------

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
        wait = self._frames.owe(self._now(), self._yamux.frames_taken)
        if (self._yamux.is_behind or wait) and not self._behind:
            self._behind = True
            self._channel.pause(True)
            asyncio.get_running_loop().call_later(wait, self._go_on)

    def _go_on(self) -> None:
        """The others have had their turn."""
        self._behind = False
        if self.closed:
            return
        self._receive(b"")
        if not self._behind and not self.closed:
            self._channel.pause(False)

    def _hold_pending(self) -> None:
        """Count what came and can't be passed on: the beginning of an encrypted frame, and frames for later turns."""
        pending = self._channel.pending_bytes + self._yamux.pending_bytes
        # only its own share can cut a peer off: others that fill all there is must not
        if pending > self._pending and not self._account.hold(pending - self._pending, in_any_case=True):
            raise PeerMisbehavedError("memory", "its share of memory is full")
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
                raise PeerMisbehavedError("stream_churn", f"{self._opened_early} streams before it was let in")
        stream = self._streams[stream_id] = Stream(self, stream_id)
        self._on_stream(stream)

    def _handle(self, event: Event) -> None:
        match event:
            case DataReceived(stream_id, data):
                if stream := self._streams.get(stream_id):
                    self.used_at = self._now()  # not for pings: each connection has those
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
