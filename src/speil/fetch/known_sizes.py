"""What manifests said about the size of their content.

A manifest that passed through was verified, so its descriptors hold: a peer that offers a layer of another size lies,
and is found out before its first byte.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable

from speil.oci.digest import Digest
from speil.oci.manifest import Descriptor

SIZES_MAX = 4096  # a pull names tens; the oldest go first


class KnownSizes:
    """Sizes in bytes by digest."""

    def __init__(self) -> None:
        self._sizes: OrderedDict[Digest, int] = OrderedDict()

    def learn(self, descriptors: Iterable[Descriptor]) -> None:
        """Keep what a verified manifest says."""
        for one in descriptors:
            self._sizes[one.digest] = one.size
            self._sizes.move_to_end(one.digest)
        while len(self._sizes) > SIZES_MAX:
            self._sizes.popitem(last=False)

    def get(self, digest: Digest | None) -> int | None:
        """The size, if it is known."""
        return self._sizes.get(digest) if digest else None
