"""What other nodes have, or download: which of them is asked first.

Peers that have the content come first, then what others download. Three kinds of requests for a download go the other
way:

- Nobody has the content, as far as this node knows, and the region is so small that each node has all provider records.
  A search would ask each of them. The umpire alone knows who downloads the content now, and who has had it for moments.
  Only a node that is sent upstream searches, before it goes. Content that was delivered lately is searched for at once:
  containerd asks for it again, and `fetch.trust` says who may send it.
- It stepped aside (`slots`) and is back soon. Nobody had the content a moment ago, and the umpire, which is asked
  anyway, names those who have it now. There is a second search only where it names nobody.
- With zones: content that only other zones hold crosses their border once. Peers of this zone come first, then what
  other nodes download, then peers of other zones. The first node of a zone that asks its umpire takes the content from
  another zone, and its download grows; the next ones follow that download.
"""

from __future__ import annotations

import asyncio

from speil.inflight.flight import key_of
from speil.inflight.following import Following
from speil.inflight.pulls import Pulls
from speil.oci.digest import Digest
from speil.routing.claim_network import ClaimNetwork
from speil.sources.base import ContentRequest, Opened
from speil.sources.peer_access import PeerAccess
from speil.sources.peers import Peers

BACK_SECONDS = 10.0  # since it stepped aside; after that provider records may have come that the umpire does not know


class OtherNodes:
    """A `Source`."""

    def __init__(
        self, pulls: Pulls, claims: ClaimNetwork, access: PeerAccess, peers: Peers, following: Following
    ) -> None:
        self._pulls, self._claims, self._access = pulls, claims, access
        self._peers, self._following = peers, following

    async def open(self, request: ContentRequest) -> Opened | None:
        """See Source."""
        digest = request.content.digest
        if digest is None or not _is_download(request):
            return await self._peers.open(request) or await self._following.open(request)
        request.notes.asked_peers = True
        if self._is_back(digest) or self._is_new(digest):
            caution = self._peers.caution(request)
            return await self._following.open(request) or await self._peers.open(request, caution)
        if not self._access.config.zone:
            return await self._peers.open(request) or await self._following.open(request)
        near = await self._peers.open_near(request)
        if isinstance(near, Opened):
            return near
        return await self._following.open(request) or await self._peers.open_far(near, request)

    def _is_back(self, digest: Digest) -> bool:
        flight = self._pulls.flight(digest)
        return flight is not None and flight.is_aside and _now() < flight.aside_at + BACK_SECONDS

    def _is_new(self, digest: Digest) -> bool:
        return self._claims.nobody_has(key_of(digest)) and not self._access.knowledge.trust.remembers(digest, _now())


def _is_download(request: ContentRequest) -> bool:
    """Whether others can follow: containerd downloads a blob from its first byte on."""
    is_whole = request.method == "GET" and not request.range_header
    return is_whole and request.verifies and not request.content.is_manifest


def _now() -> float:
    return asyncio.get_running_loop().time()
