"""Which content of the store may be shared: announced, and served to whoever asks for it by digest.

Content has no name, so its repositories have to be known: the runtime's record of where it was pulled from
(`ContentStore.origins`), and the images that name it. Content that belongs to several repositories is shared where one
of them may be: a base layer under a private image is no secret of that image. What nobody knows a repository of is kept
back, but only where anything is kept back at all: without filters every content may be shared, and nothing is asked.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

from speil.oci.digest import Digest
from speil.oci.reference import InvalidReferenceError, Reference
from speil.oci.selection import Selection
from speil.store.base import ContentStore, StoreError
from speil.store.walk import contents

IMAGES_SECONDS = 30.0  # between looks at all images for content nobody knows; whoever asks for nonsense costs no more


class Sharing:
    """Tell it of the content of each image that may be shared (`know`)."""

    def __init__(self, store: ContentStore, selection: Selection) -> None:
        self._store, self.selection = store, selection
        self._shared: set[Digest] = set()
        self._looked_at: float | None = None

    def reference(self, image: str) -> Reference | None:
        """An image name whose repository may be shared; None for others, and for what is no reference."""
        try:
            reference = Reference.parse(image)
        except InvalidReferenceError:
            return None
        return reference if self.selection.allows_repository(reference.registry, reference.name) else None

    def tag(self, reference: Reference) -> str | None:
        """The name under which an image's tag may be announced: `registry/repository:tag`.

        An image named `repository:tag@digest` is found under that name alone, so it stands for no tag.
        """
        if reference.tag is None or reference.digest is not None:
            return None
        if not self.selection.allows_tag(reference.registry, reference.name, reference.tag):
            return None
        return reference.tag_name

    def know(self, digests: Iterable[Digest]) -> None:
        """Content of an image that may be shared."""
        if not self.selection.is_open:
            self._shared.update(digests)

    @property
    def known(self) -> frozenset[Digest]:
        """Content that is known to be shared now."""
        return frozenset(self._shared)

    def forget(self, digests: Iterable[Digest]) -> None:
        """Content that no image names any more: it is asked about again."""
        self._shared.difference_update(digests)

    async def allows(self, digest: Digest) -> bool:
        """Whether content may be shared; False too where the store can't say whose it is."""
        if self.selection.is_open or digest in self._shared:
            return True
        try:
            origins = await self._store.origins(digest)
            if not any(self.selection.allows_repository(*_split(origin)) for origin in origins):
                # what was imported has no origin, and names of images may give content to more repositories
                await self._look_at_images()
                return digest in self._shared
        except StoreError:
            return False
        self._shared.add(digest)
        return True

    async def _look_at_images(self) -> None:
        """Learn what the images name, once in a while. Raises StoreUnavailableError."""
        now = asyncio.get_running_loop().time()
        if self._looked_at is not None and now - self._looked_at < IMAGES_SECONDS:
            return
        self._looked_at = now
        for target in {image.target for image in await self._store.images() if self.reference(image.name)}:
            self.know(await contents(self._store, target))

    async def is_known(self, digest: Digest) -> bool:
        """Whether the store knows any repository of it (yet)."""
        try:
            return bool(await self._store.origins(digest))
        except StoreError:
            return False


def _split(origin: str) -> tuple[str, str]:
    registry, _, name = origin.partition("/")
    return registry, name
