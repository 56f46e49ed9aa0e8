"""How many streams this node opens to one peer: at once, and in a second.

The limits are below those of the peer, so that two busy nodes never take each other for hostile.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from speil.libp2p.error import OwnLimitError
from speil.token_bucket import Bucket

STREAMS_OUTBOUND_MAX = 60  # go-libp2p resets what comes above 64 per peer and protocol
OWN_STREAMS_BURST, OWN_STREAMS_PER_SECOND = 512, 100.0
SLOT_SECONDS_MAX = 2.0  # a lookup waits three for a peer


class StreamSlots:
    """The slots of one connection."""

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._free = asyncio.Semaphore(STREAMS_OUTBOUND_MAX)
        self._openings = Bucket(OWN_STREAMS_BURST, OWN_STREAMS_PER_SECOND, now())
        self.used = 0

    async def take(self) -> None:
        """Wait until one more stream may be opened. Raises OwnLimitError after SLOT_SECONDS_MAX."""
        try:
            async with asyncio.timeout(SLOT_SECONDS_MAX):
                if wait := self._openings.overdraw(self._now()):
                    await asyncio.sleep(wait)
                await self._free.acquire()
        except TimeoutError:
            self._openings.give_back()
            raise OwnLimitError(f"{STREAMS_OUTBOUND_MAX} streams to this peer are open") from None
        self.used += 1

    def release(self) -> None:
        """A stream has ended, or was not opened."""
        self.used -= 1
        self._free.release()
