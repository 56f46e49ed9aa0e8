"""The key space: 256 bits, distance by XOR.

Peers and content share it: a peer stands at SHA-256 of its id's multihash, content at SHA-256 of its key's multihash
(libp2p kad-dht spec, "Kademlia keyspace").
"""

from __future__ import annotations

import hashlib

BITS = 256


def position(multihash: bytes) -> int:
    """Where a peer id or content key stands."""
    return int.from_bytes(hashlib.sha256(multihash).digest(), "big")


def common_prefix_length(first: int, second: int) -> int:
    """How many leading bits two positions share, 0 to 256."""
    return BITS - (first ^ second).bit_length()
