"""The key space: 256 bits, distance by XOR.

Peers and content share it: the position of a peer is the SHA-256 of its id's multihash, that of content the SHA-256 of
its key's multihash (libp2p kad-dht spec, "Kademlia keyspace").
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from speil.multiformats.content_key import content_key

BITS = 256
_PLACE_BITS = 64


def position(multihash: bytes) -> int:
    """The position of a peer id or content key."""
    return int.from_bytes(hashlib.sha256(multihash).digest(), "big")


def place(multihash: bytes) -> int:
    """The first 64 bits of a position, which are enough to identify a key.

    Two of a hundred thousand keys collide once in four billion meshes. To forge a key that collides gains nothing: a
    peer that wants to be among a key's providers can announce that key itself.
    """
    return position(multihash) >> BITS - _PLACE_BITS


def common_prefix_length(first: int, second: int) -> int:
    """How many leading bits two positions share, 0 to 256."""
    return BITS - (first ^ second).bit_length()


@dataclass(frozen=True, slots=True)
class Key:
    """A key that this node announces: its name and its position."""

    name: str
    position: int

    @classmethod
    def of(cls, name: str) -> Key:
        """The key of a digest or an image name."""
        return cls(name, position(content_key(name)))

    @property
    def multihash(self) -> bytes:
        """The key in DHT messages."""
        return content_key(self.name)

    @property
    def place(self) -> int:
        """See `place`."""
        return self.position >> BITS - _PLACE_BITS
