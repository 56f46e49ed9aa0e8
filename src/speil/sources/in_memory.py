"""A manifest that is in memory and is sent in one piece."""

from __future__ import annotations

from speil.oci.digest import Digest
from speil.oci.manifest import Manifest
from speil.sources.base import Opened, Origin
from speil.wire.sink import Sink


class OpenedManifest(Opened):
    """`data` are its bytes."""

    data: bytes

    def __init__(
        self,
        origin: Origin,
        digest: Digest,
        media_type: str,
        data: bytes,
        manifest: Manifest,
        headers: tuple[tuple[str, str], ...] = (),
    ) -> None:
        super().__init__(origin, digest, media_type, len(data))
        self.data, self.manifest, self.headers = data, manifest, headers

    async def send(self, sink: Sink) -> None:
        """See Opened."""
        await sink.write(self.data)
