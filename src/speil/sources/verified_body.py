"""Verified content of a peer, sent from memory."""

from __future__ import annotations

import asyncio

from speil.oci import byte_range
from speil.oci.manifest import Manifest
from speil.sources.base import Opened, Origin
from speil.sources.peer_race import PeerRace
from speil.sources.verified import Verified, VerifiedContent
from speil.wire.sink import Sink

WRITE_BYTES = 64 * 1024  # at a time: a slow client shows progress, and other requests have their turn in between


class OpenedVerified(Opened):
    """It owns one use of `found`, which it releases, and the race."""

    def __init__(
        self,
        found: Verified,
        shared: VerifiedContent,
        race: PeerRace,
        media_type: str,
        range_header: str,
        manifest: Manifest | None,
    ) -> None:
        """Raises UnsatisfiableError; the caller then releases `found`."""
        part = byte_range.parse(range_header, len(found.data))
        super().__init__(Origin.PEER, found.digest, media_type, len(found.data), part)
        self.manifest = manifest
        self._found: Verified | None = found
        self._shared, self._race, self._bytes = shared, race, found.data

    async def send(self, sink: Sink) -> None:
        """See Opened."""
        start = self.part.start if self.part else 0
        stop = start + self.length
        for at in range(start, stop, WRITE_BYTES):
            await sink.write(self._bytes[at : min(at + WRITE_BYTES, stop)])
            await asyncio.sleep(0)

    async def close(self) -> None:
        """See Opened."""
        found, self._found = self._found, None
        try:
            await self._race.close()
        finally:
            if found is not None:
                self._shared.release(found)
