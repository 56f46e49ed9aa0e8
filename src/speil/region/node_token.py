"""Checks node tokens: a token has to name this node, and a newer token replaces it.

`speil configuration` writes a new token with each run. After the first request with the newer one, older ones are valid
for GRACE_SECONDS more, because some hosts.toml files may not be written yet.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from speil.region.mac import mac, signer
from speil.region.token import NODE_NAME, SECONDS

GRACE_SECONDS = 3600
CLOCK_SECONDS_MAX = 60  # ahead of this node's clock; a token further ahead was signed by a wrong clock
_TOKEN = re.compile(rf"({NODE_NAME})\.({SECONDS})\.([0-9a-f]{{64}})", re.ASCII)
_OLD_TOKEN = re.compile(rf"({NODE_NAME})\.([0-9a-f]{{64}})", re.ASCII)


@dataclass(frozen=True, slots=True)
class Newest:
    """When the newest token was issued, and when it was first seen, in seconds since 1970."""

    issued: int = 0
    seen: float = 0.0


class NodeTokens:
    """Checks tokens of containerd's requests. `node` is this node's name; "" accepts the token of any node."""

    def __init__(self, node: str, newest: Newest = Newest()) -> None:
        self._node, self.newest = node, newest

    def check(self, keys: Iterable[bytes], token: str, now: float) -> str | None:
        """Why the token is refused, in words; None: it is accepted. `now` is the wall clock."""
        if (match := _TOKEN.fullmatch(token)) is None:
            if _OLD_TOKEN.fullmatch(token):
                return "of an older version of speil: it never expires"
            return "malformed" if token else "missing"
        node, second, given = match.groups()
        if signer(given, (mac(key, node, second) for key in keys)) is None:
            return "wrong"
        if self._node and node != self._node:
            return f"that of node {node}, and this is node {self._node}"
        return self._replaced(int(second), now)

    def _replaced(self, issued: int, now: float) -> str | None:
        newest = self.newest
        if newest.issued > now + CLOCK_SECONDS_MAX:
            newest = Newest()  # the clock was set back
        if newest.issued < issued <= now + CLOCK_SECONDS_MAX:
            self.newest = Newest(issued, now)
        elif issued < newest.issued and now - newest.seen > GRACE_SECONDS:
            return f"replaced: a newer one was seen {now - newest.seen:.0f} seconds ago"
        return None
