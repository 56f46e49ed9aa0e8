"""The key space: 256 bits, distance by XOR.

Peers and content share it: a peer stands at SHA-256 of its id's multihash, content at SHA-256 of its key's multihash
(libp2p kad-dht spec, "Kademlia keyspace").
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from speil.multiformats.content_key import content_key

BITS = 256
_PLACE_BITS = 64


def position(multihash: bytes) -> int:
    """Where a peer id or content key stands."""
    return int.from_bytes(hashlib.sha256(multihash).digest(), "big")


def place(multihash: bytes) -> int:
    """The first 64 bits of a position: eight bytes tell a key well enough.

    Two of a hundred thousand keys fall together once in four billion meshes, and forging a key to fall together with
    another gains nothing: whoever wants to be among a key's providers can announce that key itself.
    """
    return position(multihash) >> BITS - _PLACE_BITS


def common_prefix_length(first: int, second: int) -> int:
    """How many leading bits two positions share, 0 to 256."""
    return BITS - (first ^ second).bit_length()


@dataclass(frozen=True, slots=True)
class Key:
    """A key that this node announces: its name, and where it stands."""

    name: str
    position: int

    @classmethod
    def of(cls, name: str) -> Key:
        """The key of a digest or an image name."""
        return cls(name, position(content_key(name)))

    @property
    def multihash(self) -> bytes:
        """What it is on the wire."""
        return content_key(self.name)

    @property
    def place(self) -> int:
        """See `place`."""
        return self.position >> BITS - _PLACE_BITS
