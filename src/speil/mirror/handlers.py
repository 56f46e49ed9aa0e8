"""One request, from its first line to the end of its answer.

1. Is it `GET` or `HEAD` of something we serve? Anything else is an empty 404, as in Spegel.
2. The region's border is behind us: the server's door let the request in (`border.http`).
3. Basic auth, where it is on and the request is not a peer's that proved itself. A wrong one gets a 401 without a
   challenge: containerd would answer a challenge with the user's registry credentials.
4. What is asked for: a manifest or blob, by digest or tag (`oci.endpoint`). Filtered images and registries that are
   not mirrored are 404. What a tag's digest is, and whether it may be told, is a matter of its own (`mirror.tags`).
5. This node has it, and it may be shared (`store.sharing`): sent from the store.
6. A peer asks (`X-Spegel-Mirrored`): what we don't have is 404 at once, so that peers never ask on our behalf.
7. Otherwise the peers are asked. A manifest or small blob is verified before a byte is passed on; a larger blob is
   passed on as it comes, containerd checks it (`mirror.relay_session`).
8. Nobody has it: 404, empty for containerd, which then keeps its connection and goes upstream at once.
"""

from __future__ import annotations

import asyncio
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from functools import partial

from aiohttp import web

from speil.border.http import HttpDoor, Visit, is_peer
from speil.http_server.connection import place_of
from speil.mirror.basic_auth import BasicAuth
from speil.mirror.body import BodyResponse, BodySink, ClientGoneError, FileBody
from speil.mirror.peer_client import RangeRefusedError
from speil.mirror.pump import PIECE_BYTES_MAX
from speil.mirror.recent import RecentRequests
from speil.mirror.relay import NoPeerError, Relay, RelaySession
from speil.mirror.request_places import RequestPlaces
from speil.mirror.settings import MirrorSettings
from speil.mirror.tags import IMAGES_HEADER, IMAGES_MAX, TagMissError, Tags
from speil.mirror.unreadable import Unreadable
from speil.mirror.uploads import Uploads, busy
from speil.mirror.upstream_bytes import UpstreamBytes
from speil.mirror.wire import Wire
from speil.observe.line_limit import LineLimit
from speil.observe.logs import get_log
from speil.observe.metrics import Metrics
from speil.oci import byte_range, endpoint, media_type, platform
from speil.oci.digest import Digest
from speil.oci.endpoint import Content, EndpointError, Ping
from speil.oci.error import ErrorCode, envelope
from speil.oci.manifest import MANIFEST_BYTES_MAX, Manifest
from speil.store.base import ContentStore, NotFoundError, OpenContent, StoreError
from speil.store.sharing import Sharing
from speil.store.walk import parsed, read_manifest
from speil.upload.admission import Refusal

VISIT = web.RequestKey("speil.visit", Visit)  # where a request keeps what the door made of it
CLIENT_GONE = 499  # nginx's status for it
REGISTRY_LABELS_MAX = 100  # distinct `registry` labels: strangers choose `ns`

log = get_log("mirror")


@dataclass(slots=True)
class Outcome:
    """What became of a request, for the log line and the metrics."""

    source: str = "none"  # store, peer or none
    result: str = "not found"
    peer: str | None = None
    attempts: int = 0


class Handlers:
    """The /v2 API over a store and a relay."""

    def __init__(
        self,
        store: ContentStore,
        relay: Relay,
        auth: BasicAuth,
        door: HttpDoor,
        wire: Wire,
        settings: MirrorSettings,
        metrics: Metrics,
        recent: RecentRequests,
        upstream_bytes: UpstreamBytes,
        *,
        sharing: Sharing | None = None,
    ) -> None:
        """`sharing` where the announcer tells it what it knows."""
        self._store, self._relay, self._auth, self._door = store, relay, auth, door
        self._wire, self._settings, self._metrics, self._recent = wire, settings, metrics, recent
        self._upstream_bytes = upstream_bytes
        self._selection = settings.selection
        self._sharing = sharing or Sharing(store, self._selection)
        self._tags = Tags(store, relay, metrics, settings.node_platforms, proven=lambda: door.proves)
        self._places = RequestPlaces(settings.uploads_per_peer_max)
        self.lines = LineLimit()  # of what others than this node cause
        self._uploads = Uploads(settings, metrics)
        self._unreadable = Unreadable()
        self._registries: set[str] = set()

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answer a request below /v2."""
        place = place_of(request)
        await self._wire.starts.enter(place.share)
        if request.method not in ("GET", "HEAD"):
            return web.Response(status=404)
        visit = request.get(VISIT)
        if not (visit and visit.is_proven) and not self._auth.allows(request.headers.get("Authorization", "")):
            if self._auth.failure:
                return web.Response(status=404)  # ours to mend: containerd goes upstream
            body = envelope(ErrorCode.UNAUTHORIZED, "invalid credentials")
            return web.Response(status=401, body=body, content_type="application/json")
        from_peer = is_peer(request.headers)
        try:
            asked = endpoint.parse(request.path, request.query.get("ns") or self._settings.default_registry or None)
        except EndpointError as error:
            log.debug("not an endpoint", path=request.path, error=error)
            return web.Response(status=404)
        if isinstance(asked, Ping):
            return web.Response()
        if not self._allowed(asked):
            return web.Response(status=404)
        with self._places.place(place.share, is_own=place.is_own and not from_peer) as refusal:
            if refusal is not None:
                return self._overloaded(request, from_peer, refusal)
            return await self._answer(request, asked, from_peer)

    def _overloaded(self, request: web.BaseRequest, from_peer: bool, refusal: Refusal) -> web.Response:
        if from_peer:
            self._uploads.refused("requests", request.remote or "")
            return busy("requests")
        self._metrics.http_requests_refused.labels("address" if refusal is Refusal.PEER else refusal).inc()
        return web.Response(status=404)

    def _allowed(self, asked: Content) -> bool:
        if asked.digest is not None:
            return self._selection.allows_repository(asked.registry, asked.name)
        if not self._settings.resolve_tags or asked.registry is None:
            return False
        return self._selection.allows_tag(asked.registry, asked.name, str(asked.reference))

    async def _answer(self, request: web.BaseRequest, asked: Content, from_peer: bool) -> web.StreamResponse:
        loop = asyncio.get_running_loop()
        started, outcome = loop.time(), Outcome()
        response: web.StreamResponse | None = None
        try:
            if asked.digest is None:
                answer = self._tag_to_peer if from_peer else self._tag_to_node
                response = await answer(request, asked, outcome)
            else:
                response = await self._from_store(request, asked, asked.digest, from_peer, outcome)
                if response is None and not from_peer:
                    response = await self._from_peers(request, asked, outcome)
                    if response is None:
                        self._tags.not_supplied(asked.digest, is_manifest=asked.is_manifest)
            if response is None:
                response = self._not_found(request, asked, from_peer, outcome)
        except ClientGoneError:
            outcome.result = "client gone"
            response = web.Response(status=CLIENT_GONE)  # for the metrics: nobody is there to get it
        except asyncio.CancelledError:
            outcome.result = "cancelled"
            raise
        finally:
            self._report(request, asked, from_peer, outcome, loop.time() - started)
        return response or web.Response(status=404)

    # --- from the store ---------------------------------------------------------------------------------

    async def _from_store(
        self, request: web.BaseRequest, asked: Content, digest: Digest, from_peer: bool, outcome: Outcome
    ) -> web.StreamResponse | None:
        try:
            if not await self._sharing.allows(digest):
                return None
            if asked.is_manifest:
                return await self._manifest_from_store(request, asked, digest, from_peer, outcome)
            if self._unreadable.holds(digest, asyncio.get_running_loop().time()):
                return None
            with await self._store.open(digest) as content:
                # manifests too: layers of artifacts may be manifests of other images
                return await self._blob_from_store(request, asked, content, from_peer, outcome)
        except NotFoundError:
            return None
        except (StoreError, OSError) as error:
            log.warning("the store failed", key=asked.key, error=error)
            return None

    async def _manifest_from_store(
        self, request: web.BaseRequest, asked: Content, digest: Digest, from_peer: bool, outcome: Outcome
    ) -> web.StreamResponse | None:
        if (loaded := await read_manifest(self._store, digest)) is None:
            return None
        data, manifest = loaded
        outcome.source, outcome.result = "store", "served"
        if not from_peer:
            self._tags.served(digest, manifest)
        headers = self._headers(asked, digest, _kind(request, manifest))
        return await self._send_bytes(request, asked, headers, data, "store", from_peer=from_peer)

    async def _blob_from_store(
        self, request: web.BaseRequest, asked: Content, content: OpenContent, from_peer: bool, outcome: Outcome
    ) -> web.StreamResponse:
        headers = self._headers(asked, content.digest, media_type.OCTET_STREAM) | {"Accept-Ranges": "bytes"}
        try:
            wanted = byte_range.parse(request.headers.get("Range"), content.size)
        except byte_range.UnsatisfiableError as error:
            outcome.result = "range not satisfiable"
            return _unsatisfiable(error.content_range)
        start, length = (wanted.start, wanted.length) if wanted else (0, content.size)
        if wanted:
            headers["Content-Range"] = wanted.content_range
        response, body = BodyResponse(206 if wanted else 200, headers, length), FileBody(content, start, length)
        outcome.source, outcome.result = "store", "served"
        try:
            if request.method == "HEAD":
                await response.send_nothing(request)
            elif not from_peer:
                await self._send(request, asked, response, body)
            else:
                with self._uploads.place(request.remote or "") as refusal:
                    if refusal is not None:
                        outcome.source, outcome.result = "none", f"busy: {refusal}"
                        return busy(refusal)
                    await self._upload(request, asked, response, body)
        except OSError as error:
            # the head is out: this answer can only break off, and the next must come from elsewhere
            outcome.result = f"broke off: {error}"
            self._unreadable.add(content.digest, asyncio.get_running_loop().time())
            log.error("the disk failed in mid-body", key=asked.key, missing_bytes=body.left, error=error)
        return response

    def _sink(
        self, request: web.BaseRequest, asked: Content, response: BodyResponse, source: str, from_peer: bool
    ) -> AbstractAsyncContextManager[BodySink]:
        """containerd on this node may take its time; anybody else has to make progress."""
        is_own = place_of(request).is_own and not from_peer
        count = partial(self._count, asked, source, from_peer)
        return response.open_sink(request, self._wire, count, None if is_own else self._metrics.http_slow_bodies.inc)

    async def _send(self, request: web.BaseRequest, asked: Content, response: BodyResponse, body: FileBody) -> None:
        async with self._sink(request, asked, response, "store", False) as sink:
            while body.left:
                await body.move(sink)

    async def _upload(self, request: web.BaseRequest, asked: Content, response: BodyResponse, body: FileBody) -> None:
        """The same to a peer, at the pace that the upload limit allows."""
        peer = request.remote or ""
        async with self._sink(request, asked, response, "store", True) as sink:
            while body.left:
                granted = await self._uploads.turn(peer, min(body.left, PIECE_BYTES_MAX))
                self._uploads.give_back(granted - await body.move(sink, granted))

    # --- tags -------------------------------------------------------------------------------------------

    async def _tag_to_peer(
        self, request: web.BaseRequest, asked: Content, outcome: Outcome
    ) -> web.StreamResponse | None:
        try:
            held = await self._tags.held(asked.key)
            if held is None or not await self._sharing.allows(held.digest):
                return None
            loaded = await read_manifest(self._store, held.digest)
        except NotFoundError:
            return None
        except (StoreError, OSError) as error:
            log.warning("the store failed", key=asked.key, error=error)
            return None
        if loaded is None:
            return None
        data, manifest = loaded
        outcome.source, outcome.result = "store", "served"
        headers = self._headers(asked, held.digest, _kind(request, manifest))
        headers[IMAGES_HEADER] = platform.show(held.images[:IMAGES_MAX])
        return await self._send_bytes(request, asked, headers, data, "store", from_peer=True)

    async def _tag_to_node(
        self, request: web.BaseRequest, asked: Content, outcome: Outcome
    ) -> web.StreamResponse | None:
        try:
            answer = await self._tags.resolve(asked)
        except TagMissError as miss:
            outcome.result, outcome.attempts = str(miss), miss.attempts
            self._metrics.mirror_requests.labels(self._label(asked), "miss").inc()
            return None
        outcome.source, outcome.result = "peer" if answer.peer else "store", "served"
        outcome.attempts = answer.attempts
        if answer.peer:
            outcome.peer = str(answer.peer.peer_id)
            self._metrics.mirror_requests.labels(self._label(asked), "hit").inc()
            self._metrics.mirror_last_success.set_to_current_time()
            self._relay.sizes.learn(answer.manifest.children, asyncio.get_running_loop().time())
        headers = self._headers(asked, answer.digest, _kind(request, answer.manifest))
        return await self._send_bytes(request, asked, headers, answer.data, outcome.source, from_peer=False)

    # --- from peers -------------------------------------------------------------------------------------

    async def _from_peers(
        self, request: web.BaseRequest, asked: Content, outcome: Outcome
    ) -> web.StreamResponse | None:
        hit = False
        response: web.StreamResponse | None = None
        # containerd verifies what it gets and keeps it: if it asks again, that tells something
        verifies = _is_containerd(request)
        wanted = request.headers.get("Range", "")
        async with self._relay.session(asked, request.method, wanted, verifies=verifies) as session:
            try:
                if asked.is_manifest:
                    response = await self._manifest_from_peer(request, asked, session)
                else:
                    response = await self._blob_from_peer(request, asked, session)
                hit = True
                outcome.source, outcome.result = "peer", "served"
                self._metrics.mirror_last_success.set_to_current_time()
            except RangeRefusedError as error:
                outcome.result = "range not satisfiable"
                response = _unsatisfiable(error.content_range)
            except NoPeerError as error:
                outcome.result = str(error)
                response = session.broken_response
                if response is not None:
                    outcome.source, outcome.result = "peer", f"broke off: {error}"
            except ClientGoneError:
                # it has what it wanted (a multipart fetch hangs up after each part), or the pull was cancelled
                hit, outcome.source = True, "peer"
                raise
            finally:
                outcome.attempts = session.attempts
                outcome.peer = str(session.peer.peer_id) if session.peer else None
                self._metrics.mirror_requests.labels(self._label(asked), "hit" if hit else "miss").inc()
                self._note_bytes(request, asked, hit, response)
        return response

    async def _manifest_from_peer(
        self, request: web.BaseRequest, asked: Content, session: RelaySession
    ) -> web.StreamResponse:
        head, digest, kind = await session.whole(MANIFEST_BYTES_MAX, partial(self._manifest_kind, asked))
        headers = self._headers(asked, digest, kind)
        log.debug("manifest from a peer", key=asked.key, peer=head.peer.peer_id)
        return await self._send_from_peer(request, asked, session, BodyResponse(200, headers, head.size))

    async def _manifest_kind(self, asked: Content, data: bytes, told: str) -> str | None:
        """The type to serve a peer's manifest with: what it says itself, or what the peer told of it."""
        told = media_type.manifest_type(told)
        if (manifest := await parsed(data)) is None:
            return told or None
        self._relay.sizes.learn(manifest.children, asyncio.get_running_loop().time())
        if asked.digest is not None:
            self._tags.served(asked.digest, manifest)
        return manifest.type_as_told(told)

    async def _blob_from_peer(
        self, request: web.BaseRequest, asked: Content, session: RelaySession
    ) -> web.StreamResponse:
        head = await session.head()
        digest = asked.digest or Digest.parse(head.headers.get("docker-content-digest", ""))
        headers = self._headers(asked, digest, media_type.OCTET_STREAM) | {"Accept-Ranges": "bytes"}
        if head.status == 206:
            headers["Content-Range"] = f"bytes {head.start}-{head.stop - 1}/{head.size}"
        response = BodyResponse(head.status, headers, head.stop - head.start)
        return await self._send_from_peer(request, asked, session, response)

    async def _send_from_peer(
        self, request: web.BaseRequest, asked: Content, session: RelaySession, response: BodyResponse
    ) -> web.StreamResponse:
        if request.method == "HEAD":
            await response.send_nothing(request)
            return response
        session.broken_response = response
        async with self._sink(request, asked, response, "peer", False) as sink:
            await session.send(sink)
        return response

    def _note_bytes(
        self, request: web.BaseRequest, asked: Content, hit: bool, response: web.StreamResponse | None
    ) -> None:
        """What is not served to its end, the node takes from upstream: from where it, or we, left off."""
        if request.method != "GET" or asked.digest is None:
            return
        if hit:
            self._upstream_bytes.served(asked.digest)
            return
        sent = response.sent if isinstance(response, BodyResponse) else 0
        self._upstream_bytes.missed(
            asked.digest, self._label(asked), byte_range.first_byte(request.headers.get("Range")) + sent
        )

    # --- answers ----------------------------------------------------------------------------------------

    async def _send_bytes(
        self,
        request: web.BaseRequest,
        asked: Content,
        headers: dict[str, str],
        data: bytes,
        source: str,
        *,
        from_peer: bool,
    ) -> web.StreamResponse:
        if request.method == "HEAD":
            response = BodyResponse(200, headers, len(data))
            await response.send_nothing(request)
            return response
        self._count(asked, source, from_peer, len(data))
        return web.Response(body=data, headers=headers)

    def _headers(self, asked: Content, digest: Digest, kind: str) -> dict[str, str]:
        headers = {"Content-Type": kind, "Docker-Content-Digest": str(digest), **self._door.response_headers}
        if asked.registry:
            headers["OCI-Namespace"] = asked.registry
        return headers

    def _not_found(
        self, request: web.BaseRequest, asked: Content, from_peer: bool, outcome: Outcome
    ) -> web.StreamResponse:
        if from_peer or _is_containerd(request):
            return web.Response(status=404)
        code = ErrorCode.MANIFEST_UNKNOWN if asked.is_manifest else ErrorCode.BLOB_UNKNOWN
        body = envelope(code, f"could not find peer for {asked.key}: {outcome.result}", {"attempts": outcome.attempts})
        return web.Response(status=404, body=body, content_type="application/json")

    def _report(
        self, request: web.BaseRequest, asked: Content, from_peer: bool, outcome: Outcome, seconds: float
    ) -> None:
        self._recent.add(request.method, asked.key, outcome.source, outcome.result, "peer" if from_peer else "node")
        write, left_out, place = log.debug, 0, place_of(request)
        if request.method == "GET":
            # what others ask is told now and then: they choose how often they do
            due = 0 if place.is_own and not from_peer else self.lines.due(place.share)
            write, left_out = (log.debug, 0) if due is None else (log.info, due)
        write(
            "sent to a peer" if from_peer else "asked by the node",
            method=request.method,
            image=asked.image,
            reference=str(asked.reference),
            source=outcome.source,
            outcome=outcome.result,
            peer=outcome.peer,
            attempts=outcome.attempts or None,
            duration_ms=round(seconds * 1e3, 1),
            left_out=left_out or None,
        )

    def _count(self, asked: Content, source: str, from_peer: bool, size: int) -> None:
        client = "peer" if from_peer else "node"
        self._metrics.served_bytes.labels(self._label(asked), source, client).inc(size)

    def _label(self, asked: Content) -> str:
        registry = asked.registry or ""
        if registry in self._registries or len(self._registries) < REGISTRY_LABELS_MAX:
            self._registries.add(registry)
            return registry
        return "other"


def _kind(request: web.BaseRequest, manifest: Manifest) -> str:
    """The type to serve a manifest with: what it says itself counts more than what is asked for."""
    return manifest.type_as_told(media_type.asked_type(request.headers.get("Accept", "")))


def _is_containerd(request: web.BaseRequest) -> bool:
    return request.headers.get("User-Agent", "").startswith("containerd/")


def _unsatisfiable(content_range: str) -> web.Response:
    return web.Response(status=416, headers={"Content-Range": content_range, "Accept-Ranges": "bytes"})
