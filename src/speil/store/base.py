"""The port to the content of this node: images by name, content by digest, and events about both.

speil stores no content. An adapter reads what the container runtime stores, anew for each call. Content is returned as
an open file descriptor. So the data plane can send it without reading it, and a file that is deleted during a transfer
can still be read to its end.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from dataclasses import dataclass
from enum import StrEnum
from types import TracebackType
from typing import Protocol

from speil.oci.digest import Digest


class StoreError(Exception):
    """Base class: the store has no answer. Catch it to treat both cases as a miss."""


class NotFoundError(StoreError):
    """The store answered: it does not have this content or image. Ask a peer, or respond with 404."""


class StoreUnavailableError(StoreError):
    """The store did not answer: containerd is down, or the disk fails. The fault is ours; a client gets a miss."""


@dataclass(frozen=True, slots=True)
class Image:
    """A named image: its full name (`docker.io/library/busybox:1.37`), and the digest of its manifest or index."""

    name: str
    target: Digest


class StoreEventKind(StrEnum):
    """The kinds of events; the values are labels of `speil_store_events_total`."""

    CONTENT_ADDED = "content_added"
    CONTENT_REMOVED = "content_removed"
    IMAGE_ADDED = "image_added"  # created or updated
    IMAGE_REMOVED = "image_removed"
    RESYNC = "resync"  # events may have been lost, as in a reconnect: scan everything again


@dataclass(frozen=True, slots=True)
class StoreEvent:
    """An event. Content events have `digest`, image events have `image` (the name), RESYNC has neither."""

    kind: StoreEventKind
    digest: Digest | None = None
    image: str | None = None


@dataclass(slots=True)
class OpenContent:
    """Content that is open for reading; `size` is in bytes. The receiver owns `fd`: call `close`, or use `with`."""

    digest: Digest
    fd: int
    size: int

    def peek(self, size: int) -> bytes:
        """Read up to `size` bytes from the start. Does not move the file position. Raises OSError."""
        return os.pread(self.fd, size, 0)

    def close(self) -> None:
        """Close the descriptor. A second call does nothing."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1

    def __enter__(self) -> OpenContent:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class ContentStore(Protocol):
    """The content of a node. Every adapter passes `testing.store_conformance`."""

    async def run(self) -> None:
        """Keep the connection to the store and deliver events, until cancelled."""

    @property
    def available(self) -> bool:
        """Whether the store answers now."""

    async def resolve(self, image: str) -> Digest:
        """The digest of the image with this full name. Raises NotFoundError, StoreUnavailableError."""

    async def size(self, digest: Digest) -> int:
        """The size in bytes of complete content. Raises NotFoundError, StoreUnavailableError."""

    async def open(self, digest: Digest) -> OpenContent:
        """Open complete content; the caller closes it. Raises NotFoundError, StoreUnavailableError."""

    async def origins(self, digest: Digest) -> tuple[str, ...]:
        """The repositories (`registry/name`) from which content was pulled; empty if the store has no record of it.

        Raises NotFoundError, StoreUnavailableError.
        """

    async def images(self) -> list[Image]:
        """All images. One image may have several names. Raises StoreUnavailableError."""

    def events(self) -> AsyncIterator[StoreEvent]:
        """Events from now on, without end. The first is a RESYNC; another follows each gap. Never raises."""
