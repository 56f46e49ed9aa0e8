"""The sizes of content that manifests state.

A served manifest matches its digest, but its author may have written wrong sizes. So a size is a claim: where manifests
contradict each other, each claimed size is possible; bytes that match the digest prove one size; two peers that agree
on another size refute the claims. A claim is kept for about one pull, so that a false one does not keep honest holders
of that content out for long.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import islice

from speil.multiformats.peer_id import PeerId
from speil.oci.digest import Digest
from speil.oci.manifest import Descriptor

SIZES_MAX = 4096  # a pull names tens; the oldest go first
LEARNED_MAX = 1024  # of one manifest, so that one does not push out all others; containerd stops far below
CLAIMS_MAX = 4  # different sizes of one content; with more, none of them is used
CLAIM_SECONDS_MAX = 10 * 60.0  # longer than nearly all pulls
WITNESSES_MAX = 8  # peers whose contradiction is remembered, of one content
AGREEING_MIN = 2  # peers that say the same outvote a manifest


@dataclass(slots=True)
class _Known:
    """`sizes` are claimed or, where `proven`, the one that it has."""

    until: float
    sizes: frozenset[int]
    proven: bool = False
    against: dict[PeerId, int] = field(default_factory=dict)


class KnownSizes:
    """Sizes in bytes by digest; times are the caller's monotonic seconds."""

    def __init__(self) -> None:
        self._known: OrderedDict[Digest, _Known] = OrderedDict()

    def learn(self, descriptors: Iterable[Descriptor], now: float) -> None:
        """Keep the sizes that a manifest states. A size of 0 states nothing: Go writes it for a missing one."""
        for one in islice(descriptors, LEARNED_MAX):
            if not one.size:
                continue
            known = self._get(one.digest, now)
            if known is not None and known.proven:
                continue
            sizes = (known.sizes if known else frozenset()) | {one.size}
            if len(sizes) > CLAIMS_MAX:
                del self._known[one.digest]
                continue
            self._put(one.digest, _Known(now + CLAIM_SECONDS_MAX, sizes))

    def prove(self, digest: Digest, size: int, now: float) -> None:
        """Bytes of `size` matched the digest: other claims are false."""
        known = self._get(digest, now)
        if known is not None and known.sizes != {size}:
            self._put(digest, _Known(now + CLAIM_SECONDS_MAX, frozenset((size,)), proven=True))

    def contradict(self, digest: Digest, peer_id: PeerId, size: int, now: float) -> None:
        """A peer states another size."""
        known = self._get(digest, now)
        if known is None or known.proven or len(known.against) >= WITNESSES_MAX:
            return
        known.against[peer_id] = size
        if list(known.against.values()).count(size) >= AGREEING_MIN:
            del self._known[digest]

    def get(self, digest: Digest | None, now: float) -> frozenset[int]:
        """The possible sizes; empty where no manifest states one."""
        known = self._get(digest, now) if digest else None
        return known.sizes if known else frozenset()

    def _get(self, digest: Digest, now: float) -> _Known | None:
        known = self._known.get(digest)
        return known if known and known.until > now else None

    def _put(self, digest: Digest, known: _Known) -> None:
        self._known[digest] = known
        self._known.move_to_end(digest)
        if len(self._known) > SIZES_MAX:
            self._known.popitem(last=False)
