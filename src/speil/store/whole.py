"""Checks which images are complete in the store, and for which platforms.

A node that answers a tag with a digest promises the image: the client then requests the manifest of its platform, the
config and each layer. An image is complete for a platform if the store has all of these. A manifest never changes, so
parsed manifests are cached. Whether the content exists is checked each time, with one stat per blob.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable

from speil.observe.logs import get_log
from speil.oci.digest import Digest
from speil.oci.manifest import Manifest
from speil.oci.platform import Platform, PlatformImage, platform_of_config
from speil.store.base import ContentStore, NotFoundError
from speil.store.walk import read, read_manifest

NESTED_MAX = 8  # levels of indexes; images have at most two
MANIFESTS_MAX = 1000  # checked for one image: a bound against documents made to be expensive
CONFIG_BYTES_MAX = 1 << 20  # a config that is read for its platform; configs have a few kilobytes
MANIFESTS_CACHED_MAX = 256  # some kilobytes each

log = get_log("store")


class Wholeness:
    """Checks the images of one store. Caches parsed manifests."""

    def __init__(self, store: ContentStore) -> None:
        self._store = store
        self._manifests: OrderedDict[Digest, Manifest] = OrderedDict()

    async def images(self, root: Digest) -> list[PlatformImage]:
        """The complete images of `root`, a manifest or an index. Raises StoreUnavailableError."""
        found: list[PlatformImage] = []
        level, seen = [PlatformImage(root, None)], 0
        for _ in range(NESTED_MAX):
            following: list[PlatformImage] = []
            for one in level:
                if one.platform is not None and one.platform.is_unknown:
                    continue
                if (seen := seen + 1) > MANIFESTS_MAX:
                    log.warning("image has too many manifests: the rest is ignored", key=root, checked=MANIFESTS_MAX)
                    return found
                if (manifest := await self.manifest(one.manifest)) is None:
                    continue
                if manifest.is_index:
                    following += manifest.entries
                elif await self.holds(manifest.needs):
                    platform = one.platform or await self.platform(manifest)
                    found.append(PlatformImage(one.manifest, platform))
            if not following:
                return found
            level = following
        log.warning("image nests too many indexes: the deeper ones are ignored", key=root, depth=NESTED_MAX)
        return found

    async def manifest(self, digest: Digest) -> Manifest | None:
        """A manifest or index in the store; None if it is missing or is not one. Raises StoreUnavailableError."""
        if (known := self._manifests.get(digest)) is not None:
            self._manifests.move_to_end(digest)
            return known if await self.holds((digest,)) else None
        try:
            loaded = await read_manifest(self._store, digest)
        except NotFoundError:
            return None
        if loaded is None:
            return None
        manifest = self._manifests[digest] = loaded[1]
        if len(self._manifests) > MANIFESTS_CACHED_MAX:
            self._manifests.popitem(last=False)
        return manifest

    async def holds(self, digests: Iterable[Digest]) -> bool:
        """Whether the store has all of `digests`. Raises StoreUnavailableError."""
        try:
            for digest in digests:
                await self._store.size(digest)
        except NotFoundError:
            return False
        return True

    async def platform(self, manifest: Manifest) -> Platform | None:
        """The platform in a manifest's config; None if the config is missing or has none.

        Raises StoreUnavailableError.
        """
        if manifest.config is None:
            return None
        try:
            return platform_of_config(await read(self._store, manifest.config, CONFIG_BYTES_MAX))
        except NotFoundError:
            return None
