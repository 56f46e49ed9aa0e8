"""The DHT's messages (libp2p kad-dht spec, "RPC messages"), typed.

Bytes from a peer are checked once, here. A bad message is a MessageError; a bad address is dropped alone. Messages that
are sent have the same limits. Parsing counts the fields that it looks at, not those that it keeps, and stops at
FIELDS_MAX: a message of empty peers or bad addresses costs no more than an honest one.

Four fields are speil's own, with numbers that other implementations ignore. `places` names many keys by eight bytes
each. `horizon_seconds` and `counts` are the question how many providers these have, and its answer. `claim` is a
message of `claims` about the key, as bytes. A peer that does not know the fields answers the rest of the message.
Records for `places` and messages with nothing but a claim are sent only to peers that advertise them.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from functools import lru_cache
from itertools import islice

from speil.kad import wire_format as wire
from speil.kad._pb import dht_pb2
from speil.kad.key import Key
from speil.kad.wire_format import WireError, fields
from speil.multiformats.error import FormatError
from speil.multiformats.multiaddr import Multiaddr
from speil.multiformats.peer_id import PeerId
from speil.multiformats.peer_info import PeerInfo

MESSAGE_BYTES_MAX = 4 << 20  # go-libp2p-kad-dht resets the stream at this size
REQUEST_BYTES_MAX = 64 * 1024  # PLACES_MAX places are 32 KiB, all else is a few hundred bytes
ANSWER_BYTES_MAX = 1 << 20  # go-libp2p names all providers of a key: a hundred bytes for each node of a large mesh
FIELDS_MAX = 1024  # parsed in one message, with those of its peers: some milliseconds
KEY_BYTES_MAX = 80  # go-libp2p-kad-dht's bound for provider keys
PEERS_MAX = 100  # in one list; honest answers hold k = 20 closer peers, and more providers
ADDRESSES_MAX = 16  # of one peer in a list, good and bad together
PLACES_MAX = 4096  # in one message: 32 KiB; a new node gets all keys of another at once
PLACES_ASKED_MAX = 512  # in one question; speil names up to 500
CLAIM_BYTES_MAX = 16 * 1024  # the limit of `claims.codec`
PEER_FIELDS_MAX = ADDRESSES_MAX + 4  # parsed in one peer: its id, connection type, zone and addresses
ADDRESS_FIELDS = 4  # an address counts as this many fields, because parsing it takes as long
ADDRESS_BYTES_MAX = 320  # a name of 255 characters and the other components
PEERS_KEPT_MAX = 512  # parsed ones: each answer names the same nodes of a region; two MiB at most
KEPT_BYTES_MAX = 128  # of such a peer: an id and a few addresses
ZONE_CHARACTERS_MAX = 63  # a zone is a label
_COUNT_MAX = 255  # one byte; a few dozen providers are enough


class MessageError(ValueError):
    """The peer sent bytes that are not a DHT message: reset the stream."""


class MessageType(IntEnum):
    """The spec's numbers. The two value types get an empty answer."""

    PUT_VALUE = 0
    GET_VALUE = 1
    ADD_PROVIDER = 2
    GET_PROVIDERS = 3
    FIND_NODE = 4
    PING = 5


_TYPES = {kind.value: kind for kind in MessageType}


@dataclass(frozen=True, slots=True)
class Message:
    """One message; `key` is a content key or, for FIND_NODE, a peer id's multihash.

    `counts` are pairs, one for each of the question's places: providers in all, and in the asker's zone. `claim` is
    b"" where there is none.
    """

    type: MessageType
    key: bytes = b""
    closer_peers: tuple[PeerInfo, ...] = ()
    provider_peers: tuple[PeerInfo, ...] = ()
    places: tuple[int, ...] = ()
    horizon_seconds: int = 0
    counts: tuple[tuple[int, int], ...] = ()
    claim: bytes = b""

    def encode(self) -> bytes:
        """The protobuf bytes, without the length in front."""
        return dht_pb2.Message(
            type=self.type.value,  # type: ignore[arg-type]  # the enum's stub type is the generated module's own
            key=self.key,
            closer_peers=[_encode_peer(peer) for peer in self.closer_peers],
            provider_peers=[_encode_peer(peer) for peer in self.provider_peers],
            places=self.places,
            horizon_seconds=self.horizon_seconds,
            counts=bytes(min(count, _COUNT_MAX) for pair in self.counts for count in pair),
            claim=self.claim,
        ).SerializeToString()

    @classmethod
    def decode(cls, data: bytes) -> Message:
        """From a peer's bytes. Lists that are too long are cut at their limits. Raises MessageError."""
        if len(data) > MESSAGE_BYTES_MAX:
            raise MessageError(f"a message of {len(data)} bytes")
        try:
            return _Reader(data).read()
        except WireError as error:
            raise MessageError(f"not a DHT message: {error}") from error


def announcements(provider: PeerInfo, keys: Sequence[Key], *, packed: bool) -> list[Message]:
    """ADD_PROVIDERs for `keys`: one for each, or with `packed` few, for peers that understand places."""
    if not packed:
        return [Message(MessageType.ADD_PROVIDER, key.multihash, provider_peers=(provider,)) for key in keys]
    parts = [keys[start : start + PLACES_MAX + 1] for start in range(0, len(keys), PLACES_MAX + 1)]
    return [
        Message(
            MessageType.ADD_PROVIDER,
            part[0].multihash,
            provider_peers=(provider,),
            places=tuple(key.place for key in part[1:]),
        )
        for part in parts
    ]


def _encode_peer(peer: PeerInfo) -> dht_pb2.Message.Peer:
    addresses = [address.encode() for address in peer.addresses[:ADDRESSES_MAX]]
    return dht_pb2.Message.Peer(
        id=peer.peer_id.multihash, addrs=addresses, connection=dht_pb2.Message.CONNECTED, zone=peer.zone
    )


class _Reader:
    """Parses one message. `_left`: how many fields it may still look at."""

    def __init__(self, data: bytes) -> None:
        self._data, self._left = data, FIELDS_MAX

    def read(self) -> Message:
        data, number, key, horizon = self._data, 0, b"", 0
        places: list[int] = []
        counts = claim = b""
        closer, providers = dict[PeerId, PeerInfo](), dict[PeerId, PeerInfo]()
        for field, kind, start, end in fields(data, 0, len(data)):
            if self._left <= 0:
                break
            self._left -= 1
            match field, kind:
                case 1, wire.VARINT:
                    number = start
                case 2, wire.BYTES:
                    if end - start > KEY_BYTES_MAX:
                        raise MessageError(f"a key of {end - start} bytes")
                    key = data[start:end]
                case 8, wire.BYTES:
                    self._take_peer(closer, start, end)
                case 9, wire.BYTES:
                    self._take_peer(providers, start, end)
                case 5001, (wire.BYTES | wire.FIXED64):
                    if (end - start) % 8 or len(places) + (end - start) // 8 > PLACES_MAX:
                        raise MessageError(f"{end - start} bytes of places")
                    places += struct.unpack_from(f"<{(end - start) // 8}Q", data, start)
                case 5002, wire.VARINT:
                    horizon = start & 0xFFFF_FFFF
                case 5003, wire.BYTES:
                    if end - start > 2 * PLACES_MAX:
                        raise MessageError(f"{end - start} bytes of counts")
                    counts = data[start:end]
                case 5004, wire.BYTES:
                    if end - start > CLAIM_BYTES_MAX:
                        raise MessageError(f"a claim of {end - start} bytes")
                    claim = data[start:end]
        if number not in _TYPES:
            raise MessageError(f"a message of type {number}")
        if number == MessageType.GET_PROVIDERS and len(places) > PLACES_ASKED_MAX:
            raise MessageError(f"a question about {len(places)} places")
        pairs = tuple(zip(counts[::2], counts[1::2], strict=False))
        peers = tuple(closer.values()), tuple(providers.values())
        return Message(_TYPES[number], key, *peers, tuple(places), horizon, pairs, claim)

    def _take_peer(self, found: dict[PeerId, PeerInfo], start: int, end: int) -> None:
        """Parse one peer of a list. A repeated peer is ignored."""
        if len(found) >= PEERS_MAX:
            return
        data = self._data[start:end]
        peer, looked_at = _kept_peer(data) if len(data) <= KEPT_BYTES_MAX else _peer(data)
        self._left -= looked_at
        if peer is not None:
            found.setdefault(peer.peer_id, peer)


def _peer(data: bytes) -> tuple[PeerInfo | None, int]:
    """A peer, None where its id is bad; and what it counts as, in fields."""
    peer_id, zone, looked_at = b"", "", 0
    addresses: list[Multiaddr] = []
    for field, kind, first, last in islice(fields(data, 0, len(data)), PEER_FIELDS_MAX):
        looked_at += 1
        if field == 1 and kind == wire.BYTES:
            peer_id = data[first:last] if last - first <= KEY_BYTES_MAX else b""
        elif field == 2 and kind == wire.BYTES and last - first <= ADDRESS_BYTES_MAX:
            looked_at += ADDRESS_FIELDS - 1
            if address := _address(data[first:last]):
                addresses.append(address)
        elif field == 5001 and kind == wire.BYTES and last - first <= ZONE_CHARACTERS_MAX:
            zone = data[first:last].decode("ascii") if data[first:last].isascii() else ""
    try:
        return PeerInfo(PeerId(peer_id), tuple(addresses[:ADDRESSES_MAX]), zone), looked_at
    except FormatError:
        return None, looked_at


_kept_peer = lru_cache(PEERS_KEPT_MAX)(_peer)


def _address(data: bytes) -> Multiaddr | None:
    try:
        address = Multiaddr.decode(data).without_peer_id
    except FormatError:
        return None
    return address if address.tcp else None
