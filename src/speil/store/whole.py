"""Is an image whole here, and for which platforms?

A tag is a promise: who gets its digest comes for the manifest of its platform, the config and each layer. An image is
whole for a platform when all of these are in the store. What a manifest names never changes, so that is remembered;
whether the content is there is looked at each time, which is a stat for each blob.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass

from speil.observe.logs import get_log
from speil.oci.digest import Digest
from speil.oci.manifest import Manifest
from speil.oci.platform import Platform, PlatformImage, config_of_manifest, entries_of_index, platform_of_config
from speil.store.base import ContentStore, NotFoundError
from speil.store.walk import read, read_manifest

NESTED_MAX = 8  # indexes of indexes; two levels are in use
MANIFESTS_MAX = 1000  # of one image: a bound against documents made to blow up
CONFIG_BYTES_MAX = 1 << 20  # of a config that is read for its platform; they have a few kilobytes
DOCUMENTS_MAX = 256  # remembered, some kilobytes each

log = get_log("store")


@dataclass(frozen=True, slots=True)
class Document:
    """What a manifest or index asks for: `entries` of an index, `needs` of a manifest (config and layers)."""

    entries: tuple[PlatformImage, ...] | None
    needs: tuple[Digest, ...]
    config: Digest | None

    @classmethod
    def of(cls, data: bytes, manifest: Manifest) -> Document:
        """From a manifest's bytes and what they say."""
        if manifest.is_index:
            return cls(tuple(entries_of_index(data)), (), None)
        # layers that may not be distributed come from their own URLs, never from a mirror
        needs = tuple(child.digest for child in manifest.children if not _is_foreign(child.media_type))
        return cls(None, needs, config_of_manifest(data))


class Wholeness:
    """Looks at one store."""

    def __init__(self, store: ContentStore) -> None:
        self._store = store
        self._documents: OrderedDict[Digest, Document] = OrderedDict()

    async def images(self, root: Digest) -> list[PlatformImage]:
        """The images below `root` that are whole here. Raises StoreUnavailableError."""
        found: list[PlatformImage] = []
        level, seen = [PlatformImage(root, None)], 0
        for _ in range(NESTED_MAX):
            following: list[PlatformImage] = []
            for one in level:
                if one.platform is not None and one.platform.is_unknown:
                    continue
                if (seen := seen + 1) > MANIFESTS_MAX:
                    log.warning("an image names more manifests than are looked at", key=root, looked_at=MANIFESTS_MAX)
                    return found
                if (document := await self.document(one.manifest)) is None:
                    continue
                if document.entries is not None:
                    following += document.entries
                elif await self.holds(document.needs):
                    platform = one.platform or await self.platform(document)
                    found.append(PlatformImage(one.manifest, platform))
            if not following:
                return found
            level = following
        log.warning("an image nests indexes deeper than is looked at", key=root, depth=NESTED_MAX)
        return found

    async def document(self, digest: Digest) -> Document | None:
        """What a manifest in the store asks for; None where it is not here, or is none. Raises as `images`."""
        if (known := self._documents.get(digest)) is not None:
            self._documents.move_to_end(digest)
            return known if await self.holds((digest,)) else None
        try:
            loaded = await read_manifest(self._store, digest)
        except NotFoundError:
            return None
        if loaded is None:
            return None
        document = self._documents[digest] = Document.of(*loaded)
        if len(self._documents) > DOCUMENTS_MAX:
            self._documents.popitem(last=False)
        return document

    async def holds(self, digests: Iterable[Digest]) -> bool:
        """Whether all of this is in the store. Raises StoreUnavailableError."""
        try:
            for digest in digests:
                await self._store.size(digest)
        except NotFoundError:
            return False
        return True

    async def platform(self, document: Document) -> Platform | None:
        """The platform that a manifest's config says; None where it says none, or is not here. Raises as `images`."""
        if document.config is None:
            return None
        try:
            return platform_of_config(await read(self._store, document.config, CONFIG_BYTES_MAX))
        except NotFoundError:
            return None


def _is_foreign(media_type: str) -> bool:
    return ".foreign." in media_type or "nondistributable" in media_type
