"""The proof of a response: the server has the region's secret, and this is its response to this request.

The proof is a MAC over the request's token (which is for one request, one peer and one nonce), the status, and every
header that a peer acts on. The body is not covered: content is verified against its digest, which is covered.

    X-Speil-Proof:  <mac>     64 hex digits
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from speil.region.mac import mac, signer

PROOF_HEADER = "X-Speil-Proof"
_BOUND = frozenset(
    {
        "content-encoding",
        "content-length",
        "content-range",
        "content-type",
        "docker-content-digest",
        "retry-after",
        "transfer-encoding",
    }
)
_OURS = "x-speil-"  # region, label, zone, images, the reason of a 503, and headers of later versions


def bound(headers: Iterable[tuple[str, str]]) -> dict[str, str]:
    """The headers that a proof covers, names in lower case; several values of one name are joined by a comma."""
    found: dict[str, str] = {}
    for name, value in headers:
        low = name.lower()
        if low in _BOUND or (low.startswith(_OURS) and low != PROOF_HEADER.lower()):
            found[low] = f"{found[low]}, {value}" if low in found else value
    return found


def sign_answer(key: bytes, token: str, status: int, headers: Mapping[str, str]) -> str:
    """The proof of the response to the request with this token; `headers` are the result of `bound`."""
    parts = (part for name in sorted(headers) for part in (name, headers[name]))
    return mac(key, token, str(status), *parts)


def proves(keys: Iterable[bytes], proof: str, token: str, status: int, headers: Mapping[str, str]) -> bool:
    """Whether the proof of a response is valid; arguments as for `sign_answer`."""
    given = proof if proof.isascii() else ""  # hmac raises for other strings
    return signer(given, (sign_answer(key, token, status, headers) for key in keys)) is not None
