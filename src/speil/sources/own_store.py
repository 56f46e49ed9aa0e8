"""This node's store as a source: manifests are read, blobs are sent from their open file."""

from __future__ import annotations

import asyncio

from speil.observe.logs import get_log
from speil.oci import byte_range, media_type
from speil.oci.digest import Digest
from speil.sources.base import ContentRequest, Opened, Origin
from speil.sources.in_memory import OpenedManifest
from speil.sources.stored_blob import StoredBlob
from speil.sources.unreadable import Unreadable
from speil.store.base import ContentStore, NotFoundError, StoreError
from speil.store.sharing import Sharing
from speil.store.walk import read_manifest

log = get_log("mirror")


class OwnStore:
    """A `Source`. It serves what may be shared, to this node and to peers alike."""

    def __init__(self, store: ContentStore, sharing: Sharing) -> None:
        self._store, self._sharing, self._unreadable = store, sharing, Unreadable()

    async def open(self, request: ContentRequest) -> Opened | None:
        """See Source. A store that fails is logged and counts as one without the content."""
        content, digest = request.content, request.content.digest
        try:
            if digest is None or not await self._sharing.allows(digest):
                return None
            if content.is_manifest:
                return await self.manifest(digest, request.accept)
            if self._unreadable.holds(digest, asyncio.get_running_loop().time()):
                return None
            # manifests are served as blobs too: layers of artifacts may be manifests of other images
            opened = await self._store.open(digest)
        except NotFoundError:
            return None
        except (StoreError, OSError) as error:
            log.warning("the store failed", key=content.key, error=error)
            return None
        try:
            part = byte_range.parse(request.range_header, opened.size)
        except byte_range.UnsatisfiableError:
            opened.close()
            raise
        return StoredBlob(opened, part, self._unreadable)

    async def manifest(
        self, digest: Digest, accept: str, headers: tuple[tuple[str, str], ...] = ()
    ) -> OpenedManifest | None:
        """A manifest, None for content that is none. Raises NotFoundError, StoreUnavailableError."""
        if (loaded := await read_manifest(self._store, digest)) is None:
            return None
        data, manifest = loaded
        # the type that a manifest states counts more than the type that the client asked for
        kind = manifest.type_with_hint(media_type.asked_type(accept))
        return OpenedManifest(Origin.STORE, digest, kind, data, manifest, headers)
