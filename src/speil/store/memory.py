"""The in-memory twin: content in anonymous files, so that it can be sent like any other. For tests."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator

from speil.oci.digest import Digest
from speil.store.base import (
    Image,
    NotFoundError,
    OpenContent,
    StoreEvent,
    StoreEventKind,
    StoreUnavailableError,
)


class MemoryStore:
    """A ContentStore that a test fills; `available` can be switched off."""

    def __init__(self) -> None:
        self.available = True
        self._contents: dict[Digest, tuple[int, int]] = {}
        self._images: dict[str, Digest] = {}
        self._origins: dict[Digest, tuple[str, ...]] = {}
        self._listeners: list[asyncio.Queue[StoreEvent]] = []

    def put(self, data: bytes, *origins: str, algorithm: str = "sha256") -> Digest:
        """Take content in, by its digest of that algorithm; `origins` are the repositories it comes from."""
        digest = Digest.of(data, algorithm)
        self.record(digest, *origins)
        if digest not in self._contents:
            descriptor = os.memfd_create(digest.short, os.MFD_CLOEXEC)
            os.write(descriptor, data)
            self._contents[digest] = (descriptor, len(data))
            self.tell(StoreEvent(StoreEventKind.CONTENT_ADDED, digest=digest))
        return digest

    def record(self, digest: Digest, *origins: str) -> None:
        """Content comes from these repositories too."""
        self._origins[digest] = (*self._origins.get(digest, ()), *origins)

    def tag(self, name: str, target: Digest) -> None:
        """Name an image."""
        self._images[name] = target
        self.tell(StoreEvent(StoreEventKind.IMAGE_ADDED, image=name))

    def remove(self, digest: Digest, *, tell: bool = True) -> None:
        """Drop content, as a garbage collector may without telling."""
        os.close(self._contents.pop(digest)[0])
        self._origins.pop(digest, None)
        if tell:
            self.tell(StoreEvent(StoreEventKind.CONTENT_REMOVED, digest=digest))

    def untag(self, name: str) -> None:
        """Drop an image's name."""
        del self._images[name]
        self.tell(StoreEvent(StoreEventKind.IMAGE_REMOVED, image=name))

    @property
    def listening(self) -> bool:
        """Whether somebody follows the news."""
        return bool(self._listeners)

    def close(self) -> None:
        """Close all descriptors."""
        for descriptor, _ in self._contents.values():
            os.close(descriptor)
        self._contents.clear()

    async def run(self) -> None:
        """Nothing to keep alive."""
        await asyncio.Event().wait()

    async def resolve(self, image: str) -> Digest:
        """See ContentStore."""
        self._check()
        if image not in self._images:
            raise NotFoundError(image)
        return self._images[image]

    async def size(self, digest: Digest) -> int:
        """See ContentStore."""
        return self._find(digest)[1]

    async def open(self, digest: Digest) -> OpenContent:
        """See ContentStore."""
        descriptor, size = self._find(digest)
        # through /proc the descriptor gets a file position of its own
        return OpenContent(digest, os.open(f"/proc/self/fd/{descriptor}", os.O_RDONLY | os.O_CLOEXEC), size)

    async def origins(self, digest: Digest) -> tuple[str, ...]:
        """See ContentStore."""
        self._find(digest)
        return self._origins.get(digest, ())

    async def images(self) -> list[Image]:
        """See ContentStore."""
        self._check()
        return [Image(name, target) for name, target in self._images.items()]

    async def events(self) -> AsyncIterator[StoreEvent]:
        """See ContentStore."""
        queue: asyncio.Queue[StoreEvent] = asyncio.Queue()
        self._listeners.append(queue)
        try:
            yield StoreEvent(StoreEventKind.RESYNC)
            while True:
                yield await queue.get()
        finally:
            self._listeners.remove(queue)

    def _find(self, digest: Digest) -> tuple[int, int]:
        self._check()
        if digest not in self._contents:
            raise NotFoundError(str(digest))
        return self._contents[digest]

    def _check(self) -> None:
        if not self.available:
            raise StoreUnavailableError("switched off")

    def tell(self, event: StoreEvent) -> None:
        """Send news to all who listen."""
        for queue in self._listeners:
            queue.put_nowait(event)
