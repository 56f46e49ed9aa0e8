"""Walks from an image to all of its content that the store has.

An index names manifests of platforms that were never pulled. Garbage collection may have deleted a layer. Only existing
content may be announced and served, so the walk checks each digest. The bounds count the digests that are checked,
whether they exist or not. A bound that is reached is logged.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from speil.observe.logs import get_log
from speil.observe.seldom import Seldom
from speil.oci.digest import Digest
from speil.oci.manifest import MANIFEST_BYTES_MAX, Manifest, parse
from speil.store.base import ContentStore, NotFoundError

DEPTH_MAX = 32  # levels; images have at most three. The bounds below hold at any depth
CONTENTS_MAX = 10_000  # digests checked for one image: a bound against documents made to be expensive
MANIFEST_BYTES_TOTAL_MAX = 64 << 20  # bytes of manifests read for one image; an index of 10,000 manifests needs 10 MiB
TURN_LOOKS = 64  # checks before other tasks run: a stat does not yield to the event loop
READ_AT_ONCE_BYTES_MAX = 64 << 10
PARSED_AT_ONCE_BYTES_MAX = 64 << 10  # larger manifests are parsed in a thread, one at a time to bound the memory

log = get_log("walk")
_parsing = threading.Lock()
_unreadable = Seldom()


async def read(store: ContentStore, digest: Digest, size_bytes_max: int = MANIFEST_BYTES_MAX) -> bytes:
    """Read small content completely.

    Raises NotFoundError, also for content above `size_bytes_max` or on a bad disk, and StoreUnavailableError.
    """
    with await store.open(digest) as content, _readable(digest):
        if content.size > size_bytes_max:
            raise NotFoundError(f"{digest} has {content.size} bytes, more than the {size_bytes_max} that are read")
        return await asyncio.to_thread(os.pread, content.fd, content.size, 0)


async def read_manifest(store: ContentStore, digest: Digest) -> tuple[bytes, Manifest] | None:
    """The bytes of a manifest, and the parsed manifest; None if the content is not a manifest. Raises as `read`."""
    with await store.open(digest) as content, _readable(digest):
        if content.size > MANIFEST_BYTES_MAX:
            return None
        # small content is read in the event loop: it is usually in the page cache, and a thread costs more
        data = content.peek(READ_AT_ONCE_BYTES_MAX)
        if not _may_be_json(data):
            return None
        if content.size > len(data):
            data = await asyncio.to_thread(os.pread, content.fd, content.size, 0)
    manifest = await parsed(data)
    return (data, manifest) if manifest else None


@contextmanager
def _readable(digest: Digest) -> Iterator[None]:
    """Turn a read error into NotFoundError: content on a bad disk counts as missing, the rest is still served."""
    try:
        yield
    except OSError as error:
        if _unreadable.due(str(digest)):
            log.warning("content can't be read: treated as missing", key=digest, error=error)
        raise NotFoundError(f"{digest} can't be read: {error.strerror}") from error


async def parsed(data: bytes) -> Manifest | None:
    """As `oci.manifest.parse`; large documents are parsed in a thread, so the event loop continues."""
    if len(data) <= PARSED_AT_ONCE_BYTES_MAX:
        return parse(data)
    return await asyncio.to_thread(_parse_alone, data)


async def contents(store: ContentStore, root: Digest) -> list[Digest]:
    """The digests of `root` and of all content it names, if they are in the store. Raises StoreUnavailableError."""
    walk = _Walk(store, root)
    await walk.run()
    if walk.bound:
        log.warning("image has too much content: the rest is not announced", image=root, bound=walk.bound)
    return list(walk.found)


class _Walk:
    """One walk, level by level. Each digest is checked once, even if it is named many times."""

    def __init__(self, store: ContentStore, root: Digest) -> None:
        self._store, self._root = store, root
        self.found: dict[Digest, None] = {}
        self.bound = ""  # description of the bound that was reached
        self._seen = {root}
        self._bytes_left, self._looks = MANIFEST_BYTES_TOTAL_MAX, 0

    async def run(self) -> None:
        level = [self._root]
        for _ in range(DEPTH_MAX):
            following: list[Digest] = []
            for digest in level:
                if (manifest := await self._check_manifest(digest)) is None:
                    continue
                if manifest.left_off:
                    self.bound = f"{manifest.left_off} children of {digest}"
                children = [child.digest for child in manifest.children]
                new = [digest for digest in dict.fromkeys(children) if self._is_new(digest)]
                if manifest.is_index:
                    following += new
                    continue
                for child in new:
                    await self._check(child)
            if not following:
                return
            level = following
        self.bound = f"depth {DEPTH_MAX}"

    def _is_new(self, digest: Digest) -> bool:
        if digest in self._seen:
            return False
        if len(self._seen) >= CONTENTS_MAX:
            self.bound = f"{CONTENTS_MAX} contents"
            return False
        self._seen.add(digest)
        return True

    async def _check_manifest(self, digest: Digest) -> Manifest | None:
        """The parsed manifest; None if it is missing or is not a manifest."""
        size = await self._check(digest)
        if size is None or size > MANIFEST_BYTES_MAX:
            return None
        if size > self._bytes_left:
            self.bound = f"{MANIFEST_BYTES_TOTAL_MAX} bytes of manifests"
            return None
        try:
            loaded = await read_manifest(self._store, digest)
        except NotFoundError:  # deleted since the check
            self.found.pop(digest, None)
            return None
        if loaded is None:
            return None
        self._bytes_left -= size
        return loaded[1]

    async def _check(self, digest: Digest) -> int | None:
        """The size in bytes; None if it is missing."""
        self._looks += 1
        if self._looks % TURN_LOOKS == 0:
            await asyncio.sleep(0)
        try:
            size = await self._store.size(digest)
        except NotFoundError:
            return None
        self.found[digest] = None
        return size


def _may_be_json(start: bytes) -> bool:
    stripped = start[:64].lstrip(b" \t\r\n")
    return not stripped or stripped.startswith(b"{")


def _parse_alone(data: bytes) -> Manifest | None:
    with _parsing:
        return parse(data)
