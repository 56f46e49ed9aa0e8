"""yamux (hashicorp/yamux spec): many streams on one connection. Bytes in, events out; methods queue frames.

A frame's header: version 0, type, flags, stream id, length; network byte order, 12 bytes. The dialer's streams have
odd ids. Each direction of a stream has a window of 256 KiB that the receiver grows as its reader takes bytes, so a
stream that nobody reads stops its sender and uses a limited amount of memory.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from enum import IntEnum, IntFlag

from speil.libp2p.error import ConnectionClosedError, PeerMisbehavedError

WINDOW_BYTES = 256 * 1024  # the spec's initial window; this implementation never enlarges it
STREAMS_INBOUND_MAX = 256  # at once; the protocols here need far fewer
FRAME_PAYLOAD_BYTES_MAX = 64 * 1024  # of a sent frame, so that streams take turns
_HEADER = struct.Struct(">BBHII")
HEADER_BYTES = _HEADER.size


class FrameType(IntEnum):
    """The type of a frame."""

    DATA = 0
    WINDOW_UPDATE = 1
    PING = 2
    GO_AWAY = 3


class Flag(IntFlag):
    """What a frame does to its stream."""

    SYN = 1
    ACK = 2
    FIN = 4
    RST = 8


@dataclass(frozen=True, slots=True)
class StreamOpened:
    """The peer opened a stream."""

    stream_id: int


@dataclass(frozen=True, slots=True)
class DataReceived:
    """Bytes for a stream."""

    stream_id: int
    data: bytes


@dataclass(frozen=True, slots=True)
class StreamFinished:
    """The peer sends no more on a stream."""

    stream_id: int


@dataclass(frozen=True, slots=True)
class StreamReset:
    """The peer ended a stream in both directions."""

    stream_id: int


@dataclass(frozen=True, slots=True)
class WindowGrown:
    """The peer's window of a stream has grown."""

    stream_id: int


@dataclass(frozen=True, slots=True)
class PongReceived:
    """The answer to a ping of this side."""

    opaque: int


@dataclass(frozen=True, slots=True)
class GoAway:
    """The peer ends the session: 0 normal, 1 protocol error, 2 internal error."""

    code: int


Event = StreamOpened | DataReceived | StreamFinished | StreamReset | WindowGrown | PongReceived | GoAway


@dataclass(slots=True)
class _State:
    send_window: int = WINDOW_BYTES
    receive_window: int = WINDOW_BYTES
    uncredited: int = 0
    finished_here: bool = False
    finished_there: bool = False


@dataclass(slots=True)
class Yamux:
    """One side of a session. Call `take_output()` after each other method: it gives the bytes to send."""

    dialer: bool
    _streams: dict[int, _State] = field(default_factory=dict)
    _input: bytearray = field(default_factory=bytearray)
    _output: list[bytes] = field(default_factory=list)
    is_behind: bool = False
    frames_taken: int = 0  # by the last call of `receive`
    _next_id: int = 0
    _inbound: int = 0
    _droppable: int = 0  # bytes that may have been in flight when their streams ended here; more is a violation
    _frame_left: int = 0  # missing bytes of the data frame whose header was the last one
    _frame_stream: int = 0
    _frame_flags: int = 0

    def __post_init__(self) -> None:
        self._next_id = 1 if self.dialer else 2

    @property
    def stream_count(self) -> int:
        """Open streams of both sides."""
        return len(self._streams)

    @property
    def pending_bytes(self) -> int:
        """Received bytes that wait: a part of a header, or frames for the next call."""
        return len(self._input)

    def take_output(self) -> bytes:
        """The bytes to send since the last call."""
        output, self._output = b"".join(self._output), []
        return output

    def open(self, first_data: bytes = b"") -> int:
        """Open a stream with `first_data` in the opening frame; the stream's id. Raises ConnectionClosedError."""
        if self._next_id > 0xFFFF_FFFF:
            raise ConnectionClosedError("out of stream ids")
        stream_id, self._next_id = self._next_id, self._next_id + 2
        self._streams[stream_id] = _State(send_window=WINDOW_BYTES - len(first_data))
        self._frame(FrameType.DATA, Flag.SYN, stream_id, first_data)
        return stream_id

    def has(self, stream_id: int) -> bool:
        """Whether the stream is open in at least one direction."""
        return stream_id in self._streams

    def send_window(self, stream_id: int) -> int:
        """How many bytes the stream may send now; 0 for one that has ended."""
        state = self._streams.get(stream_id)
        return state.send_window if state else 0

    def send(self, stream_id: int, data: bytes) -> None:
        """Send `data`, which must fit into the window and one frame."""
        state = self._streams[stream_id]
        assert len(data) <= min(state.send_window, FRAME_PAYLOAD_BYTES_MAX)
        state.send_window -= len(data)
        self._frame(FrameType.DATA, Flag(0), stream_id, data)

    def finish(self, stream_id: int) -> None:
        """Half-close: send no more."""
        if (state := self._streams.get(stream_id)) and not state.finished_here:
            state.finished_here = True
            self._header(FrameType.WINDOW_UPDATE, Flag.FIN, stream_id, 0)
            self._forget_if_done(stream_id, state)

    def reset(self, stream_id: int) -> None:
        """End a stream in both directions."""
        if stream_id in self._streams:
            self._header(FrameType.WINDOW_UPDATE, Flag.RST, stream_id, 0)
            self._forget(stream_id)

    def credit(self, stream_id: int, size: int) -> None:
        """Grow the peer's window by `size`. An update is sent when half a window has collected."""
        if (state := self._streams.get(stream_id)) is None or state.finished_there:
            return
        state.uncredited += size
        if state.uncredited >= WINDOW_BYTES // 2:
            self._header(FrameType.WINDOW_UPDATE, Flag(0), stream_id, state.uncredited)
            state.receive_window += state.uncredited
            state.uncredited = 0

    def ping(self, opaque: int) -> None:
        """Send a ping."""
        self._header(FrameType.PING, Flag.SYN, 0, opaque)

    def go_away(self, code: int = 0) -> None:
        """Announce the end of the session: 0 normal, 1 protocol error, 2 internal error."""
        self._header(FrameType.GO_AWAY, Flag(0), 0, code)

    def receive(self, data: bytes, frames_max: int | None = None) -> list[Event]:
        """The events in `data`, which may be cut anywhere. Raises PeerMisbehavedError; the session has ended then.

        With `frames_max` further frames wait for the next call (`is_behind`). The payload of a frame is passed on as it
        arrives: never more than a header is kept.
        """
        buffer, offset, events, frames = self._input, 0, list[Event](), 0
        buffer += data
        while frames_max is None or frames < frames_max:
            if self._frame_left:
                size = min(self._frame_left, len(buffer) - offset)
                if not size:
                    break
                self._receive_data(bytes(buffer[offset : offset + size]), events)
                offset += size
                continue
            if len(buffer) - offset < HEADER_BYTES:
                break
            version, kind, flags, stream_id, length = _HEADER.unpack_from(buffer, offset)
            offset += HEADER_BYTES
            frames += 1
            if version != 0 or kind > FrameType.GO_AWAY:
                raise PeerMisbehavedError("bad_yamux", f"version {version}, type {kind}")
            self._receive_header(kind, flags, stream_id, length, events)
        del buffer[:offset]
        self.frames_taken = frames
        self.is_behind = frames == frames_max and len(buffer) >= (1 if self._frame_left else HEADER_BYTES)
        return events

    def _receive_header(self, kind: int, flags: int, stream_id: int, length: int, events: list[Event]) -> None:
        if kind == FrameType.PING:
            if flags & Flag.SYN:
                self._header(FrameType.PING, Flag.ACK, 0, length)
            else:
                events.append(PongReceived(length))
            return
        if kind == FrameType.GO_AWAY:
            events.append(GoAway(length))
            return
        if kind == FrameType.DATA and length > WINDOW_BYTES:
            raise PeerMisbehavedError("window_exceeded", f"a frame of {length} bytes")
        is_ours = not flags & Flag.SYN or self._accept(stream_id, events)
        # Bytes of a stream that has ended here, which the peer does not know yet, are dropped.
        state = self._streams.get(stream_id) if is_ours else None
        if kind == FrameType.DATA and length:
            if state:
                self._expect_data(state, length)
            else:
                self._droppable -= length
                if self._droppable < 0:
                    raise PeerMisbehavedError("window_exceeded", "bytes for streams that have ended")
            self._frame_left, self._frame_stream = length, stream_id if state else 0
            self._frame_flags = flags if state else 0
        elif state:
            if kind == FrameType.WINDOW_UPDATE and length:
                state.send_window = min(state.send_window + length, 0xFFFF_FFFF)
                events.append(WindowGrown(stream_id))
            self._receive_flags(state, flags, stream_id, events)

    def _expect_data(self, state: _State, length: int) -> None:
        if length > state.receive_window:
            raise PeerMisbehavedError("window_exceeded", f"{length} bytes into a window of {state.receive_window}")
        if state.finished_there:
            raise PeerMisbehavedError("bad_yamux", "data behind a FIN")
        state.receive_window -= length

    def _receive_data(self, piece: bytes, events: list[Event]) -> None:
        self._frame_left -= len(piece)
        if (state := self._streams.get(self._frame_stream)) is None:
            return
        events.append(DataReceived(self._frame_stream, piece))
        if not self._frame_left:
            self._receive_flags(state, self._frame_flags, self._frame_stream, events)

    def _receive_flags(self, state: _State, flags: int, stream_id: int, events: list[Event]) -> None:
        if flags & Flag.RST:
            self._forget(stream_id)
            events.append(StreamReset(stream_id))
        elif flags & Flag.FIN and not state.finished_there:
            state.finished_there = True
            events.append(StreamFinished(stream_id))
            self._forget_if_done(stream_id, state)

    def _accept(self, stream_id: int, events: list[Event]) -> bool:
        if stream_id % 2 == self._next_id % 2 or stream_id == 0 or stream_id in self._streams:
            raise PeerMisbehavedError("bad_yamux", f"a stream opened with id {stream_id}")
        if self._inbound >= STREAMS_INBOUND_MAX:
            self._droppable += WINDOW_BYTES
            self._header(FrameType.WINDOW_UPDATE, Flag.RST, stream_id, 0)
            return False
        self._inbound += 1
        self._streams[stream_id] = _State()
        self._header(FrameType.WINDOW_UPDATE, Flag.ACK, stream_id, 0)
        events.append(StreamOpened(stream_id))
        return True

    def _forget_if_done(self, stream_id: int, state: _State) -> None:
        if state.finished_here and state.finished_there:
            self._forget(stream_id)

    def _forget(self, stream_id: int) -> None:
        state = self._streams.pop(stream_id)
        if not state.finished_there:
            self._droppable += state.receive_window
        if stream_id % 2 != self._next_id % 2:
            self._inbound -= 1

    def _frame(self, kind: FrameType, flags: Flag, stream_id: int, payload: bytes) -> None:
        self._header(kind, flags, stream_id, len(payload))
        if payload:
            self._output.append(payload)

    def _header(self, kind: FrameType, flags: Flag, stream_id: int, length: int) -> None:
        self._output.append(_HEADER.pack(0, kind, flags, stream_id, length))
