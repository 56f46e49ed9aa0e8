"""Digests (OCI image spec, "Digests"): `algorithm:hex`, the address of content."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass

# registered algorithms, and the length of their hex form
_HEX_CHARS = {"sha256": 64, "sha512": 128}
_GRAMMAR = re.compile(r"([a-z0-9]+):([a-f0-9]+)", re.ASCII)


class DigestError(ValueError):
    """The text is not a digest of a registered algorithm (spec code DIGEST_INVALID)."""


@dataclass(frozen=True, slots=True, order=True)
class Digest:
    """A content address. `str()` gives `sha256:<64 hex characters>`."""

    algorithm: str
    hex: str

    @classmethod
    def parse(cls, text: str) -> Digest:
        """Parse `sha256:…` or `sha512:…`. Raises DigestError for other algorithms, wrong lengths and upper case."""
        match = _GRAMMAR.fullmatch(text)
        if match is None or _HEX_CHARS.get(match[1]) != len(match[2]):
            raise DigestError(f"not a digest: {text[:150]!r}")
        return cls(match[1], match[2])

    @classmethod
    def of(cls, data: bytes, algorithm: str = "sha256") -> Digest:
        """Hash `data`; `algorithm` is sha256 or sha512."""
        return cls(algorithm, hashlib.new(algorithm, data).hexdigest())

    def matches(self, data: bytes | bytearray) -> bool:
        """Whether `data` has this digest."""
        return hashlib.new(self.algorithm, data).hexdigest() == self.hex

    @property
    def short(self) -> str:
        """The first twelve hex characters, for display."""
        return self.hex[:12]

    def __str__(self) -> str:
        return f"{self.algorithm}:{self.hex}"
