"""From an image to the content of it that is here.

An index names manifests of platforms that were never pulled; a manifest may have lost a layer to garbage collection.
What is announced and served is what the store really holds, so each step looks.
"""

from __future__ import annotations

import asyncio
import os

from speil.oci.digest import Digest
from speil.oci.manifest import MANIFEST_BYTES_MAX, Manifest, parse
from speil.store.base import ContentStore, NotFoundError

DEPTH_MAX = 4  # an index of indexes of manifests is the deepest there is in practice
CONTENTS_MAX = 10_000  # of one image: a bound against documents made to blow up


async def read(store: ContentStore, digest: Digest, size_bytes_max: int = MANIFEST_BYTES_MAX) -> bytes:
    """Small content, whole. Raises NotFoundError (also for larger content), StoreUnavailableError."""
    with await store.open(digest) as content:
        if content.size > size_bytes_max:
            raise NotFoundError(f"{digest} has {content.size} bytes, too many for a manifest")
        return await asyncio.to_thread(os.pread, content.fd, content.size, 0)


async def read_manifest(store: ContentStore, digest: Digest) -> tuple[bytes, Manifest] | None:
    """A manifest's bytes and what they say; None for content that is no manifest. Raises as `read`."""
    if await store.size(digest) > MANIFEST_BYTES_MAX:
        return None
    data = await read(store, digest)
    manifest = parse(data)
    return (data, manifest) if manifest else None


async def contents(store: ContentStore, root: Digest) -> list[Digest]:
    """The content below `root` that the store holds, itself first. Raises StoreUnavailableError."""
    found: dict[Digest, None] = {}
    level = [root]
    for _ in range(DEPTH_MAX):
        following: list[Digest] = []
        for digest in level:
            try:
                loaded = await read_manifest(store, digest)
            except NotFoundError:
                continue
            found[digest] = None
            children = [child.digest for child in loaded[1].children] if loaded else []
            if loaded and loaded[1].is_index:
                following += children
                continue
            for child in children:
                if len(found) < CONTENTS_MAX and await _holds(store, child):
                    found[child] = None
        level = following
    return list(found)


async def _holds(store: ContentStore, digest: Digest) -> bool:
    try:
        await store.size(digest)
    except NotFoundError:
        return False
    return True
