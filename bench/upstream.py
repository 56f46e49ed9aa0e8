"""The demo's upstream behind one slow link, which the bodies of all clients share."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from speil.demo.pulls import NAME
from speil.demo.upstream import Upstream
from speil.oci.digest import Digest
from speil.oci.image_builder import BuiltImage


class PacedUpstream(Upstream):
    """See Upstream; each client names itself as a region."""

    chunk_bytes = 64 << 10  # bodies take turns on the link

    def __init__(self, images: Mapping[str, BuiltImage], bytes_per_second: float) -> None:
        super().__init__(NAME, images, region_bytes_per_second=bytes_per_second)

    def copies(self, image: BuiltImage) -> float:
        """Bytes of configs and layers that were sent, in sizes of the image without its manifests."""
        blobs = [digest for digest in image.blobs if image.kind(digest) == "blobs"]
        sizes = Counter[Digest]()
        for (_, digest), size in self.sent_bytes.items():
            sizes[digest] += size
        return sum(sizes[digest] for digest in blobs) / sum(len(image.blobs[digest]) for digest in blobs)

    async def _until_sent(self, region: str, size: int) -> None:
        await super()._until_sent("", size)
