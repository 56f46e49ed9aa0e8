"""Places for uploads and requests, shared fairly between peers.

A node has a bounded number of places, and one peer may hold a bounded number of them. While many are free a peer may
hold more than its equal share. The last quarter is for peers that hold less than that, so that a few busy peers can't
keep all others out. A refused peer asks elsewhere at once; nothing waits here.
"""

from __future__ import annotations

from collections import Counter
from enum import StrEnum

CONTESTED_FRACTION = 0.25  # of the places: for peers that have less than their share

# Where bandwidth is limited: a peer gives up an upload below 64 KiB a second. Peers get equal shares, so a peer with
# several uploads gets less for each of them.
UPLOAD_BYTES_PER_SECOND_MIN = 512 << 10
LIMITED_PER_PEER_MAX = 4  # containerd downloads three layers at a time


class Refusal(StrEnum):
    """Why there is no place; the text is a metric's label and is sent to the peer."""

    NODE = "node"  # all places are taken
    BANDWIDTH = "bandwidth"  # the upload limit carries no more
    PEER = "peer"  # this peer has as many as one may have
    SHARE = "share"  # the last places are for peers that have fewer


class FairAdmission:
    """Counts taken places by peer (an address or prefix); `bytes_per_second` is the limit they share, 0 for none."""

    def __init__(self, uploads_max: int, per_peer_max: int, bytes_per_second: int = 0) -> None:
        carried = max(bytes_per_second // UPLOAD_BYTES_PER_SECOND_MIN, 1) if bytes_per_second else uploads_max
        self.places = min(uploads_max, carried)
        self._full = Refusal.NODE if self.places == uploads_max else Refusal.BANDWIDTH
        self._uncontested = self.places - int(self.places * CONTESTED_FRACTION)
        self._per_peer_max = min(per_peer_max, LIMITED_PER_PEER_MAX) if bytes_per_second else per_peer_max
        self._held: Counter[str] = Counter()
        self.open_count = 0

    def admit(self, peer: str) -> Refusal | None:
        """Take a place for `peer`; `release` it later. Or the reason why there is none."""
        held = self._held[peer]
        if self.open_count >= self.places:
            refusal = self._full
        elif held >= self._per_peer_max:
            refusal = Refusal.PEER
        elif self.open_count >= self._uncontested and held >= self._share(peer):
            refusal = Refusal.SHARE
        else:
            self._held[peer] += 1
            self.open_count += 1
            return None
        self._forget_idle(peer)
        return refusal

    def release(self, peer: str) -> None:
        """Free a place that `peer` took."""
        self._held[peer] -= 1
        self.open_count -= 1
        self._forget_idle(peer)

    def _share(self, peer: str) -> int:
        others = len(self._held) - (peer in self._held)
        return max(self.places // (others + 1), 1)

    def _forget_idle(self, peer: str) -> None:
        if not self._held[peer]:
            del self._held[peer]
