"""The last requests, for the debug page and for doctor's self-test: did the pull's request arrive?"""

from __future__ import annotations

import time
from collections import deque
from dataclasses import asdict, dataclass
from typing import Any

RECENT_MAX = 200  # a pull of a large image makes tens


@dataclass(frozen=True, slots=True)
class RecentRequest:
    """One request; `time` is Unix seconds."""

    time: float
    method: str
    key: str
    source: str
    outcome: str
    client: str


class RecentRequests:
    """A bounded list, and a count of all."""

    def __init__(self) -> None:
        self._requests: deque[RecentRequest] = deque(maxlen=RECENT_MAX)
        self.total = 0

    def add(self, method: str, key: str, source: str, outcome: str, client: str) -> None:
        """Note a request."""
        self.total += 1
        self._requests.append(RecentRequest(time.time(), method, key, source, outcome, client))

    def snapshot(self) -> list[dict[str, Any]]:
        """Newest first."""
        return [asdict(request) for request in reversed(self._requests)]
