"""The content that answered tags lead to, and the tags that could not be supplied.

A tag's digest is a promise: the client then comes for the content that it names. Where nobody has that content the
promise was wrong: a client asked for another platform than the node's, or a holder's disk fails. The tag is then left
to the upstream for a while.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable

from speil.oci.digest import Digest

PROMISED_MAX = 10_000  # manifests and blobs that answered tags name; an image names a dozen
BROKEN_MAX = 1000  # tags that could not be supplied
BROKEN_SECONDS = 10 * 60.0  # the kubelet's longest back-off is five minutes
BLOB_BROKEN_SECONDS = 60.0  # holders may only have been busy: long enough for the kubelet's next two tries


class TagPromises:
    """Tags are keys (`registry/repository:tag`); times are the caller's monotonic seconds."""

    def __init__(self) -> None:
        self._promised: OrderedDict[Digest, str] = OrderedDict()  # content, and the tag that led to it
        self._broken: OrderedDict[str, float] = OrderedDict()  # a tag, and until when it is left to the upstream

    def promise(self, key: str, digests: Iterable[Digest]) -> None:
        """A tag was answered that leads to this content."""
        for digest in digests:
            self._promised[digest] = key
            self._promised.move_to_end(digest)
            if len(self._promised) > PROMISED_MAX:
                self._promised.popitem(last=False)

    def served(self, digest: Digest, children: Iterable[Digest]) -> None:
        """The node got a manifest; it comes for the content that the manifest names."""
        if key := self._promised.get(digest):
            self.promise(key, children)

    def broke(self, digest: Digest, now: float, *, is_manifest: bool) -> tuple[str, float] | None:
        """Nobody had this content. The tag that led to it and the seconds that it is left to the upstream, if any."""
        if (key := self._promised.pop(digest, None)) is None:
            return None
        seconds = BROKEN_SECONDS if is_manifest else BLOB_BROKEN_SECONDS
        self._broken[key] = max(now + seconds, self._broken.get(key, 0.0))
        self._broken.move_to_end(key)
        if len(self._broken) > BROKEN_MAX:
            self._broken.popitem(last=False)
        return key, seconds

    def is_broken(self, key: str, now: float) -> bool:
        """Whether the tag is left to the upstream."""
        return self._broken.get(key, 0.0) > now
