"""Content that is shared in flight, ready to be sent."""

from __future__ import annotations

from speil.inflight.delivery import Delivery
from speil.oci.byte_range import ByteRange
from speil.oci.digest import Digest
from speil.sources.base import Opened, Origin
from speil.wire.sink import Sink


class Delivered(Opened):
    """It owns the delivery, whose `open` has returned True."""

    def __init__(self, delivery: Delivery, digest: Digest) -> None:
        extent = delivery.extent
        part = None if extent.is_whole else ByteRange(extent.start, extent.stop, extent.size)
        super().__init__(Origin.PEER, digest, delivery.kind, extent.size, part)
        self.manifest, self._delivery = delivery.manifest, delivery

    async def send(self, sink: Sink) -> None:
        """See Opened."""
        await self._delivery.send(sink)

    async def close(self) -> None:
        """See Opened."""
        await self._delivery.close()
