"""The last requests, for the debug page, and for doctor's self-test: it looks whether its request arrived."""

from __future__ import annotations

import time
from collections import deque
from dataclasses import asdict, dataclass
from typing import Any

RECENT_MAX = 200  # a pull of a large image makes tens


@dataclass(frozen=True, slots=True)
class RecentRequest:
    """One request; `time` is Unix seconds, `key` its digest or tag, `client` "node" or "peer"."""

    time: float
    method: str
    key: str
    source: str
    outcome: str
    client: str


class RecentRequests:
    """The last RECENT_MAX requests, and the `total` of all."""

    def __init__(self) -> None:
        self._requests: deque[RecentRequest] = deque(maxlen=RECENT_MAX)
        self.total = 0

    def add(self, method: str, key: str, source: str, outcome: str, client: str) -> None:
        """Add a request that has ended."""
        self.total += 1
        self._requests.append(RecentRequest(time.time(), method, key, source, outcome, client))

    def snapshot(self) -> list[dict[str, Any]]:
        """As JSON objects, newest first."""
        return [asdict(request) for request in reversed(self._requests)]
