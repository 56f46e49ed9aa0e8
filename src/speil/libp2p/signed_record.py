"""Signed peer records (libp2p RFC 0002 and 0003): addresses with the signature of the peer."""

from __future__ import annotations

from google.protobuf.message import DecodeError

from speil.libp2p._pb import peer_record_pb2
from speil.libp2p.error import PeerMisbehavedError
from speil.libp2p.identity import Identity
from speil.libp2p.public_key import verify
from speil.multiformats import varint
from speil.multiformats.error import FormatError
from speil.multiformats.multiaddr import Multiaddr
from speil.multiformats.peer_id import PeerId

DOMAIN = b"libp2p-peer-record"
PAYLOAD_TYPE = b"\x03\x01"


def seal(identity: Identity, addresses: tuple[Multiaddr, ...], sequence: int) -> bytes:
    """This node's addresses in a signed envelope. A record with a higher `sequence` replaces an earlier one."""
    record = peer_record_pb2.PeerRecord(
        peer_id=identity.peer_id.multihash,
        seq=sequence,
        addresses=[peer_record_pb2.PeerRecord.AddressInfo(multiaddr=address.encode()) for address in addresses],
    ).SerializeToString()
    return peer_record_pb2.Envelope(
        public_key=identity.public_key,
        payload_type=PAYLOAD_TYPE,
        payload=record,
        signature=identity.sign(_signed(PAYLOAD_TYPE, record)),
    ).SerializeToString()


def open_record(envelope: bytes, peer_id: PeerId) -> list[bytes]:
    """The binary addresses in `peer_id`'s envelope. Raises PeerMisbehavedError."""
    try:
        message = peer_record_pb2.Envelope.FromString(envelope)
        record = peer_record_pb2.PeerRecord.FromString(message.payload)
        signer = PeerId.of_public_key(message.public_key)
    except (DecodeError, FormatError) as error:
        raise PeerMisbehavedError("bad_identify", "a malformed peer record") from error
    if message.payload_type != PAYLOAD_TYPE or signer != peer_id or record.peer_id != peer_id.multihash:
        raise PeerMisbehavedError("bad_identify", "a record of another peer")
    verify(message.public_key, message.signature, _signed(message.payload_type, message.payload))
    return [entry.multiaddr for entry in record.addresses]


def _signed(payload_type: bytes, payload: bytes) -> bytes:
    return b"".join(varint.encode(len(part)) + part for part in (DOMAIN, payload_type, payload))
