"""The key of a provider record: the multihash of a name.

Spegel's rule, so that both can share one mesh: CIDv1, raw codec, sha2-256 of the text `sha256:<hex>` or
`registry/repository:tag`. On the wire go-libp2p's DHT uses the CID's multihash alone, 34 bytes.
"""

from __future__ import annotations

import hashlib


def content_key(name: str) -> bytes:
    """The 34-byte multihash (0x12 0x20 + SHA-256) of a digest string or image name."""
    return b"\x12\x20" + hashlib.sha256(name.encode()).digest()
