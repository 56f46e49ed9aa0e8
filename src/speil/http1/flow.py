"""Whether the other side takes what is written: the flow control of one asyncio transport."""

from __future__ import annotations

import asyncio


class Flow:
    """The connection's protocol passes on what the transport says; one task at a time waits in `drain`."""

    __slots__ = ("_waiter", "is_lost", "is_paused")

    def __init__(self) -> None:
        self.is_paused = False  # more is waiting in the transport than its high-water mark
        self.is_lost = False
        self._waiter: asyncio.Future[None] | None = None

    def pause(self) -> None:
        """See Protocol.pause_writing."""
        self.is_paused = True

    def resume(self) -> None:
        """See Protocol.resume_writing."""
        self.is_paused = False
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def lose(self) -> None:
        """The connection is gone."""
        self.is_lost = True
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    async def drain(self) -> None:
        """Wait until more may be written. Raises ConnectionResetError once the connection is gone."""
        if self.is_paused and not self.is_lost:
            self._waiter = asyncio.get_running_loop().create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None
        if self.is_lost:
            raise ConnectionResetError("the connection is gone")
