"""Content that another node of the region downloads now, for this node's containerd. `others` says when it is asked.

Only requests that containerd makes to download content take part: GET, of all bytes or from an offset on. Anything else
is a miss, as it would be without sharing.
"""

from __future__ import annotations

import asyncio
import re

from speil.claims.pull import Facts
from speil.fetch.resume import Wanted
from speil.inflight.delivered import Delivered
from speil.inflight.delivery import Delivery
from speil.inflight.held import HeldRequest
from speil.inflight.link import link_bytes_per_second
from speil.inflight.pulls import Pulls
from speil.inflight.series import InflightSeries
from speil.inflight.slots import SteppedAside
from speil.observe.logs import get_log
from speil.observe.seldom import Seldom
from speil.oci.digest import Digest
from speil.oci.manifest import MANIFEST_BYTES_MAX
from speil.sources.base import ContentRequest, Opened
from speil.sources.peer_access import PeerAccess
from speil.sources.peers import Peers
from speil.store.ingests import Ingests

MANIFEST_PATIENCE_SECONDS = 1.0  # registries count GETs of manifests; one far away answers in half a second
_FROM = re.compile(r"bytes=(\d{1,19})-", re.ASCII)

log = get_log("sharing")


class Following:
    """A `Source`."""

    def __init__(
        self, pulls: Pulls, ingests: Ingests, access: PeerAccess, peers: Peers, series: InflightSeries
    ) -> None:
        self._pulls, self._ingests, self._access, self._peers, self._series = pulls, ingests, access, peers, series
        self._odd, self._link = Seldom(), link_bytes_per_second()

    async def open(self, request: ContentRequest) -> Opened | None:
        """See Source. It waits while a live node is known to download the content."""
        start = self._start(request)
        if start is None or not self._may_share():
            return None
        held = HeldRequest()
        flight = self._pulls.begin(
            request.content, start, held, self._facts(request), frees_slot=request.frees_slot
        )  # fmt: skip
        if flight is None:
            return None
        wanted = self._wanted(request, start)
        delivery = Delivery(
            self._pulls, flight, held, request, start, self._access, self._peers, self._series, wanted
        )  # fmt: skip
        is_shared = False
        try:
            is_shared = await delivery.open()
        finally:
            if not is_shared:
                await delivery.close()
        if delivery.steps_aside:
            request.notes.comes_again = True
            self._access.knowledge.trust.stepped_aside(flight.digest, asyncio.get_running_loop().time())
            return SteppedAside(flight.digest, flight.total)
        return Delivered(delivery, flight.digest) if is_shared else None

    def _may_share(self) -> bool:
        """Whether others could follow this node: a claim of a node that can't read its ingests would stop them."""
        if self._ingests.is_readable:
            self._odd.over()
            return True
        if self._odd.due("unreadable"):
            log.warning("the runtime's content can't be read: nothing is shared while it is downloaded")
        return False

    def _start(self, request: ContentRequest) -> int | None:
        """The byte from which on containerd needs the content; None for a request that takes no part."""
        if request.method != "GET" or not request.verifies or request.content.digest is None:
            return None
        if not request.range_header:
            return 0
        match = _FROM.fullmatch(request.range_header)
        return int(match[1]) if match else None

    def _wanted(self, request: ContentRequest, start: int) -> Wanted:
        """What a source's answer must be. A body of another size than the runtime expects would fail its pull."""
        digest = request.content.digest
        assert digest is not None
        range_header = f"bytes={start}-" if start else ""
        if expected := self._expected_size(digest):
            return Wanted(digest, range_header, frozenset((expected,)))
        sizes = self._access.knowledge.sizes.get(digest, asyncio.get_running_loop().time())
        return Wanted(digest, range_header, sizes, MANIFEST_BYTES_MAX)

    def _facts(self, request: ContentRequest) -> Facts:
        digest = request.content.digest
        assert digest is not None
        sizes = self._access.knowledge.sizes.get(digest, asyncio.get_running_loop().time())
        size = next(iter(sizes)) if len(sizes) == 1 else self._expected_size(digest)
        patience = MANIFEST_PATIENCE_SECONDS if request.content.is_manifest else 0.0
        rate = int(self._ingests.growth_bytes_per_second)
        return Facts(size, rate, self._link, patience)

    def _expected_size(self, digest: Digest) -> int:
        """What the runtime expects: it begins a layer's ingest before it asks for the content. 0: not known."""
        try:
            found = self._ingests.find(digest)
        except OSError:
            return 0
        return (found.total or 0) if found else 0
