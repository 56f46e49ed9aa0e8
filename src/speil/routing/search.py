"""One search for the providers of a key, shared by all requests for it.

A caller gets the providers found so far and waits for more until its own timeout. The search itself runs to its end,
so the next request finds the result.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from speil.multiformats.peer_id import PeerId
from speil.multiformats.peer_info import PeerInfo

FOUND_MAX = 256  # far more than a request tries; malicious peers could name providers without end


class Search:
    """Providers found so far, in order. `nearest`: the peers closest to the key that answered, when it has ended."""

    def __init__(self) -> None:
        self.found: dict[PeerId, PeerInfo] = {}
        self.nearest: tuple[PeerInfo, ...] = ()
        self.ended_at: float | None = None
        self._changed = asyncio.Event()

    def add(self, peer: PeerInfo) -> None:
        """Add a provider."""
        if peer.peer_id not in self.found and len(self.found) < FOUND_MAX:
            self.found[peer.peer_id] = peer
            self._notify()

    def end(self, now: float) -> None:
        """No more providers will be added."""
        self.ended_at = now
        self._notify()

    async def follow(self, timeout_seconds: float) -> AsyncIterator[PeerInfo]:
        """All providers, as they are found, until the search ends or the timeout."""
        deadline = asyncio.get_running_loop().time() + timeout_seconds
        seen = 0
        while True:
            changed = self._changed
            for peer in list(self.found.values())[seen:]:
                seen += 1
                yield peer
            if len(self.found) > seen:
                continue
            if self.ended_at is not None:
                return
            try:
                async with asyncio.timeout_at(deadline):
                    await changed.wait()
            except TimeoutError:
                return

    def _notify(self) -> None:
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()
