"""One request below /v2, from its head to the end of its answer.

1. Only `GET` and `HEAD` are served. Anything else is an empty 404, as in Spegel.
2. Basic auth, where it is on, unless the request is a peer's that proved itself.
3. What is asked for (`asked`); then it must be within the bound of open requests (`open_requests`).
4. Which source has it (`resolve`): the store, then the peers. A peer's request is answered from the store alone, so
   that peers never ask on behalf of this node; a follower's also from what this node downloads.
5. The answer (`plan`), sent by `send`. The bounds and the limit of uploads hold for a blob to a peer.
6. Nobody has it: an empty 404, and containerd asks the upstream registry.
"""

from __future__ import annotations

from collections.abc import Mapping

from speil.border.http import Visit
from speil.http1.message import Request
from speil.http1.reply import Reply
from speil.inflight.serving import Followers
from speil.mirror import plan as plans
from speil.mirror.asked import Asked, Parser
from speil.mirror.basic_auth import BasicAuth
from speil.mirror.open_requests import OpenRequests
from speil.mirror.plan import Plan
from speil.mirror.record import Record
from speil.mirror.resolve import Resolver
from speil.mirror.send import Sender
from speil.mirror.uploads import Uploads
from speil.oci.byte_range import UnsatisfiableError
from speil.oci.endpoint import Ping
from speil.sources.base import Opened, Origin
from speil.upload.admission import Refusal


class Registry:
    """The /v2 API."""

    def __init__(
        self,
        parser: Parser,
        auth: BasicAuth,
        open_requests: OpenRequests,
        resolver: Resolver,
        uploads: Uploads,
        sender: Sender,
        node_headers: Mapping[str, str],
        followers: Followers | None = None,
    ) -> None:
        """`node_headers` are those that each answer with content carries (region, zone).

        `followers` is None where nothing is shared in flight.
        """
        self._parser, self._auth, self._open_requests, self._resolver = parser, auth, open_requests, resolver
        self._uploads, self._sender, self._node_headers = uploads, sender, node_headers
        self._followers = followers

    async def answer(self, request: Request, reply: Reply, visit: Visit, record: Record) -> None:
        """Answer a request that the region's border let in (`visit`)."""
        if (refused := self._check(request, visit)) is not None:
            await self._sender.send(refused, reply, record)
            return
        asked = self._parser.parse(request)
        if not isinstance(asked, Asked):
            await self._sender.send(plans.OK if isinstance(asked, Ping) else plans.NOT_FOUND, reply, record)
            return
        is_own = request.place.is_own and not asked.from_peer
        with self._open_requests.admit(request.place.share, is_own=is_own) as refusal:
            if refusal is not None:
                await self._sender.send(self._overloaded(asked, refusal, request.place.host), reply, record)
                return
            record.asked = asked
            await self._serve(asked, request, reply, record)

    async def _serve(self, asked: Asked, request: Request, reply: Reply, record: Record) -> None:
        try:
            opened = await self._resolver.open(asked, record)
        except UnsatisfiableError as error:
            record.outcome = "range not satisfiable"
            await self._sender.send(plans.unsatisfiable(error), reply, record)
            return
        if opened is None:
            record.outcome = record.notes.miss
            await self._sender.send(plans.miss(asked, record.notes), reply, record)
            return
        async with opened:
            answer = plans.serve(opened, asked, self._node_headers)
            if asked.from_peer and record.method == "GET" and not asked.content.is_manifest:
                await self._upload(answer, opened, request.place.host, reply, record)
            else:
                await self._sender.send(answer, reply, record)

    async def _upload(self, answer: Plan, opened: Opened, peer: str, reply: Reply, record: Record) -> None:
        if self._followers is not None and opened.origin is Origin.INGEST:
            admission = self._followers.admit(opened, peer)
            reply.when_client_left(opened.client_left)
        else:
            admission = self._uploads.admit(peer)
        with admission as refusal:
            if refusal is None:
                await self._sender.send(answer, reply, record, self._uploads.pacing(peer))
                return
        record.source, record.outcome = None, f"busy: {refusal}"
        await self._sender.send(plans.busy(refusal), reply, record)

    def _check(self, request: Request, visit: Visit) -> Plan | None:
        """Why the request is refused."""
        if request.method not in ("GET", "HEAD"):
            return plans.NOT_FOUND
        if visit.is_proven or self._auth.allows(request.headers.get("Authorization", "")):
            return None
        # credentials that can't be read are this node's error: containerd goes upstream
        return plans.NOT_FOUND if self._auth.failure else plans.UNAUTHORIZED

    def _overloaded(self, asked: Asked, refusal: Refusal, host: str) -> Plan:
        if asked.from_peer:
            self._uploads.refused("requests", host)
            return plans.busy("requests")
        self._open_requests.count_refused(refusal)
        return plans.NOT_FOUND
