"""The bytes of claim messages: protobuf's wire format, without generated code.

The first field is the kind. Parsing counts the fields that it looks at and stops at FIELDS_MAX. A field with another
number or wire type than expected is ignored, so that later versions may add some; a kind or a number that is not known
is a ClaimMessageError, and the caller handles the message as one without a claim. Lists are cut at their limits, bad
addresses are dropped alone.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping, Sequence
from enum import IntEnum
from typing import TypeVar

from speil.claims.message import (
    AVOIDED_MAX,
    DEAD_MAX,
    HOLDERS_MAX,
    PATH_MAX,
    ROWS_MAX,
    Alone,
    Ask,
    AskStatus,
    ClaimMessage,
    Defer,
    Ending,
    Fetch,
    Follow,
    Holders,
    Phase,
    Reason,
    Release,
    Row,
    Status,
    Tell,
    Why,
)
from speil.kad import wire_format as wire
from speil.kad.wire_format import WireError
from speil.multiformats import varint
from speil.multiformats.error import FormatError
from speil.multiformats.multiaddr import Multiaddr
from speil.multiformats.peer_id import PeerId
from speil.multiformats.peer_info import PeerInfo

MESSAGE_BYTES_MAX = 16 * 1024  # ROWS_MAX rows with two addresses are below 12 KiB
FIELDS_MAX = 1024  # looked at in one message, with those of its rows and peers
ADDRESSES_MAX = 2  # of one peer; more say nothing new inside a region
ADDRESS_BYTES_MAX = 64  # an IP address and a port
PEER_ID_BYTES_MAX = 44
ZONE_CHARACTERS_MAX = 63  # a zone is a label
NUMBER_MAX = (1 << 62) - 1
PLACES_MAX = 8


class _Kind(IntEnum):
    """The first field of a message."""

    ASK = 1
    FETCH = 2
    FOLLOW = 3
    HOLDERS = 4
    DEFER = 5
    ALONE = 6
    ASK_STATUS = 7
    STATUS = 8
    TELL = 9
    RELEASE = 10


_KINDS: Mapping[type[ClaimMessage], _Kind] = {
    Ask: _Kind.ASK,
    Fetch: _Kind.FETCH,
    Follow: _Kind.FOLLOW,
    Holders: _Kind.HOLDERS,
    Defer: _Kind.DEFER,
    Alone: _Kind.ALONE,
    AskStatus: _Kind.ASK_STATUS,
    Status: _Kind.STATUS,
    Tell: _Kind.TELL,
    Release: _Kind.RELEASE,
}


class ClaimMessageError(ValueError):
    """The bytes are not a claim message of a known kind: handle the DHT message as one without a claim."""


Number = TypeVar("Number", bound=IntEnum)


def encode(message: ClaimMessage) -> bytes:
    """The value of the claim field. Lists are cut at their limits."""
    return _number(1, _KINDS[type(message)]) + _body(message)


def decode(data: bytes) -> ClaimMessage:
    """From a peer's bytes. Raises ClaimMessageError."""
    if len(data) > MESSAGE_BYTES_MAX:
        raise ClaimMessageError(f"a claim message of {len(data)} bytes")
    try:
        return _Reader(data).message()
    except (WireError, FormatError) as error:
        raise ClaimMessageError(f"not a claim message: {error}") from error


def _number(number: int, value: int) -> bytes:
    return varint.encode(number << 3 | wire.VARINT) + varint.encode(min(max(value, 0), NUMBER_MAX)) if value else b""


def _bytes_field(number: int, value: bytes) -> bytes:
    return varint.encode(number << 3 | wire.BYTES) + varint.encode(len(value)) + value


def _peer(number: int, peer: PeerInfo) -> bytes:
    addresses = [data for one in peer.addresses if len(data := one.encode()) <= ADDRESS_BYTES_MAX][:ADDRESSES_MAX]
    zone = _bytes_field(3, peer.zone.encode()) if peer.zone else b""
    parts = (_bytes_field(1, peer.peer_id.multihash), *(_bytes_field(2, data) for data in addresses), zone)
    return _bytes_field(number, b"".join(parts))


def _row(row: Row) -> bytes:
    source = _bytes_field(4, row.source.multihash) if row.source else b""
    return _bytes_field(2, _peer(1, row.peer) + _number(2, row.phase) + _number(3, row.places) + source)


def _body(message: ClaimMessage) -> bytes:
    match message:
        case Ask():
            parts = [_number(2, message.reason)]
            parts += [_bytes_field(3, message.source.multihash)] if message.source else []
            parts += [_number(4, message.size_bytes), _number(5, message.rate), _number(6, message.link)]
            parts += [_bytes_field(7, peer.multihash) for peer in message.avoided[:AVOIDED_MAX]]
            parts += [_bytes_field(8, peer.multihash) for peer in message.dead[:DEAD_MAX]]
            return b"".join(parts)
        case Follow(peer) | Defer(peer):
            return _peer(2, peer)
        case Holders(peers):
            return b"".join(_peer(2, peer) for peer in peers[:HOLDERS_MAX])
        case Alone(why):
            return _number(2, why)
        case Status(phase, offset, path):
            tags = struct.pack(f"<{len(path[:PATH_MAX])}Q", *path[:PATH_MAX])
            return _number(2, phase) + _number(3, offset) + (_bytes_field(4, tags) if tags else b"")
        case Tell(rows):
            return b"".join(_row(row) for row in rows[:ROWS_MAX])
        case Release(ending):
            return _number(2, ending)
        case _:
            return b""


class _Reader:
    """Parses one message. `_left`: how many fields it may still look at."""

    def __init__(self, data: bytes) -> None:
        self._data, self._left = data, FIELDS_MAX

    def message(self) -> ClaimMessage:
        numbers: dict[int, int] = {}
        values: dict[int, list[tuple[int, int]]] = {}
        for number, kind, start, end in self._fields(0, len(self._data)):
            if kind == wire.VARINT:
                numbers[number] = start
            elif kind == wire.BYTES:
                values.setdefault(number, []).append((start, end))
        spans = values.get(2, [])
        match _known(_Kind, numbers.get(1, 0)):
            case _Kind.ASK:
                return self._ask(numbers, values)
            case _Kind.STATUS:
                phase = _known(Phase, numbers.get(2, 0))
                return Status(phase, _bounded(numbers.get(3, 0)), self._tags(values.get(4, [])))
            case _Kind.FOLLOW:
                return Follow(self._one_peer(spans))
            case _Kind.DEFER:
                return Defer(self._one_peer(spans))
            case _Kind.HOLDERS:
                self._one_peer(spans)
                return Holders(tuple(dict.fromkeys(self._peer(*span) for span in spans[:HOLDERS_MAX])))
            case _Kind.ALONE:
                return Alone(_known(Why, numbers.get(2, 0)))
            case _Kind.TELL:
                return Tell(tuple(self._row(*span) for span in spans[:ROWS_MAX]))
            case _Kind.RELEASE:
                return Release(_known(Ending, numbers.get(2, 0)))
            case _Kind.FETCH:
                return Fetch()
            case _Kind.ASK_STATUS:
                return AskStatus()

    def _fields(self, start: int, end: int) -> Iterator[tuple[int, int, int, int]]:
        for found in wire.fields(self._data, start, end):
            self._left -= 1
            if self._left < 0:
                raise ClaimMessageError(f"more than {FIELDS_MAX} fields")
            yield found

    def _ask(self, numbers: dict[int, int], values: dict[int, list[tuple[int, int]]]) -> Ask:
        sources = [self._peer_id(*span) for span in values.get(3, [])[:1]]
        return Ask(
            reason=_known(Reason, numbers.get(2, 0)),
            source=sources[0] if sources else None,
            size_bytes=_bounded(numbers.get(4, 0)),
            rate=_bounded(numbers.get(5, 0)),
            link=_bounded(numbers.get(6, 0)),
            avoided=tuple(self._peer_id(*span) for span in values.get(7, [])[:AVOIDED_MAX]),
            dead=tuple(self._peer_id(*span) for span in values.get(8, [])[:DEAD_MAX]),
        )

    def _one_peer(self, spans: Sequence[tuple[int, int]]) -> PeerInfo:
        if not spans:
            raise ClaimMessageError("an answer without a peer")
        return self._peer(*spans[0])

    def _peer_id(self, start: int, end: int) -> PeerId:
        if end - start > PEER_ID_BYTES_MAX:
            raise ClaimMessageError(f"a peer id of {end - start} bytes")
        return PeerId(self._data[start:end])

    def _peer(self, start: int, end: int) -> PeerInfo:
        peer_id: PeerId | None = None
        zone, looked_at = "", 0
        addresses: list[Multiaddr] = []
        for number, kind, first, last in self._fields(start, end):
            if kind != wire.BYTES:
                continue
            if number == 1:
                peer_id = self._peer_id(first, last)
            elif number == 2 and looked_at < ADDRESSES_MAX:
                looked_at += 1
                addresses += _address(self._data[first:last])
            elif number == 3 and last - first <= ZONE_CHARACTERS_MAX and self._data[first:last].isascii():
                zone = self._data[first:last].decode("ascii")
        if peer_id is None:
            raise ClaimMessageError("a peer without an id")
        return PeerInfo(peer_id, tuple(addresses), zone)

    def _row(self, start: int, end: int) -> Row:
        peer: PeerInfo | None = None
        source: PeerId | None = None
        phase, places = Phase.NONE, 0
        for number, kind, first, last in self._fields(start, end):
            match number, kind:
                case 1, wire.BYTES:
                    peer = self._peer(first, last)
                case 2, wire.VARINT:
                    phase = _known(Phase, first)
                case 3, wire.VARINT:
                    places = min(first, PLACES_MAX)
                case 4, wire.BYTES:
                    source = self._peer_id(first, last)
        if peer is None:
            raise ClaimMessageError("a row without a peer")
        return Row(peer, phase, places, source)

    def _tags(self, spans: list[tuple[int, int]]) -> tuple[int, ...]:
        for start, end in spans[:1]:
            if (end - start) % 8 or end - start > 8 * PATH_MAX:
                raise ClaimMessageError(f"a path of {end - start} bytes")
            return struct.unpack_from(f"<{(end - start) // 8}Q", self._data, start)
        return ()


def _known(kind: type[Number], value: int) -> Number:
    try:
        return kind(value)
    except ValueError:
        raise ClaimMessageError(f"{kind.__name__} {value}") from None


def _bounded(value: int) -> int:
    return min(value, NUMBER_MAX)


def _address(data: bytes) -> list[Multiaddr]:
    if len(data) > ADDRESS_BYTES_MAX:
        return []
    try:
        address = Multiaddr.decode(data).without_peer_id
    except FormatError:
        return []
    return [address] if address.tcp else []
