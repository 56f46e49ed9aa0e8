"""The last requests, for the pages, and for doctor's self-test: it looks whether its request arrived."""

from __future__ import annotations

import time
from collections import deque
from dataclasses import asdict, dataclass
from typing import Any

RECENT_MAX = 200  # a pull of a large image makes tens


@dataclass(frozen=True, slots=True)
class RecentRequest:
    """One request; `time` is Unix seconds, `key` its digest or tag, `client` "node" or "peer".

    `size` is the number of body bytes sent in `seconds`, `peer` the id of the peer that served them, "" for none.
    """

    time: float
    method: str
    key: str
    source: str
    outcome: str
    client: str
    image: str = ""
    size: int = 0
    seconds: float = 0.0
    peer: str = ""


class RecentRequests:
    """The last RECENT_MAX requests, and the `total` of all."""

    def __init__(self) -> None:
        self._requests: deque[RecentRequest] = deque(maxlen=RECENT_MAX)
        self.total = 0

    def add(
        self, method: str, key: str, source: str, outcome: str, client: str,
        *, image: str = "", size: int = 0, seconds: float = 0.0, peer: str = "",
    ) -> None:  # fmt: skip
        """Add a request that has ended."""
        self.total += 1
        found = RecentRequest(time.time(), method, key, source, outcome, client, image, size, round(seconds, 6), peer)
        self._requests.append(found)

    def since(self, total: int, count_max: int = RECENT_MAX) -> list[RecentRequest]:
        """The requests that ended after `total` of them had, newest first; at most `count_max` of them."""
        count = min(max(self.total - total, 0), len(self._requests), count_max)
        return [self._requests[-number] for number in range(1, count + 1)]

    def snapshot(self) -> list[dict[str, Any]]:
        """As JSON objects, newest first."""
        return [asdict(request) for request in reversed(self._requests)]
