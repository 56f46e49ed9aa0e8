"""One request of containerd, served from sources that download the content themselves.

The head is sent when the first bytes are there: until then the request can still be answered 404. Small content is read
whole and verified first. Larger content is passed on as it comes; the source may change within one body, at the same
offset. Where the asker decides that this node fetches, the body ends with FIN: containerd asks again from there, is
answered 404, and goes on upstream.

Sources pass on what their upstream sends, so nobody is blamed for wrong bytes here: the content is not shared in flight
any more, and each node fetches it by itself.
"""

from __future__ import annotations

import asyncio
import hashlib
from dataclasses import replace

from speil.claims.action import GoUpstream, Join, UseHolders
from speil.claims.message import Reason
from speil.fetch.resume import Answer, Extent, Wanted, WrongAnswerError
from speil.inflight.flight import Flight
from speil.inflight.held import HeldRequest, LeftError
from speil.inflight.leg import Leg, reason_of
from speil.inflight.pulls import Pulls
from speil.inflight.series import InflightSeries
from speil.multiformats.peer_id import PeerId
from speil.multiformats.peer_info import PeerInfo
from speil.oci import media_type
from speil.oci.byte_range import ByteRange
from speil.oci.digest import Digest
from speil.oci.manifest import MANIFEST_BYTES_MAX, Manifest
from speil.sources.base import BrokeOffError, ContentRequest, Opened, Origin
from speil.sources.peer_access import PeerAccess
from speil.sources.peer_client import PeerResponse
from speil.sources.peer_error import Outcome, PeerError
from speil.sources.peers import Peers
from speil.store.walk import parsed
from speil.wire.sink import Sink

VERIFY_SECONDS_MAX = 2.0  # then small content is passed on as it comes, like any other
WRITE_BYTES = 64 << 10  # of content in memory, at a time


class Delivery:
    """The bytes of one flight for one request. Close it."""

    def __init__(
        self,
        pulls: Pulls,
        flight: Flight,
        held: HeldRequest,
        request: ContentRequest,
        start: int,
        access: PeerAccess,
        peers: Peers,
        series: InflightSeries,
    ) -> None:
        digest = request.content.digest
        assert digest is not None
        self._pulls, self._flight, self._held, self._request = pulls, flight, held, request
        self._access, self._peers, self._series = access, peers, series
        self._digest: Digest = digest
        self._offset = start  # of the content, passed on or buffered
        self._buffer = bytearray()  # what was read and not passed on yet
        self._room = 0  # bytes taken of the memory for verification
        self._leg: Leg | None = None
        self._leg_order: Join | None = None
        self._holder: Opened | None = None
        self._last: PeerId | None = None  # the source that sent last; None for holders
        self.extent: Extent | None = None  # what containerd is promised
        self.kind = media_type.OCTET_STREAM
        self.manifest: Manifest | None = None
        sizes = access.knowledge.sizes.get(digest, _now())
        self._wanted = Wanted(digest, f"bytes={start}-" if start else "", sizes, MANIFEST_BYTES_MAX)

    # --- before the head --------------------------------------------------------------------------------

    async def open(self) -> Opened | None:
        """The content, once its first bytes are there; None where containerd is to go upstream."""
        while True:
            order = await self._held.next()
            match order:
                case GoUpstream():
                    self._request.notes.miss = "fetched from upstream"
                    return None
                case UseHolders(_, peers):
                    if await self._open_holder(peers):
                        return OpenedDelivery(self, self._digest)
                case Join():
                    if await self._open_source(order):
                        return OpenedDelivery(self, self._digest)
                    if not self._buffer:
                        self.extent = None  # nothing was promised: what one source stated does not bind the next one

    async def _open_source(self, order: Join) -> bool:
        """Whether content of this source is ready to be sent."""
        try:
            leg = await self._join(order)
            size = leg.left + self._offset
            if self._is_verified(size) and await self._take_room(size):
                try:
                    async with self._held.during(order), asyncio.timeout(VERIFY_SECONDS_MAX):
                        while leg.left:
                            self._buffer += await leg.read()
                            self._offset = leg.offset
                except TimeoutError:
                    if self._request.content.is_manifest:
                        raise PeerError(Outcome.TIMEOUT, "too slow for a manifest") from None
                else:
                    return await self._check()
            if not self._buffer:
                async with self._held.during(order):
                    self._buffer += await leg.read()
                    self._offset = leg.offset
        except LeftError:
            self._drop_leg()
            return False
        except PeerError as error:
            self._drop_leg()
            self._refused(order, error)
            return False
        return True

    async def _open_holder(self, holders: tuple[PeerInfo, ...]) -> bool:
        """Whether a complete holder serves the rest."""
        request = self._request
        if self._offset and (self.extent or self._buffer):
            request = replace(request, range_header=f"bytes={self._offset}-")
        opened = await self._peers.open_from(holders, request)
        if opened is not None and self._fits(opened):
            self._holder, self._last = opened, None
            if self.extent is None and not self._buffer:
                start = opened.part.start if opened.part else 0
                self.extent = Extent(start, start + opened.length, opened.size)
                self.kind, self.manifest = opened.media_type, opened.manifest
            return True
        if opened is not None:
            await opened.close()
        self._pulls.refused(self._flight, holders[0].peer_id, Reason.GONE, request.notes.miss)
        return False

    def _fits(self, opened: Opened) -> bool:
        """Whether it continues where the content of sources ended."""
        if self.extent is None and not self._buffer:
            return True
        start = opened.part.start if opened.part else 0
        size_fits = self.extent is None or opened.size == self.extent.size
        return size_fits and start == self._offset and start + opened.length == opened.size

    # --- one source -------------------------------------------------------------------------------------

    async def _join(self, order: Join) -> Leg:
        """The source's response, at the current offset. Raises PeerError, LeftError."""
        peer = order.source
        if self._access.knowledge.trust.is_banned(peer.peer_id, _now()):
            raise PeerError(Outcome.BAD_ANSWER, "it is banned")
        range_header = f"bytes={self._offset}-" if self._offset else ""
        target, response = self._request.content.target, None
        async with self._held.during(order):
            self._request.notes.attempts += 1
            response = await self._access.request("GET", peer, target, range_header, follows=True)
        try:
            extent = self._check_head(response)
        except WrongAnswerError as error:
            response.close()
            raise PeerError(Outcome.BAD_ANSWER, str(error)) from error
        self.extent = self.extent or Extent(self._wanted_start(), extent.stop, extent.size)
        if self._request.content.is_manifest and not self._buffer:
            self.kind = response.headers.get("content-type", "")
        self._pulls.accepted(self._flight, peer)
        self._flight.total = extent.size
        self._last = self._request.notes.peer = peer.peer_id
        nearness = self._access.judge(key=self._request.content.key, verified=False).nearness(peer.peer_id)

        def count(size: int) -> None:
            self._access.count_bytes(nearness, size)
            self._series.shared_bytes.labels("follower").inc(size)

        self._leg = self._held.feed = Leg(self._pulls, self._flight, peer, response, self._offset, count)
        self._leg_order = order
        return self._leg

    def _wanted_start(self) -> int:
        return self._offset - len(self._buffer)

    def _check_head(self, response: PeerResponse) -> Extent:
        """The extent of the response. Raises WrongAnswerError."""
        headers = response.headers
        answer = Answer(
            response.status, response.left, headers.get("content-range", ""), headers.get("docker-content-digest", "")
        )
        if self.extent is not None:
            return self._wanted.check(answer, self.extent, self._offset - self.extent.start)
        found = self._wanted.check(answer, None, 0)
        if (found.start, found.stop) != (self._offset, found.size):
            raise WrongAnswerError(f"bytes {found.start}-{found.stop}/{found.size}, not those from {self._offset} on")
        return found

    def _drop_leg(self) -> None:
        leg, self._leg, self._leg_order, self._held.feed = self._leg, None, None, None
        if leg is not None:
            self._offset = leg.offset
            leg.close()

    def _refused(self, order: Join, error: PeerError) -> None:
        if self._held.order is order:
            self._pulls.refused(self._flight, order.source.peer_id, reason_of(error), error)

    # --- small content ----------------------------------------------------------------------------------

    def _is_verified(self, size: int) -> bool:
        """Whether content of this size is verified before it is passed on."""
        if self._request.content.is_manifest:
            return size <= MANIFEST_BYTES_MAX
        return self._wanted_start() == 0 and size <= self._access.config.fetch.verify_bytes_max

    async def _take_room(self, size: int) -> bool:
        if not self._room and await self._access.knowledge.verified.room(size):
            self._room = size
        if not self._room and self._request.content.is_manifest:
            raise PeerError(Outcome.OWN_LIMIT, "no memory to verify it in")
        return bool(self._room)

    async def _check(self) -> bool:
        """Whether the buffer is what the digest says; if not, containerd goes upstream."""
        self._drop_leg()
        is_right = hashlib.new(self._digest.algorithm, self._buffer).hexdigest() == self._digest.hex
        if is_right and self._request.content.is_manifest:
            self.manifest = await parsed(bytes(self._buffer))
            stated = media_type.manifest_type(self.kind)
            self.kind = (self.manifest.type_with_hint(stated) if self.manifest else stated) or ""
            is_right = bool(self.kind)
            if self.manifest:
                self._access.knowledge.learn_sizes(self.manifest.children)
        if not is_right:
            self._pulls.spoiled(self._flight)
        return is_right

    # --- behind the head --------------------------------------------------------------------------------

    async def send(self, sink: Sink) -> None:
        """Send the body. Raises BrokeOffError, ClientGoneError."""
        assert self.extent is not None
        for at in range(0, len(self._buffer), WRITE_BYTES):
            await sink.write(bytes(self._buffer[at : at + WRITE_BYTES]))
            await asyncio.sleep(0)
        self._buffer.clear()
        self._give_room_back()
        while self._offset < self.extent.stop:
            if self._holder is not None:
                await self._send_from_holder(self._holder, sink)
                continue
            order = await self._held.next()
            match order:
                case GoUpstream():
                    raise BrokeOffError("the rest comes from upstream")
                case UseHolders(_, peers):
                    await self._open_holder(peers)
                case Join():
                    await self._send_from_source(order, sink)
        self._pulls.delivered(self._flight, self._last, self.extent.length)

    async def _send_from_source(self, order: Join, sink: Sink) -> None:
        assert self.extent is not None
        try:
            if self._leg is None or self._leg_order is not order:
                self._drop_leg()
                await self._join(order)
            assert self._leg is not None
            while self._leg.left and self._held.order is order:
                await self._leg.move(sink)
        except LeftError:
            pass
        except PeerError as error:
            self._refused(order, error)
        finally:
            self._drop_leg()

    async def _send_from_holder(self, holder: Opened, sink: Sink) -> None:
        before = sink.sent
        try:
            await holder.send(sink)
        except BrokeOffError as error:
            if self._held.order is None or isinstance(self._held.order, GoUpstream):
                raise
            assert isinstance(self._held.order, UseHolders)
            self._offset += sink.sent - before
            self._pulls.received(self._flight, self._offset)
            self._pulls.refused(self._flight, self._held.order.peers[0].peer_id, Reason.GONE, error)
        else:
            self._offset += sink.sent - before
            self._pulls.received(self._flight, self._offset)
        finally:
            self._holder = None
            await holder.close()

    async def close(self) -> None:
        """End the request; a second call does nothing."""
        self._drop_leg()
        self._give_room_back()
        if self._flight.request is self._held:
            self._pulls.close(self._flight)
        holder, self._holder = self._holder, None
        if holder is not None:
            await holder.close()

    def _give_room_back(self) -> None:
        if self._room:
            self._access.knowledge.verified.free(self._room)
            self._room = 0


class OpenedDelivery(Opened):
    """It owns the delivery, whose first bytes are there."""

    def __init__(self, delivery: Delivery, digest: Digest) -> None:
        extent = delivery.extent
        assert extent is not None
        part = ByteRange(extent.start, extent.stop, extent.size) if extent.start or extent.stop < extent.size else None
        super().__init__(Origin.PEER, digest, delivery.kind, extent.size, part)
        self.manifest, self._delivery = delivery.manifest, delivery

    async def send(self, sink: Sink) -> None:
        """See Opened."""
        await self._delivery.send(sink)

    async def close(self) -> None:
        """See Opened."""
        await self._delivery.close()


def _now() -> float:
    return asyncio.get_running_loop().time()
