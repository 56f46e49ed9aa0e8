"""The DHT's messages (libp2p kad-dht spec, "RPC messages"), typed.

Bytes from a peer are checked once, here: a bad message is a MessageError, an address that can't be understood is
dropped alone. What is sent is bounded the same way.

Three fields are speil's own, numbered so that others pass over them: `places` names many keys by eight bytes each,
`horizon_seconds` and `counts` are the question how many providers they have, and its answer. A peer that does not
know them answers the rest of the message. Records for `places` are sent only to peers that say they take them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import IntEnum

from google.protobuf.message import DecodeError

from speil.kad._pb import dht_pb2
from speil.kad.key import Key
from speil.multiformats.error import FormatError
from speil.multiformats.multiaddr import Multiaddr
from speil.multiformats.peer_id import PeerId
from speil.multiformats.peer_info import PeerInfo

MESSAGE_BYTES_MAX = 4 << 20  # go-libp2p-kad-dht resets the stream at this size
KEY_BYTES_MAX = 80  # go-libp2p-kad-dht's bound for provider keys
PEERS_MAX = 100  # in one list; honest answers hold k = 20 closer peers, and more providers
ADDRESSES_MAX = 16  # of one peer in a list
PLACES_MAX = 4096  # in one message: 32 KiB; questions are a few hundred, a newcomer is told all that a node has
ZONE_CHARACTERS_MAX = 63  # a zone is a label
_COUNT_MAX = 255  # it goes into a byte; who asks wants to know about a few dozen


class MessageError(ValueError):
    """The peer sent bytes that are no DHT message: it erred; reset the stream."""


class MessageType(IntEnum):
    """The spec's numbers; the two value types are answered with an empty message."""

    PUT_VALUE = 0
    GET_VALUE = 1
    ADD_PROVIDER = 2
    GET_PROVIDERS = 3
    FIND_NODE = 4
    PING = 5


@dataclass(frozen=True, slots=True)
class Message:
    """One message; `key` is a content key or, for FIND_NODE, a peer id's multihash.

    `counts` are pairs, one for each of the question's places: providers in all, and in the asker's zone.
    """

    type: MessageType
    key: bytes = b""
    closer_peers: tuple[PeerInfo, ...] = ()
    provider_peers: tuple[PeerInfo, ...] = ()
    places: tuple[int, ...] = ()
    horizon_seconds: int = 0
    counts: tuple[tuple[int, int], ...] = ()

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
        ).SerializeToString()

    @classmethod
    def decode(cls, data: bytes) -> Message:
        """Raises MessageError."""
        try:
            message = dht_pb2.Message.FromString(data)
            kind = MessageType(message.type)
        except (DecodeError, ValueError) as error:
            raise MessageError("not a DHT message") from error
        if len(message.key) > KEY_BYTES_MAX:
            raise MessageError(f"a key of {len(message.key)} bytes")
        if len(message.places) > PLACES_MAX or len(message.counts) > 2 * PLACES_MAX:
            raise MessageError(f"{len(message.places)} places, {len(message.counts)} bytes of counts")
        return cls(
            kind,
            message.key,
            _decode_peers(message.closer_peers),
            _decode_peers(message.provider_peers),
            tuple(message.places),
            message.horizon_seconds,
            tuple(zip(message.counts[::2], message.counts[1::2], strict=False)),
        )


def announcements(provider: PeerInfo, keys: Sequence[Key], *, packed: bool) -> list[Message]:
    """ADD_PROVIDERs for `keys`: one for each, or `packed` for peers that take places."""
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


def _decode_peers(peers: Iterable[dht_pb2.Message.Peer]) -> tuple[PeerInfo, ...]:
    found: list[PeerInfo] = []
    for peer in peers:
        if len(found) == PEERS_MAX:
            break
        try:
            zone = peer.zone if len(peer.zone) <= ZONE_CHARACTERS_MAX else ""
            found.append(PeerInfo(PeerId(peer.id), _decode_addresses(peer.addrs), zone))
        except FormatError:
            continue
    return tuple(found)


def _decode_addresses(encoded: Iterable[bytes]) -> tuple[Multiaddr, ...]:
    found: list[Multiaddr] = []
    for data in encoded:
        if len(found) == ADDRESSES_MAX:
            break
        try:
            address = Multiaddr.decode(data).without_peer_id
        except FormatError:
            continue
        if address.tcp:
            found.append(address)
    return tuple(found)
