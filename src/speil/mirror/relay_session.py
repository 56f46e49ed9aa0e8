"""One request, answered by peers: which bytes are passed on, and how sure we are of them.

- Manifests, and blobs up to a bound, are read whole and their digest is checked before a byte is passed on: a peer
  that lies is banned, another is asked, and the client never knows.
- Larger blobs are moved from the peer's connection to the client's as they come; a peer that breaks off, stalls or
  crawls is replaced at the same offset. containerd finds out whether they are right; `fetch.trust` learns it from
  what containerd does next.
- From suspects, and for content that was asked for again, bytes are hashed as they are passed on.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING

from speil.fetch.candidates import Judge
from speil.fetch.pace import STALL_SECONDS_MAX, Pace
from speil.fetch.resume import Wanted
from speil.fetch.transfer import Transfer
from speil.fetch.trust import NO_CAUTION, Caution
from speil.mirror.body import BodyResponse, BodySink
from speil.mirror.peer_client import PeerError, PeerResponse, RangeRefusedError
from speil.mirror.peer_race import NoPeerError, PeerRace
from speil.mirror.verified import Verified
from speil.multiformats.peer_id import PeerId
from speil.multiformats.peer_info import PeerInfo
from speil.observe.logs import get_log
from speil.oci import byte_range
from speil.oci.byte_range import ByteRange
from speil.oci.digest import Digest
from speil.oci.endpoint import Content
from speil.oci.manifest import MANIFEST_BYTES_MAX

if TYPE_CHECKING:
    from speil.mirror.relay import Relay

VERIFY_STALL_SECONDS_MAX = 0.5  # nothing has been passed on yet: another peer, or the upstream, is soon asked
VERIFY_SECONDS_MAX = 2.0  # 4 MiB at 17 Mbit/s
WRITE_BYTES = 64 * 1024  # at a time: a slow client shows progress, and other requests have their turn in between

KindOf = Callable[[bytes, str], Awaitable[str | None]]

log = get_log("relay")


@dataclass(frozen=True, slots=True)
class Head:
    """The first good head: where the body starts and stops in a representation of `size` bytes."""

    status: int
    headers: dict[str, str]
    start: int
    stop: int
    size: int
    peer: PeerInfo


class RelaySession:
    """`head()` or `whole()` first, then `send()`."""

    def __init__(self, relay: Relay, content: Content, method: str, range_header: str, verifies: bool) -> None:
        self._relay, self._content, self._now = relay, content, asyncio.get_running_loop().time
        # of a manifest the bytes are wanted even for HEAD: what its head says must be true
        self._method = "GET" if content.is_manifest else method
        # what is passed on unverified tells on its senders, if it is a blob and containerd asks
        self._settling = content.digest if verifies and method == "GET" and not content.is_manifest else None
        self._caution = self._be_careful(range_header)
        self._range_header = range_header
        sizes = relay.sizes.get(content.digest, self._now())
        checked_bytes_max = relay.config.fetch.verify_bytes_max
        if content.is_manifest:
            checked_bytes_max = MANIFEST_BYTES_MAX
        elif self._method == "HEAD":
            checked_bytes_max = -1  # of a head nothing is checked
        self._transfer = Transfer(
            Wanted(content.digest, range_header, sizes, checked_bytes_max),
            self._now(),
            search_seconds=relay.config.search_seconds,
            attempts_max=relay.config.attempts_max,
            hedge_seconds=relay.health.hedge_seconds,
        )
        verified = content.is_manifest or (bool(sizes) and max(sizes) <= checked_bytes_max)
        judge = Judge(relay.health, relay.trust, self._caution, relay.config.zone, relay.zone_of, verified, content.key)
        self._race = PeerRace(relay.access, content, self._method, self._transfer, judge, relay.sizes)
        self._verified: Verified | None = None
        self.broken_response: BodyResponse | None = None  # set once its head is out: it can then only break off

    async def __aenter__(self) -> RelaySession:
        await self._race.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            await self._race.__aexit__(kind, error, trace)
        finally:
            if self._verified:
                self._relay.verified.release(self._verified)

    @property
    def attempts(self) -> int:
        """Requests sent to peers so far."""
        return self._transfer.attempts_total

    @property
    def peer(self) -> PeerInfo | None:
        """Who serves, or served last."""
        return self._race.peer

    # --- the head ---------------------------------------------------------------------------------------

    async def head(self) -> Head:
        """What the client may be told. Raises NoPeerError, RangeRefusedError."""
        digest, shared = self._content.digest, self._relay.verified
        if digest is None or self._method == "HEAD":
            return self._streamed_head(await self._next_response())
        if head := await self._shared_head(digest):
            return head
        # others who ask for it wait until it is known whether it is small, and then share it
        scouting = shared.begin(digest)
        try:
            while True:
                response, promised = await self._next_response(), self._transfer.promised
                assert promised is not None
                if promised.size > self._relay.config.fetch.verify_bytes_max:
                    return self._streamed_head(response)
                if not promised.is_whole:
                    self._start_over()  # a part can't be verified
                elif not scouting and not (scouting := shared.begin(digest)):
                    self._start_over()
                    if head := await self._shared_head(digest):
                        return head
                elif found := await self._verify(digest, _anything):
                    return self._verified_head(found)
        finally:
            if scouting:
                shared.end(digest, self._verified)

    async def whole(self, size_bytes_max: int, kind_of: KindOf) -> tuple[Head, Digest, str]:
        """Small content at once, its digest and its kind: from the first peer whose bytes are what their digest says.

        `kind_of` gets the bytes and the peer's Content-Type; where it tells no kind, another peer is asked. Raises
        NoPeerError.
        """
        kind: str | None = None

        async def has_a_kind(data: bytes) -> bool:
            nonlocal kind
            assert self._race.response is not None
            kind = await kind_of(data, self._race.response.headers.get("content-type", ""))
            return kind is not None

        while True:
            response = await self._race.next()
            promised = self._transfer.promised
            assert promised is not None
            if promised.size > size_bytes_max:
                self._race.replace(PeerError("bad_answer", f"{promised.size} bytes"))
                continue
            digest = self._content.digest or Digest.parse(response.headers["docker-content-digest"])
            if verified := await self._verify(digest, has_a_kind):
                assert kind is not None
                return self._verified_head(verified), digest, kind

    async def _next_response(self) -> PeerResponse:
        try:
            return await self._race.next()
        except NoPeerError:
            if self._settling:
                self._relay.trust.turned_away(self._settling, self._now())
            raise

    async def _shared_head(self, digest: Digest) -> Head | None:
        """From what another request verifies, or has verified and is sending."""
        if self._transfer.wanted.range_header:
            return None
        if self._relay.verified.is_pending(digest):
            self._verified = await self._relay.verified.wait(digest)
            self._transfer.start_over(self._now())
        else:
            self._verified = self._relay.verified.use(digest)
        return self._verified_head(self._verified) if self._verified else None

    def _start_over(self) -> None:
        self._race.let_go()
        self._transfer.start_over(self._now())

    def _streamed_head(self, response: PeerResponse) -> Head:
        promised, peer = self._transfer.promised, self.peer
        assert promised is not None
        assert peer is not None
        self._transfer.told()
        return Head(response.status, response.headers, promised.start, promised.stop, promised.size, peer)

    def _verified_head(self, found: Verified) -> Head:
        wanted = self._range_of(found)
        start, stop = (wanted.start, wanted.stop) if wanted else (0, len(found.data))
        return Head(206 if wanted else 200, {}, start, stop, len(found.data), found.peer)

    def _range_of(self, found: Verified) -> ByteRange | None:
        """The client's range of verified content: its size is known now, whatever a peer said before.

        Raises RangeRefusedError.
        """
        try:
            return byte_range.parse(self._range_header, len(found.data))
        except byte_range.UnsatisfiableError as error:
            raise RangeRefusedError(error.content_range) from None

    async def _verify(self, digest: Digest, is_wanted: Callable[[bytes], Awaitable[bool]]) -> Verified | None:
        """Read all of the response; None where it breaks off or is wrong, and another peer's is to be taken."""
        response, promised, peer = self._race.response, self._transfer.promised, self.peer
        assert response is not None
        assert promised is not None
        assert peer is not None
        shared, size = self._relay.verified, promised.size
        if not await shared.room(size):
            raise NoPeerError("no memory to verify it in", self.attempts)
        pace, parts, hasher = Pace(VERIFY_STALL_SECONDS_MAX, VERIFY_SECONDS_MAX), [], hashlib.new(digest.algorithm)
        try:
            while response.left:
                parts.append(await self._read(pace))
                hasher.update(parts[-1])
            data = b"".join(parts)
            if hasher.hexdigest() != digest.hex:
                self._relay.lied(peer, self._content.key)
                raise PeerError("bad_answer", "the bytes are not what the digest says")
            if not await is_wanted(data):
                # right bytes are no lie, whoever can't read them
                raise PeerError("bad_answer", "the bytes are right, but no manifest", blame=False)
            self._verified = shared.hold(digest, data, peer)
        except PeerError as error:
            self._race.replace(error)
            return None
        finally:
            if self._verified is None:
                shared.free(size)
        if self._content.digest:  # with a tag the peer chose the digest itself
            self._relay.trust.proved(peer.peer_id, self._now())
            self._relay.sizes.prove(digest, size, self._now())
        self._relay.health.delivered(peer.peer_id)
        self._race.let_go()
        self._transfer.finished()
        return self._verified

    # --- the body ---------------------------------------------------------------------------------------

    async def send(self, sink: BodySink) -> None:
        """Move the body to the client; a peer that breaks off is replaced.

        Raises NoPeerError when nobody can go on, ClientGoneError.
        """
        if self._verified is not None:
            data = self._verified.data
            wanted = self._range_of(self._verified)
            first, stop = (wanted.start, wanted.stop) if wanted else (0, len(data))
            for start in range(first, stop, WRITE_BYTES):
                await sink.write(data[start : min(start + WRITE_BYTES, stop)])
                await asyncio.sleep(0)
            return
        peer, promised = self.peer, self._transfer.promised
        assert peer is not None
        assert promised is not None
        digest = self._content.digest
        doubted = self._caution.hashed or self._relay.trust.is_suspect(peer.peer_id, self._now())
        hasher = hashlib.new(digest.algorithm) if digest and doubted and promised.is_whole else None
        senders: dict[PeerId, PeerInfo] = {}
        while self._transfer.left:
            try:
                await self._send_from_peer(sink, hasher, senders)
            except PeerError as error:
                self._race.replace(error)
                await self._race.next()
                self._relay.metrics.resumed_transfers.inc()
        for peer_id in senders:
            self._relay.health.delivered(peer_id)
        self._transfer.finished()
        if digest and hasher:
            self._judge_hash(digest, hasher.hexdigest(), senders)
        elif self._settling and promised.stop == promised.size:
            self._relay.trust.whole(self._settling, self._now())

    async def _send_from_peer(
        self, sink: BodySink, hasher: hashlib._Hash | None, senders: dict[PeerId, PeerInfo]
    ) -> None:
        """Move what the serving peer sends. Raises PeerError where it breaks off."""
        response, peer, pace = self._race.response, self.peer, Pace(STALL_SECONDS_MAX)
        assert response is not None
        assert peer is not None
        senders[peer.peer_id] = peer
        if self._settling and not hasher:
            self._relay.trust.sent(self._settling, peer.peer_id, self._now())
        while self._transfer.left:
            if hasher:
                data = await self._read(pace)
                await sink.write(data)
                hasher.update(data)
                self._transfer.received(len(data))
                continue
            waited = response.peer_seconds
            size = await response.move(sink, _patience(pace))
            pace.came(size, response.peer_seconds - waited)
            self._race.count(size)
            self._transfer.received(size)

    async def _read(self, pace: Pace) -> bytes:
        """The next bytes of the serving peer, into memory. Raises PeerError."""
        response = self._race.response
        assert response is not None
        waited = response.peer_seconds
        data = await response.read(_patience(pace))
        pace.came(len(data), response.peer_seconds - waited)
        self._race.count(len(data))
        return data

    # --- trust and memory -------------------------------------------------------------------------------

    def _be_careful(self, range_header: str) -> Caution:
        if self._settling is None:
            return NO_CAUTION
        caution = self._relay.trust.asked(self._settling, self._now(), from_start=not range_header)
        if caution.suspects:
            log.warning(
                "content is asked for again after it was delivered: its senders are suspect",
                key=self._content.key,
                peers=[str(peer_id) for peer_id in caution.suspects],
            )
        return caution

    def _judge_hash(self, digest: Digest, found: str, senders: dict[PeerId, PeerInfo]) -> None:
        if found == digest.hex:
            self._relay.trust.settled(digest, self._now())
            for peer_id in senders:
                self._relay.trust.proved(peer_id, self._now())
        elif len(senders) == 1:
            (sender,) = senders.values()
            self._relay.lied(sender, self._content.key)
        else:
            self._relay.trust.doubt(senders, self._now())
            log.warning(
                "wrong bytes came from one of several peers", key=self._content.key, peers=[str(one) for one in senders]
            )


async def _anything(data: bytes) -> bool:
    return True


def _patience(pace: Pace) -> float:
    """How long to wait now. Raises PeerError when the peer's time is up."""
    if (seconds := pace.wait_seconds) <= 0:
        raise PeerError("timeout", pace.complaint)
    return seconds
