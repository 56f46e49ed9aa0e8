"""How much this node does for a peer: streams that are served at once, and requests in a second.

An idle stream takes a few KiB, a request some tens of microseconds. One peer could ask for either without end, so both
are counted for its share (`neighbourhood`). Requests here have no price of their own. The DHT's requests do, and are
counted by cost instead (`kad.cost_budget`).
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from typing import TypeVar

from speil.libp2p.remote_peer import RemotePeer
from speil.token_bucket import Buckets

# Negotiations and pings of one address or prefix. Each costs tens of microseconds, and then others are served.
TURNS_BURST, TURNS_PER_SECOND = 2000, 1000.0
SHARES_MAX = 4096  # addresses and prefixes whose rate is remembered
SERVED_AT_ONCE_MAX = 256  # handlers for one connection: as many as it may have streams
# Handlers for one address or prefix, and in all: one that waits for its peer takes six KiB. Each connection may have
# SERVED_FREE of them whatever the others use.
SERVED_OF_SHARE_MAX, SERVED_MAX, SERVED_FREE = 512, 4096, 8

_Key = TypeVar("_Key")


class Serving:
    """The counts of one host."""

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._of_peer = Counter[RemotePeer]()
        self._of_share = Counter[str]()
        self._turns = Buckets(TURNS_BURST, TURNS_PER_SECOND, SHARES_MAX)

    @property
    def count(self) -> int:
        """Handlers that run, also those of streams that were reset."""
        return self._of_share.total()

    def begin(self, peer: RemotePeer) -> bool:
        """Count one more handler; False where there is no room. After True, `end` must follow."""
        count = self._of_peer[peer]
        if count >= SERVED_FREE and (
            count >= SERVED_AT_ONCE_MAX or self._of_share[peer.share] >= SERVED_OF_SHARE_MAX or self.count >= SERVED_MAX
        ):
            return False
        self._of_peer[peer] += 1
        self._of_share[peer.share] += 1
        return True

    def end(self, peer: RemotePeer) -> None:
        """A handler has ended."""
        _subtract(self._of_peer, peer)
        _subtract(self._of_share, peer.share)

    async def wait_turn(self, peer: RemotePeer) -> None:
        """Call before each request of a peer: let other tasks run first, and wait where the peer asks too often."""
        now = self._now()
        await asyncio.sleep(self._turns.of(peer.share, now).overdraw(now))


def _subtract(counter: Counter[_Key], key: _Key) -> None:
    counter[key] -= 1
    if not counter[key]:
        del counter[key]
