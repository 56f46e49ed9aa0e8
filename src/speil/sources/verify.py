"""Small content of a peer: read whole, and checked against its digest before a byte is passed on."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Awaitable, Callable

from speil.fetch.pace import BodyPace
from speil.fetch.peer_health import Failure
from speil.oci.digest import Digest
from speil.sources.paced import PacedBody
from speil.sources.peer_access import PeerAccess
from speil.sources.peer_error import NoPeerError, Outcome, PeerError
from speil.sources.peer_race import PeerRace
from speil.sources.verified import Verified

VERIFY_STALL_SECONDS_MAX = 0.5  # nothing was passed on yet: another peer, or the upstream, is soon asked
VERIFY_SECONDS_MAX = 2.0  # 4 MiB at 17 Mbit/s

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
        data, hex_digest = await _read_whole(race, digest.algorithm)
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


async def _read_whole(race: PeerRace, algorithm: str) -> tuple[bytes, str]:
    body = PacedBody(race, BodyPace(VERIFY_STALL_SECONDS_MAX, VERIFY_SECONDS_MAX))
    parts, hasher = list[bytes](), hashlib.new(algorithm)
    while race.response.left:
        parts.append(await body.read())
        hasher.update(parts[-1])
    return b"".join(parts), hasher.hexdigest()
