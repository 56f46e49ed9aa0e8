"""What other nodes have, or download: which of them is asked first.

Peers that have the content come first, then what others download. Two kinds of requests go the other way:

- One that stepped aside (`slots`) and is back soon. Nobody had the content a moment ago, and the umpire, which is asked
  anyway, names those who have it now: a second search would only take time.
- With zones: content that only other zones hold crosses their border once. Peers of this zone come first, then what
  other nodes download, then peers of other zones. The first node of a zone that asks its umpire takes the content from
  another zone, and its download grows; the next ones follow that download.
"""

from __future__ import annotations

import asyncio

from speil.claims.states import PullState
from speil.inflight.following import Following
from speil.inflight.pulls import Pulls
from speil.sources.base import ContentRequest, Opened
from speil.sources.peers import Peers

BACK_SECONDS = 10.0  # since it stepped aside; after that provider records may have come that the umpire does not know


class OtherNodes:
    """A `Source`."""

    def __init__(self, pulls: Pulls, peers: Peers, following: Following, *, has_zone: bool) -> None:
        self._pulls, self._peers, self._following, self._has_zone = pulls, peers, following, has_zone

    async def open(self, request: ContentRequest) -> Opened | None:
        """See Source."""
        flight = self._pulls.flight(request.content.digest) if request.content.digest else None
        now = asyncio.get_running_loop().time()
        if flight is not None and flight.is_aside and now < flight.aside_at + BACK_SECONDS and _is_download(request):
            opened = await self._following.open(request)
            is_settled = opened is not None or self._pulls.state(flight) is PullState.FETCHING
            return opened if is_settled else await self._peers.open(request)
        if not self._has_zone or not _is_download(request):
            return await self._peers.open(request) or await self._following.open(request)
        near = await self._peers.open_near(request)
        if isinstance(near, Opened):
            return near
        return await self._following.open(request) or await self._peers.open_far(near, request)


def _is_download(request: ContentRequest) -> bool:
    """Whether others can follow: containerd downloads a blob from its first byte on."""
    is_whole = request.method == "GET" and not request.range_header
    return is_whole and request.verifies and not request.content.is_manifest
