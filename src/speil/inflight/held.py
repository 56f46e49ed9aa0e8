"""containerd's request while its content is shared: what the asker orders, one order at a time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Protocol

from speil.claims.action import GoUpstream, Join, UseHolders


@dataclass(frozen=True, slots=True)
class StepAside:
    """End containerd's request before its first byte: it will be back (`slots`)."""


Order = Join | UseHolders | GoUpstream | StepAside


class LeftError(Exception):
    """The order was taken back while it was carried out."""


class Feed(Protocol):
    """What the request gets its bytes from now."""

    def report(self) -> None:
        """Report to the asker how many bytes have come."""

    def interrupt(self) -> None:
        """End a wait for bytes: the order has changed."""


class HeldRequest:
    """`order` is None while another one is awaited. The one that serves the request sets `feed`."""

    def __init__(self) -> None:
        self.order: Order | None = None
        self.feed: Feed | None = None
        self._changed = asyncio.Event()
        self._stop: Callable[[], None] | None = None

    def give(self, order: Order | None) -> None:
        """The order from now on: what is done for the one before ends."""
        self.order = order
        self._changed.set()
        if self._stop is not None:
            stop, self._stop = self._stop, None  # a second order in the same turn must not end the block again
            stop()
        if self.feed is not None:
            self.feed.interrupt()

    async def next(self) -> Order:
        """The order, once there is one. The asker bounds the wait."""
        while self.order is None:
            self._changed.clear()
            await self._changed.wait()
        return self.order

    @asynccontextmanager
    async def during(self, order: Order) -> AsyncIterator[None]:
        """A block that is cancelled when the order changes: it raises LeftError then."""
        if self.order is not order:
            raise LeftError
        try:
            async with asyncio.timeout(None) as limit:
                self._stop = lambda: limit.reschedule(asyncio.get_running_loop().time())
                try:
                    yield
                finally:
                    self._stop = None
        except TimeoutError:
            if self.order is order:
                raise
            raise LeftError from None
