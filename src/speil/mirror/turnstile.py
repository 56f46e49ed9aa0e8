"""Steps that cost something, so many in each round of the event loop: what is ready in between is not held up."""

from __future__ import annotations

import asyncio
from collections import deque


class Turnstile:
    """Lets `per_round` through in each round of the event loop, first come, first served."""

    def __init__(self, per_round: int) -> None:
        self._per_round = per_round
        self._passed = 0
        self._line: deque[asyncio.Future[None]] = deque()

    @property
    def has_line(self) -> bool:
        """Whether anybody waits."""
        return bool(self._line)

    async def enter(self) -> None:
        """Wait in line, where there is one."""
        loop = asyncio.get_running_loop()
        if not self._passed and not self._line:
            loop.call_soon(self._round)
        self._passed += 1
        if self._passed > self._per_round or self._line:
            waiter = loop.create_future()
            self._line.append(waiter)
            await waiter

    def _round(self) -> None:
        self._passed = 0
        while self._line and self._passed < self._per_round:
            waiter = self._line.popleft()
            if not waiter.done():  # whoever waited may have been cancelled
                waiter.set_result(None)
                self._passed += 1
        if self._passed:
            asyncio.get_running_loop().call_soon(self._round)
