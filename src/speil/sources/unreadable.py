"""Content that this node's disk failed to read: it is not served from the store for a while.

containerd asks again at the byte where a body broke off. If it got the same bad sector again its pull would fail: it
gives up after three answers without a byte. So for some minutes the content comes from a peer, or the answer is 404
and containerd goes upstream.
"""

from __future__ import annotations

from collections import OrderedDict

from speil.oci.digest import Digest

UNREADABLE_SECONDS = 300.0  # longer than a pull repeats itself; a disk that has recovered is used again
UNREADABLE_MAX = 1000  # a disk with more bad blobs is broken as a whole


class Unreadable:
    """Digests, each for UNREADABLE_SECONDS; times are monotonic seconds."""

    def __init__(self) -> None:
        self._until: OrderedDict[Digest, float] = OrderedDict()

    def add(self, digest: Digest, now: float) -> None:
        """Reading `digest` failed now."""
        self._until[digest] = now + UNREADABLE_SECONDS
        self._until.move_to_end(digest)
        if len(self._until) > UNREADABLE_MAX:
            self._until.popitem(last=False)

    def holds(self, digest: Digest, now: float) -> bool:
        """Whether `digest` is not to be read now."""
        if self._until.get(digest, now) > now:
            return True
        self._until.pop(digest, None)
        return False
