"""Small content of a peer: read whole, and checked against its digest before a byte is passed on."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Awaitable, Callable

from speil.fetch.pace import BodyPace
from speil.fetch.peer_health import Failure
from speil.oci import byte_range
from speil.oci.digest import Digest
from speil.oci.manifest import Manifest
from speil.sources.base import Opened, Origin
from speil.sources.peer_access import PeerAccess
from speil.sources.peer_client import PeerResponse
from speil.sources.peer_error import NoPeerError, Outcome, PeerError
from speil.sources.peer_race import PeerRace
from speil.sources.verified import Verified, VerifiedContent
from speil.wire.sink import Sink

VERIFY_STALL_SECONDS_MAX = 0.5  # nothing was passed on yet: another peer, or the upstream, is soon asked
VERIFY_SECONDS_MAX = 2.0  # 4 MiB at 17 Mbit/s
WRITE_BYTES = 64 * 1024  # at a time: a slow client shows progress, and other requests have their turn in between

IsWanted = Callable[[bytes, str], Awaitable[bool]]  # the verified bytes, and the peer's Content-Type


async def verify(
    access: PeerAccess, race: PeerRace, digest: Digest, key: str, is_wanted: IsWanted | None
) -> Verified | None:
    """Read the serving peer's body; the caller releases what it returns.

    None where it breaks off, is wrong or not wanted: `race.open` then finds another peer. Raises NoPeerError where
    there is no memory.
    """
    response, peer, size, known = race.response, race.peer, race.promised.size, access.knowledge
    now = asyncio.get_running_loop().time
    if not await known.verified.room(size):
        raise NoPeerError("no memory to verify it in")
    found: Verified | None = None
    try:
        data, hex_digest = await _read_whole(race, response, digest.algorithm)
        if hex_digest != digest.hex:
            known.sent_wrong_bytes(peer, key)
            raise PeerError(Outcome.BAD_ANSWER, "the bytes are not what the digest says")
        if is_wanted is not None and not await is_wanted(data, response.headers.get("content-type", "")):
            # the bytes are right: the peer did nothing wrong
            raise PeerError(Outcome.BAD_ANSWER, "the bytes are right, but no manifest", failure=Failure.GONE)
        found = known.verified.hold(digest, data, peer)
    except PeerError as error:
        race.drop(error)
        return None
    finally:
        if found is None:
            known.verified.free(size)
    known.trust.proved(peer.peer_id, now())
    known.sizes.prove(digest, size, now())
    known.health.delivered(peer.peer_id)
    race.finish()
    return found


async def _read_whole(race: PeerRace, response: PeerResponse, algorithm: str) -> tuple[bytes, str]:
    pace, parts, hasher = BodyPace(VERIFY_STALL_SECONDS_MAX, VERIFY_SECONDS_MAX), list[bytes](), hashlib.new(algorithm)
    while response.left:
        parts.append(await read_piece(race, response, pace))
        hasher.update(parts[-1])
    return b"".join(parts), hasher.hexdigest()


async def read_piece(race: PeerRace, response: PeerResponse, pace: BodyPace) -> bytes:
    """The serving peer's next bytes, into memory. Raises PeerError."""
    waited = response.peer_seconds
    data = await response.read(patience(pace))
    pace.came(len(data), response.peer_seconds - waited)
    race.count(len(data))
    return data


def patience(pace: BodyPace) -> float:
    """How many seconds to wait now. Raises PeerError when the peer's time is up."""
    if (seconds := pace.wait_seconds) <= 0:
        raise PeerError(Outcome.TIMEOUT, pace.complaint)
    return seconds


class OpenedVerified(Opened):
    """Verified content in memory. It owns one use of `found`, which it releases, and the race."""

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
