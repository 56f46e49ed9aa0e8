"""From an image to the content of it that is here.

An index names manifests of platforms that were never pulled; a manifest may have lost a layer to garbage collection.
What is announced and served is what the store really holds, so each step looks. What one image may cost is bounded by
what is looked at, found or not; a bound that is reached leaves a line in the log.
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

DEPTH_MAX = 32  # an index of indexes of manifests is the deepest in practice; the bounds below hold at any depth
CONTENTS_MAX = 10_000  # looked at, of one image: a bound against documents made to blow up
MANIFEST_BYTES_TOTAL_MAX = 64 << 20  # read and parsed, of one image; an index of ten thousand manifests has ten
TURN_LOOKS = 64  # then other tasks have their turn: looks at a disk do not wait for anything
READ_AT_ONCE_BYTES_MAX = 64 << 10
PARSED_AT_ONCE_BYTES_MAX = 64 << 10  # what is larger is parsed in a thread, one at a time: that bounds their memory

log = get_log("walk")
_parsing = threading.Lock()
_unreadable = Seldom()


async def read(store: ContentStore, digest: Digest, size_bytes_max: int = MANIFEST_BYTES_MAX) -> bytes:
    """Small content, whole. Raises NotFoundError (also for what is larger or unreadable), StoreUnavailableError."""
    with await store.open(digest) as content, _readable(digest):
        if content.size > size_bytes_max:
            raise NotFoundError(f"{digest} has {content.size} bytes, too many for a manifest")
        return await asyncio.to_thread(os.pread, content.fd, content.size, 0)


async def read_manifest(store: ContentStore, digest: Digest) -> tuple[bytes, Manifest] | None:
    """A manifest's bytes and what they say; None for content that is no manifest. Raises as `read`."""
    with await store.open(digest) as content, _readable(digest):
        if content.size > MANIFEST_BYTES_MAX:
            return None
        # what is small is read at once: it is in memory, or a page away, and a thread hop costs more
        data = content.peek(READ_AT_ONCE_BYTES_MAX)
        if not _may_be_json(data):
            return None
        if content.size > len(data):
            data = await asyncio.to_thread(os.pread, content.fd, content.size, 0)
    manifest = await parsed(data)
    return (data, manifest) if manifest else None


@contextmanager
def _readable(digest: Digest) -> Iterator[None]:
    """Content that the disk can't give is as good as none: the rest of the store goes on."""
    try:
        yield
    except OSError as error:
        if _unreadable.due(str(digest)):
            log.warning("content can't be read: going on as if it were not here", key=digest, error=error)
        raise NotFoundError(f"{digest} can't be read: {error.strerror}") from error


async def parsed(data: bytes) -> Manifest | None:
    """As `oci.manifest.parse`, and the loop goes on meanwhile."""
    if len(data) <= PARSED_AT_ONCE_BYTES_MAX:
        return parse(data)
    return await asyncio.to_thread(_parse_alone, data)


async def contents(store: ContentStore, root: Digest) -> list[Digest]:
    """The content below `root` that the store holds, itself first. Raises StoreUnavailableError."""
    walk = _Walk(store, root)
    await walk.run()
    if walk.bound:
        log.warning(
            "an image has more content than is looked at: the rest is not announced", image=root, bound=walk.bound
        )
    return list(walk.found)


class _Walk:
    """One walk, level by level; each content is looked at once, however often it is named."""

    def __init__(self, store: ContentStore, root: Digest) -> None:
        self._store, self._root = store, root
        self.found: dict[Digest, None] = {}
        self.bound = ""  # the one that was reached
        self._seen = {root}
        self._bytes_left, self._looks = MANIFEST_BYTES_TOTAL_MAX, 0

    async def run(self) -> None:
        level = [self._root]
        for _ in range(DEPTH_MAX):
            following: list[Digest] = []
            for digest in level:
                if (manifest := await self._look_into(digest)) is None:
                    continue
                if manifest.left_off:
                    self.bound = f"{manifest.left_off} children of {digest}"
                children = [child.digest for child in manifest.children]
                new = [digest for digest in dict.fromkeys(children) if self._is_new(digest)]
                if manifest.is_index:
                    following += new
                    continue
                for child in new:
                    await self._look_at(child)
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

    async def _look_into(self, digest: Digest) -> Manifest | None:
        """What it names, if it is here and is a manifest."""
        size = await self._look_at(digest)
        if size is None or size > MANIFEST_BYTES_MAX:
            return None
        if size > self._bytes_left:
            self.bound = f"{MANIFEST_BYTES_TOTAL_MAX} bytes of manifests"
            return None
        try:
            loaded = await read_manifest(self._store, digest)
        except NotFoundError:  # collected a moment ago
            self.found.pop(digest, None)
            return None
        if loaded is None:
            return None
        self._bytes_left -= size
        return loaded[1]

    async def _look_at(self, digest: Digest) -> int | None:
        """Its size, if it is here."""
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
