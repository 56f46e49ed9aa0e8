"""Tokens of HTTP requests: proof that the client has the region's secret.

A peer's token is for one request: method, target, range, the peer that is asked, the time and a nonce. It can't be used
for other content, at another node, after a minute, or twice. A node token is in containerd's hosts.toml and names the
node. Without it, other clients that reach the port can't read what the node holds (`region.node_token` checks it).

    X-Speil-Token:       <issued>.<nonce>.<mac>     seconds since 1970, 16 and 64 hex digits
    X-Speil-Node-Token:  <node>.<issued>.<mac>
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from speil.region.mac import mac, signer

TOKEN_SECONDS_MAX = 60  # how old a token may be, and how far the clocks of two nodes may differ
# kept while their tokens are valid, two minutes at most: enough for 500 requests a second, about 10 MiB
NONCES_MAX = 1 << 16
# of one address: one peer can't use up the room of all others; enough for 100 requests a second
NONCES_PER_ADDRESS_MAX = NONCES_MAX // 4
NONCE_CHARS = 16
SECONDS = r"(?:0|[1-9][0-9]{0,11})"
_PEER_TOKEN = re.compile(rf"({SECONDS})\.([0-9a-f]{{{NONCE_CHARS}}})\.([0-9a-f]{{64}})", re.ASCII)
NODE_NAME = r"[A-Za-z0-9][A-Za-z0-9.-]{0,252}"
_NODE_NAME = re.compile(NODE_NAME, re.ASCII)


@dataclass(frozen=True, slots=True)
class Request:
    """The request that a peer's token is for.

    `target` is as in the request line, `audience` the peer id of the node that is asked, `range` the Range header.
    """

    method: str
    target: str
    audience: str
    range: str = ""


def sign_request(key: bytes, request: Request, *, issued: int, nonce: str) -> str:
    """The token for a request; `issued` are seconds since 1970."""
    return f"{issued}.{nonce}.{_request_mac(key, request, str(issued), nonce)}"


def is_node_name(name: str) -> bool:
    """Whether a token can hold this node name: letters, digits, '.' and '-', as in host names."""
    return _NODE_NAME.fullmatch(name) is not None


def sign_node(key: bytes, node: str, issued: int = 0) -> str:
    """The token of a node; `issued` are seconds since 1970, and a token with a later time replaces it."""
    return f"{node}.{issued}.{mac(key, node, str(issued))}"


class RequestTokens:
    """Checks peers' tokens and accepts each once.

    A nonce is kept for as long as its token is valid. Where there is no room for another one the token is refused.
    `since` is the wall clock when this process started: tokens that were issued earlier may have been used before.
    """

    def __init__(self, since: float = 0.0) -> None:
        self._since = int(since)  # a token has whole seconds
        self._seen: dict[int, dict[str, str]] = {}  # by the second of issue, at most two minutes of them
        self._by_address: dict[str, int] = {}
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def check(self, keys: Iterable[bytes], request: Request, token: str, now: float, address: str = "") -> str | None:
        """Why the token is refused, in words; None: it is accepted, and will not be again.

        `now` is the wall clock, `address` the client's address.
        """
        if (match := _PEER_TOKEN.fullmatch(token)) is None:
            return "malformed" if token else "missing"
        second, nonce, _ = match.groups()
        if signer_of(keys, request, token) is None:
            return "wrong"
        issued = int(second)
        off = now - issued
        if abs(off) > TOKEN_SECONDS_MAX:
            return f"{off:+.0f} seconds old: it is replayed, or the clocks of the two nodes differ"
        self._forget(now)
        if issued < self._since:
            return "older than this process: it is replayed, or the clock of its node is behind"
        seen = self._seen.get(issued, {})
        if nonce in seen:
            return "used before"
        if self._by_address.get(address, 0) >= NONCES_PER_ADDRESS_MAX or self._count >= NONCES_MAX:
            return "one too many: there is no room to keep another nonce"
        seen[nonce] = address
        self._seen[issued] = seen
        self._by_address[address] = self._by_address.get(address, 0) + 1
        self._count += 1
        return None

    def _forget(self, now: float) -> None:
        for issued in [issued for issued in self._seen if now - issued > TOKEN_SECONDS_MAX]:
            # if the clock is set back the token would be valid again
            self._since = max(self._since, issued + 1)
            for address in self._seen.pop(issued).values():
                self._count -= 1
                self._by_address[address] -= 1
                if not self._by_address[address]:
                    del self._by_address[address]


def signer_of(keys: Iterable[bytes], request: Request, token: str) -> int | None:
    """The index of the key that signed the request's token; None: no key did."""
    if (match := _PEER_TOKEN.fullmatch(token)) is None:
        return None
    issued, nonce, given = match.groups()
    return signer(given, (_request_mac(key, request, issued, nonce) for key in keys))


def _request_mac(key: bytes, request: Request, issued: str, nonce: str) -> str:
    return mac(key, request.method, request.target, request.audience, request.range, issued, nonce)
