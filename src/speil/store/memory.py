"""An in-memory content store for tests. Content is in anonymous files, so it can be sent with sendfile."""

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
    """A ContentStore that a test fills. Set `available` to False to simulate an outage. Call `close` at the end."""

    def __init__(self) -> None:
        self.available = True
        self._contents: dict[Digest, tuple[int, int]] = {}
        self._images: dict[str, Digest] = {}
        self._origins: dict[Digest, tuple[str, ...]] = {}
        self._listeners: list[asyncio.Queue[StoreEvent]] = []

    def put(self, data: bytes, *origins: str, algorithm: str = "sha256") -> Digest:
        """Add content and send CONTENT_ADDED; `origins` are the repositories (`registry/name`) it was pulled from."""
        digest = Digest.of(data, algorithm)
        self.record(digest, *origins)
        if digest not in self._contents:
            descriptor = os.memfd_create(digest.short, os.MFD_CLOEXEC)
            os.write(descriptor, data)
            self._contents[digest] = (descriptor, len(data))
            self.tell(StoreEvent(StoreEventKind.CONTENT_ADDED, digest=digest))
        return digest

    def record(self, digest: Digest, *origins: str) -> None:
        """Add repositories to the origins of `digest`."""
        self._origins[digest] = (*self._origins.get(digest, ()), *origins)

    def tag(self, name: str, target: Digest) -> None:
        """Name an image and send IMAGE_ADDED."""
        self._images[name] = target
        self.tell(StoreEvent(StoreEventKind.IMAGE_ADDED, image=name))

    def remove(self, digest: Digest, *, tell: bool = True) -> None:
        """Remove content; `tell=False` sends no event, as containerd's garbage collection does."""
        os.close(self._contents.pop(digest)[0])
        self._origins.pop(digest, None)
        if tell:
            self.tell(StoreEvent(StoreEventKind.CONTENT_REMOVED, digest=digest))

    def untag(self, name: str) -> None:
        """Remove the name of an image and send IMAGE_REMOVED."""
        del self._images[name]
        self.tell(StoreEvent(StoreEventKind.IMAGE_REMOVED, image=name))

    @property
    def listening(self) -> bool:
        """Whether there is a subscriber to `events`."""
        return bool(self._listeners)

    def close(self) -> None:
        """Remove all content and close its descriptors."""
        for descriptor, _ in self._contents.values():
            os.close(descriptor)
        self._contents.clear()

    async def run(self) -> None:
        """See ContentStore. There is no connection to keep."""
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
        # opening through /proc gives the descriptor its own file position
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
            raise StoreUnavailableError("the store is not available")

    def tell(self, event: StoreEvent) -> None:
        """Send an event to all subscribers."""
        for queue in self._listeners:
            queue.put_nowait(event)
