"""Small content in memory: verified once, held while it is sent, shared by all requests for it meanwhile.

Held content counts against one budget; a request that finds no room waits a moment for some. The first request for
some content finds out whether it is small enough; others wait for that, and then use the verified bytes, or ask peers
themselves.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from speil.fetch.budget import MemoryBudget
from speil.multiformats.peer_info import PeerInfo
from speil.oci.digest import Digest

ROOM_SECONDS_MAX = 0.5  # then containerd is sent upstream
SHARE_SECONDS_MAX = 3.0  # as long as one verification may hold its own client (fetch.transfer.HOLD_SECONDS_MAX)


@dataclass(slots=True)
class Verified:
    """Bytes that match their digest, the peer that sent them, and how many requests use them."""

    digest: Digest
    data: bytes
    peer: PeerInfo
    users: int = 1


class VerifiedContent:
    """Content that is being verified, and content that is held."""

    def __init__(self, memory_bytes_max: int) -> None:
        self._budget = MemoryBudget(memory_bytes_max)
        self._freed = asyncio.Event()
        self._held: dict[Digest, Verified] = {}
        self._pending: dict[Digest, list[asyncio.Future[Verified | None]]] = {}

    @property
    def taken(self) -> int:
        """Bytes of the budget in use."""
        return self._budget.taken

    async def room(self, size: int) -> bool:
        """Take room for `size` bytes; False where there was none in ROOM_SECONDS_MAX."""
        try:
            async with asyncio.timeout(ROOM_SECONDS_MAX):
                while not self._budget.take(size):
                    await self._freed.wait()
        except TimeoutError:
            return False
        return True

    def free(self, size: int) -> None:
        """Give room for `size` bytes back."""
        self._budget.give(size)
        freed, self._freed = self._freed, asyncio.Event()
        freed.set()

    def is_pending(self, digest: Digest) -> bool:
        """Whether a request finds out about it, or verifies it, now."""
        return digest in self._pending

    def begin(self, digest: Digest) -> bool:
        """Whether the caller is the one that finds out: then it calls `end`, whatever the result."""
        if digest in self._pending:
            return False
        self._pending[digest] = []
        return True

    def end(self, digest: Digest, verified: Verified | None) -> None:
        """The result: requests that waited use it too, or (None) ask for themselves."""
        for waiter in self._pending.pop(digest, []):
            if not waiter.done():
                if verified:
                    verified.users += 1
                waiter.set_result(verified)

    async def wait(self, digest: Digest) -> Verified | None:
        """The result of the request that finds out; `release` it. None where there is none in SHARE_SECONDS_MAX."""
        waiter: asyncio.Future[Verified | None] = asyncio.get_running_loop().create_future()
        self._pending[digest].append(waiter)
        try:
            async with asyncio.timeout(SHARE_SECONDS_MAX):
                return await waiter
        except BaseException as error:
            if waiter.done() and not waiter.cancelled() and (verified := waiter.result()):
                self.release(verified)  # it came at the same time as the timeout or the cancel
            if isinstance(error, TimeoutError):
                return None
            raise

    def hold(self, digest: Digest, data: bytes, peer: PeerInfo) -> Verified:
        """Keep verified bytes, for which room was taken, until each user has called `release`."""
        found = Verified(digest, data, peer)
        self._held.setdefault(digest, found)
        return found

    def use(self, digest: Digest) -> Verified | None:
        """Held content, for one more user that calls `release`; None where it is not held."""
        if found := self._held.get(digest):
            found.users += 1
        return found

    def release(self, verified: Verified) -> None:
        """One user less; the last one frees the room."""
        verified.users -= 1
        if not verified.users:
            if self._held.get(verified.digest) is verified:
                del self._held[verified.digest]
            self.free(len(verified.data))
