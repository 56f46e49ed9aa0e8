"""Content that only other zones hold crosses the border of zones once.

Peers of this zone come first, then what other nodes download, then peers of other zones. The first node of a zone that
asks its umpire takes the content from another zone, and its download grows; the next ones follow that download.
"""

from __future__ import annotations

from speil.inflight.following import Following
from speil.sources.base import ContentRequest, Opened
from speil.sources.peers import Peers


class ZoneFirst:
    """A `Source`."""

    def __init__(self, peers: Peers, following: Following) -> None:
        self._peers, self._following = peers, following

    async def open(self, request: ContentRequest) -> Opened | None:
        """See Source."""
        if not _is_download(request):
            return await self._peers.open(request) or await self._following.open(request)
        near = await self._peers.open_near(request)
        if isinstance(near, Opened):
            return near
        return await self._following.open(request) or await self._peers.open_far(near, request)


def _is_download(request: ContentRequest) -> bool:
    """Whether others can follow: containerd downloads a blob from its first byte on."""
    is_whole = request.method == "GET" and not request.range_header
    return is_whole and request.verifies and not request.content.is_manifest
