"""Decides which content of the store may be announced, and served by digest.

Registry filters apply to repositories, so the repositories of content must be known. They come from the runtime's
record of where the content was pulled from (`ContentStore.origins`), and from the images that use it. Content that is
in several repositories is shared if one of them may be shared: a public base layer of a private image is not private.
Content without a known repository is not shared. Without filters everything is shared and nothing is looked up.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

from speil.oci.digest import Digest
from speil.oci.reference import InvalidReferenceError, Reference
from speil.oci.selection import Selection
from speil.store.base import ContentStore, StoreError
from speil.store.walk import contents

IMAGES_SECONDS = 30.0  # between scans of all images for unknown content; bounds the cost of requests for random digests


class Sharing:
    """Applies `selection` to the content of `store`. Call `know` with the content of each image that may be shared."""

    def __init__(self, store: ContentStore, selection: Selection) -> None:
        self._store, self.selection = store, selection
        self._shared: set[Digest] = set()
        self._looked_at: float | None = None

    def reference(self, image: str) -> Reference | None:
        """The parsed image name; None if its repository may not be shared, or if it is not a valid reference."""
        try:
            reference = Reference.parse(image)
        except InvalidReferenceError:
            return None
        return reference if self.selection.allows_repository(reference.registry, reference.name) else None

    def tag(self, reference: Reference) -> str | None:
        """The key under which the tag may be announced, `registry/repository:tag`; None if it may not.

        containerd finds an image named `repository:tag@digest` only under this full name, so it is not announced as a
        tag.
        """
        if reference.tag is None or reference.digest is not None:
            return None
        if not self.selection.allows_tag(reference.registry, reference.name, reference.tag):
            return None
        return reference.tag_name

    def know(self, digests: Iterable[Digest]) -> None:
        """Mark the content of an image that may be shared."""
        if not self.selection.is_open:
            self._shared.update(digests)

    @property
    def known(self) -> frozenset[Digest]:
        """The content that is marked as shared. Empty without filters."""
        return frozenset(self._shared)

    def forget(self, digests: Iterable[Digest]) -> None:
        """Unmark content that no image uses any more. `allows` then decides anew."""
        self._shared.difference_update(digests)

    async def allows(self, digest: Digest) -> bool:
        """Whether content may be shared. False if the store does not answer."""
        if self.selection.is_open or digest in self._shared:
            return True
        try:
            origins = await self._store.origins(digest)
            if not any(self.selection.allows_repository(*_split(origin)) for origin in origins):
                # imported content has no origin, and an image may use content of another repository
                await self._look_at_images()
                return digest in self._shared
        except StoreError:
            return False
        self._shared.add(digest)
        return True

    async def _look_at_images(self) -> None:
        """Mark the content of all shared images, at most every IMAGES_SECONDS. Raises StoreUnavailableError."""
        now = asyncio.get_running_loop().time()
        if self._looked_at is not None and now - self._looked_at < IMAGES_SECONDS:
            return
        self._looked_at = now
        for target in {image.target for image in await self._store.images() if self.reference(image.name)}:
            self.know(await contents(self._store, target))

    async def is_known(self, digest: Digest) -> bool:
        """Whether the store already has a repository for this content. False if it does not answer."""
        try:
            return bool(await self._store.origins(digest))
        except StoreError:
            return False


def _split(origin: str) -> tuple[str, str]:
    registry, _, name = origin.partition("/")
    return registry, name
