"""identify (libp2p identify spec): the protocols and addresses that a peer advertises.

It is requested once for each connection; a push announces changes. An answer may consist of several messages, which are
merged (go-libp2p sends a large signed record separately).
"""

from __future__ import annotations

from dataclasses import dataclass

from google.protobuf.message import DecodeError

from speil.libp2p import signed_record
from speil.libp2p._pb import identify_pb2
from speil.libp2p.error import PeerMisbehavedError
from speil.libp2p.identity import Identity
from speil.libp2p.stream import Stream
from speil.multiformats.error import FormatError
from speil.multiformats.multiaddr import Multiaddr

PROTOCOL, PUSH_PROTOCOL = "/ipfs/id/1.0.0", "/ipfs/id/push/1.0.0"
PROTOCOL_VERSION = "ipfs/0.1.0"
MESSAGE_BYTES_MAX = 32 * 1024  # of all messages; go-libp2p's is 8 KiB for each, and real hosts need under 4 KiB
MESSAGES_MAX = 10  # go-libp2p's bound
ADDRESSES_MAX = 16  # of one peer; real ones list up to ten
PROTOCOLS_MAX = 128  # real ones list up to thirty
PROTOCOL_CHARACTERS_MAX = 256  # limits what is stored for each peer; no known protocol has a longer name


@dataclass(frozen=True, slots=True)
class Identification:
    """What a peer advertises. `addresses` has those that could be parsed."""

    protocols: frozenset[str]
    addresses: tuple[Multiaddr, ...]
    agent_version: str = ""


def answer(
    identity: Identity,
    protocols: list[str],
    addresses: tuple[Multiaddr, ...],
    observed: Multiaddr,
    agent_version: str,
    sequence: int,
) -> bytes:
    """This node's identify message. `observed` is where the peer's packets come from; `sequence` grows."""
    return identify_pb2.Identify(
        public_key=identity.public_key,
        listen_addrs=[address.encode() for address in addresses],
        protocols=protocols,
        observed_addr=observed.encode(),
        protocol_version=PROTOCOL_VERSION,
        agent_version=agent_version,
        signed_peer_record=signed_record.seal(identity, addresses, sequence),
    ).SerializeToString()


async def read(stream: Stream) -> Identification:
    """The peer's messages up to the end of the stream, merged. Raises PeerMisbehavedError and other Libp2pErrors."""
    merged, left = identify_pb2.Identify(), MESSAGE_BYTES_MAX
    for _ in range(MESSAGES_MAX):
        if (data := await stream.read_message(left)) is None:
            break
        left -= len(data)
        try:
            merged.MergeFromString(data)
        except DecodeError as error:
            raise PeerMisbehavedError("bad_identify", "a malformed message") from error
    encoded = list(merged.listen_addrs)
    if merged.signed_peer_record:
        encoded = signed_record.open_record(merged.signed_peer_record, stream.peer_id)
    return Identification(
        frozenset(name for name in merged.protocols[:PROTOCOLS_MAX] if len(name) <= PROTOCOL_CHARACTERS_MAX),
        tuple(address for data in encoded[:ADDRESSES_MAX] if (address := _address(data))),
        merged.agent_version[:128],
    )


def _address(data: bytes) -> Multiaddr | None:
    try:
        return Multiaddr.decode(data).without_peer_id
    except FormatError:
        return None  # an unknown protocol: only this address is dropped
