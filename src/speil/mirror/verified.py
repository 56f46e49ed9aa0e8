"""Small content on its way: verified once, held while it is sent, shared by all who want it meanwhile.

What is held counts against one budget, and who finds no room waits a moment for some. The first to ask for some content
finds out whether it is small enough; the others wait for that, and then use what was verified or go their own way.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from speil.fetch.budget import Budget
from speil.multiformats.peer_info import PeerInfo
from speil.oci.digest import Digest

ROOM_SECONDS_MAX = 0.5  # then containerd is sent upstream
SHARE_SECONDS_MAX = 3.0  # as long as one verification may hold its own client (fetch.transfer.HOLD_SECONDS_MAX)


@dataclass(slots=True)
class Verified:
    """Right bytes, whose they are, and how many are sending them."""

    digest: Digest
    data: bytes
    peer: PeerInfo
    users: int = 1


class VerifiedContent:
    """What is being verified, and what is held."""

    def __init__(self, memory_bytes_max: int) -> None:
        self._budget = Budget(memory_bytes_max)
        self._freed = asyncio.Event()
        self._held: dict[Digest, Verified] = {}
        self._pending: dict[Digest, list[asyncio.Future[Verified | None]]] = {}

    @property
    def taken(self) -> int:
        """Bytes in use."""
        return self._budget.taken

    async def room(self, size: int) -> bool:
        """Take room for `size` bytes; False where there was none in time."""
        try:
            async with asyncio.timeout(ROOM_SECONDS_MAX):
                while not self._budget.take(size):
                    await self._freed.wait()
        except TimeoutError:
            return False
        return True

    def free(self, size: int) -> None:
        """Give room back."""
        self._budget.give(size)
        freed, self._freed = self._freed, asyncio.Event()
        freed.set()

    def is_pending(self, digest: Digest) -> bool:
        """Whether somebody finds out about it, or verifies it, just now."""
        return digest in self._pending

    def begin(self, digest: Digest) -> bool:
        """Whether I am the one who finds out: then `end` it, whatever comes of it."""
        if digest in self._pending:
            return False
        self._pending[digest] = []
        return True

    def end(self, digest: Digest, verified: Verified | None) -> None:
        """What came of it: those who waited use it too, or go their own way."""
        for waiter in self._pending.pop(digest, []):
            if not waiter.done():
                if verified:
                    verified.users += 1
                waiter.set_result(verified)

    async def wait(self, digest: Digest) -> Verified | None:
        """What comes of somebody's finding out; `release` it. None where nothing did in SHARE_SECONDS_MAX."""
        waiter: asyncio.Future[Verified | None] = asyncio.get_running_loop().create_future()
        self._pending[digest].append(waiter)
        try:
            async with asyncio.timeout(SHARE_SECONDS_MAX):
                return await waiter
        except BaseException as error:
            if waiter.done() and not waiter.cancelled() and (verified := waiter.result()):
                self.release(verified)  # it came together with the end of our patience
            if isinstance(error, TimeoutError):
                return None
            raise

    def hold(self, digest: Digest, data: bytes, peer: PeerInfo) -> Verified:
        """Keep verified bytes, for which room was taken, until all who `use` them `release` them."""
        found = Verified(digest, data, peer)
        self._held.setdefault(digest, found)
        return found

    def use(self, digest: Digest) -> Verified | None:
        """What somebody holds."""
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
