"""How much is done for a peer: streams that are served at once, and turns at the loop.

An idle stream takes a few KiB and a request some tens of microseconds. One peer may ask for either without end, so both
are counted by whose share they are (`neighbourhood`).
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable

from speil.libp2p.connection import Connection
from speil.libp2p.rate import Buckets

# what the streams of one address or prefix may ask for: each costs tens of microseconds, and then others have a turn
TURNS_BURST, TURNS_PER_SECOND = 2000, 1000.0
SHARES_MAX = 4096  # addresses and prefixes whose turns are remembered
SERVED_AT_ONCE_MAX = 256  # handlers for one peer; as many as it may have streams
# handlers of one address or prefix, and in all: one that waits for its peer takes six KiB. A few are free for each peer
SERVED_OF_SHARE_MAX, SERVED_MAX, SERVED_FREE = 512, 4096, 8


class Serving:
    """Of one host."""

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._running = Counter[str]()
        self._turns = Buckets(TURNS_BURST, TURNS_PER_SECOND, SHARES_MAX)

    @property
    def count(self) -> int:
        """Handlers that run."""
        return self._running.total()

    def begin(self, connection: Connection) -> bool:
        """One more stream is served, if there is room; then `end` follows. Also a stream that was reset counts."""
        if connection.serving_count >= SERVED_FREE and (
            connection.serving_count >= SERVED_AT_ONCE_MAX
            or self._running[connection.share] >= SERVED_OF_SHARE_MAX
            or self.count >= SERVED_MAX
        ):
            return False
        connection.serving_count += 1
        self._running[connection.share] += 1
        return True

    def end(self, connection: Connection) -> None:
        """A handler has ended."""
        connection.serving_count -= 1
        self._running[connection.share] -= 1
        if not self._running[connection.share]:
            del self._running[connection.share]

    async def wait_turn(self, connection: Connection) -> None:
        """Before each thing that a peer asks for: lets others go first, and waits where it asks for too much."""
        now = self._now()
        await asyncio.sleep(self._turns.of(connection.share, now).owe(now))
