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
from dataclasses import replace

from speil.claims.action import GoUpstream, Join, UseHolders
from speil.claims.message import Reason
from speil.fetch.resume import Extent, Wanted, WrongAnswerError
from speil.inflight.buffer import Buffer
from speil.inflight.flight import Flight
from speil.inflight.held import HeldRequest, LeftError, StepAside
from speil.inflight.leg import Leg, reason_of
from speil.inflight.promise import Promise
from speil.inflight.pulls import Pulls
from speil.inflight.series import InflightSeries
from speil.multiformats.peer_id import PeerId
from speil.multiformats.peer_info import PeerInfo
from speil.oci import media_type
from speil.oci.manifest import MANIFEST_BYTES_MAX, Manifest
from speil.sources.base import BrokeOffError, ContentRequest, Opened
from speil.sources.peer_access import PeerAccess
from speil.sources.peer_error import Outcome, PeerError
from speil.sources.peers import Peers
from speil.store.walk import parsed
from speil.wire.sink import Sink

VERIFY_SECONDS_MAX = 2.0  # then small content is passed on as it comes, like any other


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
        wanted: Wanted,
    ) -> None:
        """`wanted`: what every source's answer must be."""
        self._pulls, self._flight, self._held, self._request = pulls, flight, held, request
        self._access, self._peers, self._series = access, peers, series
        self._offset = start  # of the content, passed on or in the buffer
        self._buffer = Buffer(flight.digest, access.knowledge.verified)
        self._leg: Leg | None = None
        self._leg_order: Join | None = None
        self._holder: Opened | None = None
        self._last: PeerId | None = None  # the source that sent last; None for holders
        self.steps_aside = False  # containerd's request is ended without a byte, and will be back
        self.kind = media_type.OCTET_STREAM
        self.manifest: Manifest | None = None
        self._promise = Promise(wanted, start)

    @property
    def extent(self) -> Extent:
        """What containerd is promised; once `open` has returned True."""
        assert self._promise.extent is not None
        return self._promise.extent

    # --- before the head --------------------------------------------------------------------------------

    async def open(self) -> bool:
        """Whether the content is shared, once its first bytes are there; if not, containerd is to go upstream."""
        while True:
            order = await self._held.next()
            match order:
                case GoUpstream():
                    return False
                case StepAside():
                    self.steps_aside = True
                    return False
                case UseHolders(_, peers):
                    if await self._open_holder(peers):
                        return True
                case Join():
                    if await self._open_source(order):
                        return True
                    if not self._buffer:
                        self._promise.forget()

    async def _open_source(self, order: Join) -> bool:
        """Whether content of this source is ready to be sent."""
        try:
            leg = await self._join(order)
            size = leg.left + self._offset
            if self._is_verified(size) and await self._take_room(size):
                try:
                    async with self._held.during(order), asyncio.timeout(VERIFY_SECONDS_MAX):
                        await self._buffer.fill(leg)
                except TimeoutError:
                    if self._request.content.is_manifest:
                        raise PeerError(Outcome.TIMEOUT, "too slow for a manifest") from None
                else:
                    self._drop_leg()
                    return await self._check()
            if not self._buffer:
                async with self._held.during(order):
                    self._buffer.add(await leg.read())
        except LeftError:
            self._drop_leg()
            return False
        except PeerError as error:
            self._drop_leg()
            self._refused(order, error)
            return False
        return True

    def _is_verified(self, size: int) -> bool:
        """Whether content of this size is verified before it is passed on."""
        if self._request.content.is_manifest:
            return True
        return not self._promise.start and size <= self._access.config.fetch.verify_bytes_max

    async def _take_room(self, size: int) -> bool:
        is_manifest = self._request.content.is_manifest
        if is_manifest and size > MANIFEST_BYTES_MAX:
            raise PeerError(Outcome.BAD_ANSWER, f"{size} bytes")
        has_room = await self._buffer.take_room(size)
        if is_manifest and not has_room:
            raise PeerError(Outcome.OWN_LIMIT, "no memory to verify it in")
        return has_room

    async def _check(self) -> bool:
        """Whether the buffer is what the digest says; if not, containerd goes upstream."""
        is_right = self._buffer.is_right
        if is_right and self._request.content.is_manifest:
            self.manifest = await parsed(self._buffer.data)
            stated = media_type.manifest_type(self.kind)
            self.kind = (self.manifest.type_with_hint(stated) if self.manifest else stated) or ""
            is_right = bool(self.kind)
            if self.manifest:
                self._access.knowledge.learn_sizes(self.manifest.children)
        if not is_right:
            self._pulls.spoiled(self._flight.digest)
        return is_right

    async def _open_holder(self, holders: tuple[PeerInfo, ...]) -> bool:
        """Whether a complete holder serves the rest."""
        request, is_first = self._request, self._promise.extent is None
        if self._offset > self._promise.start:
            request = replace(request, range_header=f"bytes={self._offset}-")
        opened = await self._peers.open_from(holders, request)
        if opened is not None and self._promise.takes(opened, self._offset):
            self._holder, self._last = opened, None
            if is_first:
                self.kind, self.manifest = opened.media_type, opened.manifest
            return True
        if opened is not None:
            await opened.close()
        self._pulls.refused(self._flight, holders[0].peer_id, Reason.GONE, request.notes.miss)
        return False

    # --- one source -------------------------------------------------------------------------------------

    async def _join(self, order: Join) -> Leg:
        """The source's response, at the current offset. Raises PeerError, LeftError."""
        peer = order.source
        trust = self._access.knowledge.trust
        if trust.is_banned(peer.peer_id, _now()) or trust.is_suspect(peer.peer_id, _now()):
            raise PeerError(Outcome.BAD_ANSWER, "it may have sent wrong bytes")
        range_header = f"bytes={self._offset}-" if self._offset else ""
        async with self._held.during(order):
            self._request.notes.attempts += 1
            response = await self._access.request("GET", peer, self._request.content.target, range_header, follows=True)
        try:
            self._flight.total = self._promise.take(response, self._offset).size
        except WrongAnswerError as error:
            response.close()
            raise PeerError(Outcome.BAD_ANSWER, str(error)) from error
        if self._request.content.is_manifest:
            self.kind = response.headers.get("content-type", "")
        self._pulls.accepted(self._flight, peer)
        self._last = self._request.notes.peer = peer.peer_id
        nearness = self._access.judge(key=self._request.content.key, verified=False).nearness(peer.peer_id)

        def came(size: int) -> None:
            self._offset += size
            self._access.count_bytes(nearness, size)
            self._series.shared_bytes.labels("follower").inc(size)

        self._leg = self._held.feed = Leg(self._pulls, self._flight, response, self._offset, came)
        self._leg_order = order
        return self._leg

    def _drop_leg(self) -> None:
        leg, self._leg, self._leg_order, self._held.feed = self._leg, None, None, None
        if leg is not None:
            leg.close()

    def _refused(self, order: Join, error: PeerError) -> None:
        if self._held.order is order:
            self._pulls.refused(self._flight, order.source.peer_id, reason_of(error), error)

    # --- behind the head --------------------------------------------------------------------------------

    async def send(self, sink: Sink) -> None:
        """Send the body. Raises BrokeOffError, ClientGoneError."""
        if self._leg is not None:
            self._leg.is_held_up = True
        await self._buffer.send(sink)
        if self._leg is not None:
            self._leg.is_held_up = False
        while self._offset < self.extent.stop:
            if self._holder is not None:
                await self._send_from_holder(self._holder, sink)
                continue
            order = await self._held.next()
            match order:
                case GoUpstream():
                    raise BrokeOffError("the rest comes from upstream")
                case StepAside():
                    raise BrokeOffError("it steps aside")
                case UseHolders(_, peers):
                    await self._open_holder(peers)
                case Join():
                    await self._send_from_source(order, sink)
        self._pulls.delivered(self._flight, self._last, self.extent.length)

    async def _send_from_source(self, order: Join, sink: Sink) -> None:
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
        before, order = sink.sent, self._held.order
        error: BrokeOffError | None = None
        try:
            await holder.send(sink)
        except BrokeOffError as broke_off:
            error = broke_off
        finally:
            self._holder = None
            await holder.close()
        self._offset += sink.sent - before
        self._pulls.received(self._flight, self._offset)
        if error is not None and isinstance(order, UseHolders) and self._held.order is order:
            self._pulls.refused(self._flight, order.peers[0].peer_id, Reason.GONE, error)

    async def close(self) -> None:
        """End the request; a second call does nothing."""
        self._drop_leg()
        self._buffer.close()
        if self._flight.request is self._held:
            self._pulls.close(self._flight)
        holder, self._holder = self._holder, None
        if holder is not None:
            await holder.close()


def _now() -> float:
    return asyncio.get_running_loop().time()
