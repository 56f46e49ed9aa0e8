"""How many may come in: in all, from one address, and while shaking hands.

A thousand strangers then cost a bounded amount of memory, and honest peers still find a place.
"""

from __future__ import annotations

from collections import Counter

HANDSHAKES_MAX = 128  # at once; each costs a few milliseconds of CPU
CONNECTIONS_MAX = 1024
CONNECTIONS_PER_ADDRESS_MAX = 64  # go-libp2p allows 8; NAT and host networks share an address


class Admission:
    """Counts connections that came in, by their source address."""

    def __init__(self) -> None:
        self._sources: Counter[str] = Counter()
        self._shaking = 0

    @property
    def count(self) -> int:
        """Connections that are open, those that still shake hands among them."""
        return self._sources.total()

    def refusal(self, source: str) -> str | None:
        """Why one more from `source` can't come in (a metric label); None where it can."""
        if self._shaking >= HANDSHAKES_MAX or self.count >= CONNECTIONS_MAX:
            return "too_many"
        return "too_many_from_address" if self._sources[source] >= CONNECTIONS_PER_ADDRESS_MAX else None

    def came(self, source: str) -> None:
        """One came in and begins to shake hands."""
        self._sources[source] += 1
        self._shaking += 1

    def shook_hands(self) -> None:
        """One is through with it, whichever way."""
        self._shaking -= 1

    def left(self, source: str) -> None:
        """One is gone."""
        self._sources[source] -= 1
        if not self._sources[source]:
            del self._sources[source]
