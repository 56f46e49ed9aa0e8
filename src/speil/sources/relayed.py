"""Large content of peers: passed on as it arrives; a peer that breaks off is replaced at the same offset.

The client finds out whether the bytes are right; `fetch.trust` learns it from what containerd does next. Bytes of
suspects, and of content that was asked for again, are hashed while they are passed on.
"""

from __future__ import annotations

import asyncio
import hashlib

from speil.fetch.pace import STALL_SECONDS_MAX, BodyPace
from speil.multiformats.peer_id import PeerId
from speil.multiformats.peer_info import PeerInfo
from speil.observe.logs import get_log
from speil.oci import media_type
from speil.oci.byte_range import ByteRange
from speil.oci.digest import Digest
from speil.sources.base import BrokeOffError, Opened, Origin
from speil.sources.paced import PacedBody
from speil.sources.peer_access import PeerAccess
from speil.sources.peer_error import NoPeerError, PeerError
from speil.sources.peer_race import PeerRace
from speil.wire.sink import Sink

log = get_log("relay")


class OpenedRelay(Opened):
    """The serving peer's response, and those of the peers that replace it. It owns the race."""

    def __init__(
        self, access: PeerAccess, race: PeerRace, digest: Digest, key: str, *, is_hashed: bool, settles: bool
    ) -> None:
        """`is_hashed`: hash the bytes of every peer. `settles`: the client verifies and keeps what it gets."""
        promised = race.promised
        partial = race.response.status == 206
        part = ByteRange(promised.start, promised.stop, promised.size) if partial else None
        super().__init__(Origin.PEER, digest, media_type.OCTET_STREAM, promised.size, part)
        self._access, self._race, self._key = access, race, key
        self._is_hashed, self._settles, self._ends_content = is_hashed, settles, promised.stop == promised.size
        self._is_whole = promised.is_whole
        self._senders: dict[PeerId, PeerInfo] = {}

    async def send(self, sink: Sink) -> None:
        """See Opened."""
        known, now = self._access.knowledge, asyncio.get_running_loop().time
        doubted = self._is_hashed or known.trust.is_suspect(self._race.peer.peer_id, now())
        hasher = hashlib.new(self.digest.algorithm) if doubted and self._is_whole else None
        while self._race.left:
            try:
                await self._send_from_peer(sink, hasher)
            except PeerError as error:
                await self._resume(error)
        for peer_id in self._senders:
            known.health.delivered(peer_id)
        self._race.finish()
        if hasher:
            self._judge_hash(hasher.hexdigest())
        elif self._settles and self._ends_content:
            known.trust.whole(self.digest, now())

    async def close(self) -> None:
        """See Opened."""
        await self._race.close()

    async def _resume(self, error: PeerError) -> None:
        try:
            await self._race.resume(error)
        except NoPeerError as end:
            raise BrokeOffError(str(end)) from end
        self._access.series.resumed_transfers.inc()

    async def _send_from_peer(self, sink: Sink, hasher: hashlib._Hash | None) -> None:
        """Pass on what the serving peer sends. Raises PeerError where it breaks off."""
        race, body = self._race, PacedBody(self._race, BodyPace(STALL_SECONDS_MAX))
        self._senders[race.peer.peer_id] = race.peer
        if self._settles and not hasher:
            self._access.knowledge.trust.sent(self.digest, race.peer.peer_id, asyncio.get_running_loop().time())
        while race.left:
            if hasher:
                data = await body.read()
                await sink.write(data)
                hasher.update(data)
                race.received(len(data))
            else:
                race.received(await body.move(sink))

    def _judge_hash(self, found: str) -> None:
        known, now = self._access.knowledge, asyncio.get_running_loop().time()
        if found == self.digest.hex:
            known.trust.settled(self.digest, now)
            for peer_id in self._senders:
                known.trust.proved(peer_id, now)
        elif len(self._senders) == 1:
            (sender,) = self._senders.values()
            known.sent_wrong_bytes(sender, self._key)
        else:
            known.trust.doubt(self._senders, now)
            log.warning(
                "wrong bytes came from one of several peers", key=self._key, peers=list(map(str, self._senders))
            )
