"""Tokens of the HTTP plane: proof that whoever asks holds the region's secret.

A peer's token is for one request: method, target, the peer that is asked, the time and a nonce. It can't be used for
other content, at another node, after a minute, or twice. A node's token stands in containerd's hosts.toml and names
the node; it keeps neighbours of the node from reading what the node holds.

    X-Speil-Token:       <issued>.<nonce>.<mac>     seconds since 1970, 16 and 64 hex digits
    X-Speil-Node-Token:  <node>.<mac>
"""

from __future__ import annotations

import hmac
import re
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass

TOKEN_SECONDS_MAX = 60  # a token's age, and how far the clocks of two nodes may differ
NONCES_MAX = 1 << 16  # remembered: five hundred requests a second for two minutes, about 8 MiB
NONCE_CHARS = 16
_PEER_TOKEN = re.compile(rf"(\d{{1,12}})\.([0-9a-f]{{{NONCE_CHARS}}})\.([0-9a-f]{{64}})", re.ASCII)
_NODE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9.-]{0,252}", re.ASCII)
_NODE_TOKEN = re.compile(rf"({_NODE_NAME.pattern})\.([0-9a-f]{{64}})", re.ASCII)


@dataclass(frozen=True, slots=True)
class Request:
    """What a peer's token is for: method, target as on the request line, and who is asked (a peer id)."""

    method: str
    target: str
    audience: str


def sign_request(key: bytes, request: Request, *, issued: int, nonce: str) -> str:
    """The token for a request."""
    return f"{issued}.{nonce}.{_request_mac(key, request, str(issued), nonce)}"


def is_node_name(name: str) -> bool:
    """Whether a token can name a node so: letters, digits, '.' and '-', as host names have."""
    return _NODE_NAME.fullmatch(name) is not None


def sign_node(key: bytes, node: str) -> str:
    """The token of a node."""
    return f"{node}.{_node_mac(key, node)}"


def check_node(keys: Iterable[bytes], token: str) -> str | None:
    """Why a node's token does not count; None where it does."""
    if (match := _NODE_TOKEN.fullmatch(token)) is None:
        return "malformed" if token else "missing"
    node, mac = match.groups()
    return None if _any_equal(mac, [_node_mac(key, node) for key in keys]) else "wrong"


class RequestTokens:
    """Checks peers' tokens, each once."""

    def __init__(self) -> None:
        self._seen: set[str] = set()
        self._order: deque[tuple[int, str]] = deque()

    def __len__(self) -> int:
        return len(self._seen)

    def check(self, keys: Iterable[bytes], request: Request, token: str, now: float) -> str | None:
        """Why a token does not count; None where it does, which is once. `now` is the wall clock."""
        if (match := _PEER_TOKEN.fullmatch(token)) is None:
            return "malformed" if token else "missing"
        issued, nonce, mac = match.groups()
        if not _any_equal(mac, [_request_mac(key, request, issued, nonce) for key in keys]):
            return "wrong"
        off = now - int(issued)
        if abs(off) > TOKEN_SECONDS_MAX:
            return f"{off:+.0f} seconds old: it is replayed, or the clocks of the two nodes differ"
        self._forget(now)
        if nonce in self._seen:
            return "used before"
        self._seen.add(nonce)
        self._order.append((int(issued), nonce))
        return None

    def _forget(self, now: float) -> None:
        while self._order and (now - self._order[0][0] > 2 * TOKEN_SECONDS_MAX or len(self._order) >= NONCES_MAX):
            self._seen.discard(self._order.popleft()[1])


def _request_mac(key: bytes, request: Request, issued: str, nonce: str) -> str:
    parts = (request.method, request.target, request.audience, issued, nonce)
    # a newline can't be in a request line, so that the parts can't run into each other
    return hmac.digest(key, "\n".join(parts).encode(), "sha256").hex()


def _node_mac(key: bytes, node: str) -> str:
    return hmac.digest(key, node.encode(), "sha256").hex()


def _any_equal(mac: str, macs: Iterable[str]) -> bool:
    found = False
    for one in macs:
        found |= hmac.compare_digest(mac, one)  # all of them: the time tells nothing
    return found
