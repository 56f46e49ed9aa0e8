"""The answer before it is sent: status, headers, and a short body or an opened source. No IO.

An error is an empty answer: containerd then keeps its connection and goes upstream at once. A 401 has no challenge:
containerd would answer it with the user's registry credentials.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from speil.mirror.asked import Asked
from speil.oci.byte_range import UnsatisfiableError
from speil.oci.error import ErrorCode, envelope
from speil.sources.base import Notes, Opened
from speil.sources.peer_client import BUSY_HEADER

RETRY_AFTER_SECONDS = 1  # by then a place is likely free: a layer takes about that long
_JSON = (("Content-Type", "application/json"),)
_TEXT = (("Content-Type", "text/plain; charset=utf-8"),)


@dataclass(frozen=True, slots=True)
class Plan:
    """One answer. With `opened` the `length` bytes of the body come from there, else `body` is all of it."""

    status: int
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes = b""
    opened: Opened | None = None
    length: int = 0


def _short(status: int, headers: tuple[tuple[str, str], ...], body: bytes) -> Plan:
    return Plan(status, headers, body, length=len(body))


OK = Plan(200)
NOT_FOUND = Plan(404)
NOT_READY = _short(500, _TEXT, b"not ready: no decision about bootstrap yet, see the log\n")
UNAUTHORIZED = _short(401, _JSON, envelope(ErrorCode.UNAUTHORIZED, "invalid credentials"))


def serve(opened: Opened, asked: Asked, node_headers: Mapping[str, str]) -> Plan:
    """Content; `node_headers` are those that each answer of this node carries (region, zone)."""
    headers = {"Content-Type": opened.media_type, "Docker-Content-Digest": str(opened.digest), **node_headers}
    if asked.content.registry:
        headers["OCI-Namespace"] = asked.content.registry
    if not asked.content.is_manifest:
        headers["Accept-Ranges"] = "bytes"
    if opened.part:
        headers["Content-Range"] = opened.part.content_range
    status = 206 if opened.part else 200
    return Plan(status, (*headers.items(), *opened.headers), opened=opened, length=opened.length)


def miss(asked: Asked, notes: Notes) -> Plan:
    """Nobody has it: an empty 404 for containerd and peers, one with the reason for people."""
    if asked.from_peer or asked.is_containerd:
        return NOT_FOUND
    code = ErrorCode.MANIFEST_UNKNOWN if asked.content.is_manifest else ErrorCode.BLOB_UNKNOWN
    message = f"could not find peer for {asked.content.key}: {notes.miss}"
    return _short(404, _JSON, envelope(code, message, {"attempts": notes.attempts}))


def unsatisfiable(error: UnsatisfiableError) -> Plan:
    """The range is behind the end of the content."""
    return Plan(416, (("Content-Range", error.content_range), ("Accept-Ranges", "bytes")))


def busy(reason: str) -> Plan:
    """A peer is to ask elsewhere. The reason is in a header: a body would cost the peer its connection."""
    return Plan(503, (("Retry-After", str(RETRY_AFTER_SECONDS)), (BUSY_HEADER, reason)))
