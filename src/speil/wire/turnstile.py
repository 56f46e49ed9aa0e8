"""Bounds how many steps of a kind run in one round of the event loop, so that other work runs in between."""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque


class Turnstile:
    """Lets `per_round` callers through in each round of the event loop.

    Callers that wait are served share by share in turn; within a share, first come, first served.
    """

    def __init__(self, per_round: int) -> None:
        self._per_round = per_round
        self._passed = 0
        self._lines: OrderedDict[str, deque[asyncio.Future[None]]] = OrderedDict()  # by share, next turn first

    @property
    def has_line(self) -> bool:
        """Whether a caller waits."""
        return bool(self._lines)

    async def enter(self, share: str = "") -> None:
        """Return at once, or in a later round where this one is full. `share` is an address or prefix."""
        loop = asyncio.get_running_loop()
        if not self._passed and not self._lines:
            loop.call_soon(self._round)
        self._passed += 1
        if self._passed > self._per_round or self._lines:
            waiter = loop.create_future()
            self._lines.setdefault(share, deque()).append(waiter)
            await waiter

    def _round(self) -> None:
        self._passed = 0
        while self._lines and self._passed < self._per_round:
            share, line = self._lines.popitem(last=False)
            waiter = line.popleft()
            if line:
                self._lines[share] = line  # behind the others
            if not waiter.done():  # a waiter may have been cancelled
                waiter.set_result(None)
                self._passed += 1
        if self._passed:
            asyncio.get_running_loop().call_soon(self._round)
