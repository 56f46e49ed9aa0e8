"""Bytes of sources that were read and not passed on yet: the first ones of large content, all of small content."""

from __future__ import annotations

import asyncio

from speil.inflight.leg import Leg
from speil.oci.digest import Digest
from speil.sources.verified import VerifiedContent
from speil.wire.sink import Sink

WRITE_BYTES = 64 << 10  # at a time: other requests have their turn in between


class Buffer:
    """It may hold small content while there is room in the memory for verification. Close it."""

    def __init__(self, digest: Digest, memory: VerifiedContent) -> None:
        self._digest, self._memory = digest, memory
        self._data = bytearray()
        self._room = 0

    def __len__(self) -> int:
        return len(self._data)

    @property
    def data(self) -> bytes:
        """All of it."""
        return bytes(self._data)

    async def take_room(self, size: int) -> bool:
        """Whether there is room for `size` bytes; it is kept until `close` or `send`."""
        if not self._room and await self._memory.room(size):
            self._room = size
        return bool(self._room)

    def add(self, data: bytes) -> None:
        """Bytes were read."""
        self._data += data

    async def fill(self, leg: Leg) -> None:
        """Read all that a source sends. Raises PeerError."""
        while leg.left:
            self.add(await leg.read())

    @property
    def is_right(self) -> bool:
        """Whether it is the content of the digest."""
        return self._digest.matches(self._data)

    async def send(self, sink: Sink) -> None:
        """Pass it on and drop it. Raises ClientGoneError."""
        for at in range(0, len(self._data), WRITE_BYTES):
            await sink.write(bytes(self._data[at : at + WRITE_BYTES]))
            await asyncio.sleep(0)
        self._data.clear()
        self.close()

    def close(self) -> None:
        """Free the room; a second call does nothing."""
        if self._room:
            self._memory.free(self._room)
            self._room = 0
