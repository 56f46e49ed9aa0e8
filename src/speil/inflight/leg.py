"""One source's response while it serves a follower."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable

from speil.claims.message import Reason
from speil.inflight.flight import Flight
from speil.inflight.pulls import Pulls
from speil.sources.peer_client import PeerResponse
from speil.sources.peer_error import PeerBusyError, PeerError
from speil.wire.sink import Sink


def reason_of(error: PeerError) -> Reason:
    """Why a follower leaves a source whose request failed so."""
    return Reason.FULL if isinstance(error, PeerBusyError) else Reason.GONE


class Leg:
    """A `Feed`: bytes from `offset` on. The asker decides how long to wait for them. Close it."""

    def __init__(
        self,
        pulls: Pulls,
        flight: Flight,
        response: PeerResponse,
        offset: int,
        count: Callable[[int], None],
    ) -> None:
        """`count` is called with the size of each piece that came."""
        self.offset = offset
        self._pulls, self._flight, self._response, self._count = pulls, flight, response, count
        self.is_held_up = False  # containerd takes bytes that were read before

    @property
    def left(self) -> int:
        """Bytes that are still to come."""
        return self._response.left

    async def read(self) -> bytes:
        """The next bytes, into memory. Raises PeerError."""
        data = await self._response.read(math.inf)
        self._came(len(data), _now())
        return data

    async def move(self, sink: Sink) -> None:
        """Move the next bytes to containerd. Raises PeerError, ClientGoneError."""
        size = await self._response.move(sink, math.inf)
        self._came(size, self._response.moved_at or _now())

    def report(self) -> None:
        """See Feed."""
        if self.is_held_up or self._response.waits_for_client:
            self._pulls.received(self._flight, self.offset + self._response.moving)
            self._pulls.held_up(self._flight)
        elif moving := self._response.moving:
            self._pulls.received(self._flight, self.offset + moving, self._response.moved_at)

    def interrupt(self) -> None:
        """See Feed."""
        self._response.interrupt()

    def close(self) -> None:
        """Close the response."""
        self._response.close()

    def _came(self, size: int, at: float) -> None:
        self.offset += size
        self._count(size)
        self._pulls.received(self._flight, self.offset, at)


def _now() -> float:
    return asyncio.get_running_loop().time()
