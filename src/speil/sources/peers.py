"""The peers as a source: small content is verified before it is passed on, larger content is passed on as it arrives.

Manifests, and blobs up to a bound, are read whole and checked: a peer that sends wrong bytes is banned, another one is
asked, and the client does not notice. Requests for the same small blob at the same time share one verification.
"""

from __future__ import annotations

import asyncio
import re
from dataclasses import dataclass, replace

from speil.fetch.resume import Wanted
from speil.fetch.trust import NO_CAUTION, Caution
from speil.multiformats.peer_info import PeerInfo
from speil.observe.logs import get_log
from speil.oci import media_type
from speil.oci.endpoint import Content
from speil.oci.manifest import MANIFEST_BYTES_MAX, Manifest
from speil.sources.base import ContentRequest, Opened
from speil.sources.peer_access import PeerAccess
from speil.sources.peer_error import NoPeerError, Outcome, PeerError
from speil.sources.peer_race import PeerRace
from speil.sources.relayed import OpenedRelay
from speil.sources.verified import Verified
from speil.sources.verified_body import OpenedVerified
from speil.sources.verify import IsWanted, verify
from speil.store.walk import parsed

# ranges that are sent to peers; `bytes=0-` is all of it (oci.byte_range says why)
_FORWARDED_RANGE = re.compile(r"bytes=(?:[1-9]\d{0,18}-\d{0,19}|0-\d{1,19}|-[1-9]\d{0,18})", re.ASCII)

log = get_log("relay")


@dataclass(frozen=True, slots=True)
class Far:
    """The holders of other zones that one request may ask, and how careful it is with them."""

    peers: tuple[PeerInfo, ...]
    caution: Caution


class Peers:
    """A `Source`: content by digest, from other nodes."""

    def __init__(self, access: PeerAccess) -> None:
        self._access = access

    async def open(self, request: ContentRequest, caution: Caution | None = None) -> Opened | None:
        """See Source. `caution`: what `caution` returned for this request, if that was called."""
        if caution is None:
            caution = self.caution(request)
        elif caution.avoids_suspects:  # debtors may have come, or settled, while the request waited
            caution = replace(caution, debtors=self._caution_again(request).debtors)
        return await self._open(_Attempt(self._access, request, caution), request)

    async def open_from(self, holders: tuple[PeerInfo, ...], request: ContentRequest) -> Opened | None:
        """The same, from one of `holders`. Where none serves it, containerd does not go upstream for that yet."""
        attempt = _Attempt(self._access, request, self._caution_again(request), holders, is_last=False)
        return await self._open(attempt, request)

    async def open_near(self, request: ContentRequest) -> Opened | Far:
        """The same, from a peer of this node's zone; where none serves it, the holders of other zones."""
        attempt = _Attempt(self._access, request, self.caution(request), near_only=True)
        return await self._open(attempt, request) or Far(attempt.race.far, attempt.caution)

    async def open_far(self, far: Far, request: ContentRequest) -> Opened | None:
        """The same, from what `open_near` returned for this request; None also where that is nobody."""
        return await self._open(_Attempt(self._access, request, far.caution, far.peers), request) if far.peers else None

    def caution(self, request: ContentRequest) -> Caution:
        """Whom this request may ask; to be decided before the first peer is asked, and once for a request."""
        digest = request.content.digest
        if digest is None or not _settles(request):
            return NO_CAUTION
        from_start = not _forwarded_range(request)
        caution = self._access.knowledge.trust.asked(digest, _now(), from_start=from_start)
        if caution.suspects:
            log.warning(
                "content is asked for again after it was delivered: its senders are suspect",
                key=request.content.key,
                peers=[str(peer_id) for peer_id in caution.suspects],
            )
        return caution

    def _caution_again(self, request: ContentRequest) -> Caution:
        """The same, after `caution` was called."""
        digest = request.content.digest
        if digest is None or not _settles(request):
            return NO_CAUTION
        return self._access.knowledge.trust.asked_before(digest, _now())

    async def _open(self, attempt: _Attempt, request: ContentRequest) -> Opened | None:
        request.notes.asked_peers = True
        await attempt.race.start()
        try:
            return await (attempt.open_manifest() if request.content.is_manifest else attempt.open_blob())
        except NoPeerError as error:
            request.notes.miss = str(error)
            await attempt.race.close()
            return None
        except BaseException:
            await attempt.race.close()
            raise

    async def fetch(self, content: Content, size_bytes_max: int) -> bytes | None:
        """Verified bytes of small content; None where no peer serves it."""
        attempt = _Attempt(self._access, ContentRequest(content, "GET"), NO_CAUTION)
        await attempt.race.start()
        try:
            found = await attempt.whole(size_bytes_max, None)
            self._access.knowledge.verified.release(found)
            return found.data
        except NoPeerError:
            return None
        finally:
            await attempt.race.close()

    async def has(self, content: Content) -> bool:
        """Whether a peer says that it holds a blob."""
        opened = await self.open(ContentRequest(content, "HEAD"))
        if opened is None:
            return False
        await opened.close()
        return True


class _Attempt:
    """One request's way to an `Opened`, which then owns the race."""

    def __init__(
        self,
        access: PeerAccess,
        request: ContentRequest,
        caution: Caution,
        among: tuple[PeerInfo, ...] = (),
        *,
        near_only: bool = False,
        is_last: bool = True,
    ) -> None:
        """`is_last`: containerd goes upstream where nobody serves it."""
        self._among, self._near_only, self._is_last = among, near_only, is_last
        content, digest = request.content, request.content.digest
        assert digest is not None
        self._access, self._content, self._digest, self._notes = access, content, digest, request.notes
        self._known = access.knowledge
        self._range_header = _forwarded_range(request)
        # of a manifest the bytes are read even for HEAD: what its head says must be true
        self._method = "GET" if content.is_manifest else request.method
        self._settles, self.caution = _settles(request), caution
        self.race = self._make_race()

    # --- small content ----------------------------------------------------------------------------------

    async def open_manifest(self) -> Opened:
        """A manifest, with the type that it or the peer states. Raises NoPeerError."""
        kind: str | None = None
        manifest: Manifest | None = None

        async def is_manifest(data: bytes, stated: str) -> bool:
            nonlocal kind, manifest
            stated = media_type.manifest_type(stated)
            manifest = await parsed(data)
            kind = manifest.type_with_hint(stated) if manifest is not None else (stated or None)
            return kind is not None

        found = await self.whole(MANIFEST_BYTES_MAX, is_manifest)
        if manifest is not None:
            self._known.learn_sizes(manifest.children)
        log.debug("manifest from a peer", key=self._content.key, peer=found.peer.peer_id)
        return self._verified(found, kind or "", manifest)

    async def whole(self, size_bytes_max: int, is_wanted: IsWanted | None) -> Verified:
        """Small content of the first peer whose bytes are right and wanted; the caller releases it.

        Raises NoPeerError.
        """
        while True:
            await self._open_race()
            if (size := self.race.promised.size) > size_bytes_max:
                self.race.drop(PeerError(Outcome.BAD_ANSWER, f"{size} bytes"))
            elif found := await verify(self._access, self.race, self._digest, self._content.key, is_wanted):
                return found

    # --- blobs ------------------------------------------------------------------------------------------

    async def open_blob(self) -> Opened:
        """A blob: verified where it is small. Raises NoPeerError, UnsatisfiableError."""
        digest, shared = self._digest, self._known.verified
        if self._method == "HEAD":
            await self._open_race()
            return self._relayed()
        if found := await self._shared():
            return self._verified(found)
        # other requests for it wait until this one has found out whether it is small, and then share it
        is_scout = shared.begin(digest)
        try:
            while not found:
                await self._open_race()
                promised = self.race.promised
                if promised.size > self._access.config.fetch.verify_bytes_max:
                    return self._relayed()
                if not promised.is_whole:
                    self.race.start_over()  # a part can't be verified
                elif is_scout or (is_scout := shared.begin(digest)):
                    found = await verify(self._access, self.race, digest, self._content.key, None)
                else:
                    self.race.start_over()
                    found = await self._shared()
        finally:
            if is_scout:
                shared.end(digest, found)
        return self._verified(found)

    async def _shared(self) -> Verified | None:
        """Content that another request verifies, or has verified and is sending."""
        if self.race.asks_for_part:
            return None
        shared = self._known.verified
        if not shared.is_pending(self._digest):
            return shared.use(self._digest)
        found = await shared.wait(self._digest)
        self.race.start_over()
        return found

    async def _open_race(self) -> None:
        try:
            await self.race.open()
        except NoPeerError:
            if self._settles and self._is_last and not (self._near_only and self.race.far):
                self._known.trust.turned_away(self._digest, _now())
            raise

    def _verified(
        self, found: Verified, kind: str = media_type.OCTET_STREAM, manifest: Manifest | None = None
    ) -> Opened:
        """Raises UnsatisfiableError: the size is known now, whatever a peer stated before."""
        self._notes.peer = found.peer.peer_id
        try:
            return OpenedVerified(found, self._known.verified, self.race, kind, self._range_header, manifest)
        except BaseException:
            self._known.verified.release(found)
            raise

    def _relayed(self) -> Opened:
        self.race.promise()
        return OpenedRelay(
            self._access,
            self.race,
            self._digest,
            self._content.key,
            is_hashed=self.caution.hashed,
            settles=self._settles,
        )

    # --- whom to ask ------------------------------------------------------------------------------------

    def _make_race(self) -> PeerRace:
        checked_bytes_max = self._access.config.fetch.verify_bytes_max
        if self._content.is_manifest:
            checked_bytes_max = MANIFEST_BYTES_MAX
        elif self._method == "HEAD":
            checked_bytes_max = -1  # the bytes behind a head are not checked
        sizes = self._known.sizes.get(self._digest, _now())
        verified = self._content.is_manifest or (bool(sizes) and max(sizes) <= checked_bytes_max)
        return PeerRace(
            self._access,
            self._content,
            self._method,
            Wanted(self._digest, self._range_header, sizes, checked_bytes_max),
            self._access.judge(self.caution, verified=verified, key=self._content.key),
            self._notes,
            self._among,
            near_only=self._near_only,
        )


def _settles(request: ContentRequest) -> bool:
    """Whether containerd's next requests show if content that is passed on unverified was right."""
    return request.verifies and request.method == "GET" and not request.content.is_manifest


def _forwarded_range(request: ContentRequest) -> str:
    """The client's range, where it is one to ask a peer for; else "": all of it."""
    is_range = _FORWARDED_RANGE.fullmatch(request.range_header) is not None
    return request.range_header if is_range and not request.content.is_manifest else ""


def _now() -> float:
    return asyncio.get_running_loop().time()
