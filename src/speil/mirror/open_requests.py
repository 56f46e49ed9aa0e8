"""Bounds the requests that are answered at once. A part of them is kept for this node's own requests.

Other requests are those of peers, and of all clients that can reach the port. Each address or prefix has a share of
them (`upload.admission`).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from speil.mirror.series import MirrorSeries
from speil.upload.admission import FairAdmission, Refusal

REQUESTS_MAX = 1024  # open at once; beyond it containerd is sent upstream
OTHERS_REQUESTS_MAX = 768  # of them for others: the rest is kept for this node's own
REQUESTS_PER_SHARE_MAX = 128  # of one address or prefix; a node's containerd downloads some dozens of layers at once


class OpenRequests:
    """Counts requests that are being answered."""

    def __init__(self, series: MirrorSeries, uploads_per_peer_max: int) -> None:
        """A peer may have as many requests as uploads, if that is more than REQUESTS_PER_SHARE_MAX."""
        self._others = FairAdmission(OTHERS_REQUESTS_MAX, max(REQUESTS_PER_SHARE_MAX, uploads_per_peer_max))
        self._own, self._series = 0, series

    def count_refused(self, refusal: Refusal) -> None:
        """Count a client that is sent upstream; not for peers, which are counted as refused uploads."""
        self._series.http_requests_refused.labels("address" if refusal is Refusal.PEER else refusal).inc()

    @contextmanager
    def admit(self, share: str, *, is_own: bool) -> Iterator[Refusal | None]:
        """Count a request while the context lasts; or the reason why it is refused."""
        if self._own + self._others.open_count >= REQUESTS_MAX:
            yield Refusal.NODE
        elif is_own:
            self._own += 1
            try:
                yield None
            finally:
                self._own -= 1
        elif (refusal := self._others.admit(share)) is not None:
            yield refusal
        else:
            try:
                yield None
            finally:
                self._others.release(share)
