"""HMAC-SHA256 over a list of strings, in hex. Two different lists never give the same input bytes."""

from __future__ import annotations

import hmac
from collections.abc import Iterable


def mac(key: bytes, *parts: str) -> str:
    """The MAC of `parts` in this order: 64 hex digits."""
    # a length before each part keeps the parts apart; a request line may hold any byte
    coded = (part.encode("utf-8", "surrogateescape") for part in parts)
    return hmac.digest(key, b"".join(b"%d:%s" % (len(part), part) for part in coded), "sha256").hex()


def signer(given: str, macs: Iterable[str]) -> int | None:
    """The index of the first of `macs` that equals `given`; None: none does. Takes the same time in all cases."""
    found: int | None = None
    for number, one in enumerate(macs):
        if hmac.compare_digest(given, one) and found is None:
            found = number
    return found
