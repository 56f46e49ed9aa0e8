"""Peer ids (libp2p peer-ids spec): the multihash of a node's public key.

A key of up to 42 bytes, such as every Ed25519 key, is part of the id itself (identity hash); a longer one is hashed
with SHA-256. The text form is base58 of the multihash: `12D3KooW…` or `Qm…`.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from speil.multiformats import base58, varint
from speil.multiformats.error import FormatError

INLINE_KEY_BYTES_MAX = 42  # spec: longer keys are hashed
IDENTITY, SHA2_256 = 0x00, 0x12


@dataclass(frozen=True, slots=True, order=True)
class PeerId:
    """A peer id, by its multihash bytes. Compares and hashes by value; `str()` gives base58."""

    multihash: bytes

    def __post_init__(self) -> None:
        code, offset = varint.take(self.multihash, 0)
        size, offset = varint.take(self.multihash, offset)
        if size != len(self.multihash) - offset:
            raise FormatError("peer id: the multihash has the wrong length")
        if not ((code == IDENTITY and 0 < size <= INLINE_KEY_BYTES_MAX) or (code == SHA2_256 and size == 32)):
            raise FormatError(f"peer id: multihash code {code:#x} with {size} bytes")

    @classmethod
    def parse(cls, text: str) -> PeerId:
        """From base58 text. Raises FormatError."""
        return cls(base58.decode(text))

    @classmethod
    def of_public_key(cls, encoded: bytes) -> PeerId:
        """From the protobuf `PublicKey` encoding of a key."""
        if len(encoded) <= INLINE_KEY_BYTES_MAX:
            return cls(bytes((IDENTITY, len(encoded))) + encoded)
        return cls(bytes((SHA2_256, 32)) + hashlib.sha256(encoded).digest())

    @property
    def inline_public_key(self) -> bytes | None:
        """The protobuf `PublicKey` that the id contains; None for a hashed one."""
        return self.multihash[2:] if self.multihash[0] == IDENTITY else None

    @property
    def short(self) -> str:
        """The last eight characters, for log lines and errors."""
        return str(self)[-8:]

    def __str__(self) -> str:
        return base58.encode(self.multihash)
