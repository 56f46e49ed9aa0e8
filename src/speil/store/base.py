"""The port to this node's content: images by name, content by digest, and news of both.

speil stores nothing. A store answers from what the container runtime keeps, and every answer is looked up when it is
asked for: a record of yesterday is a hint, the disk is the truth. Content is handed out as an open file descriptor,
so that the data plane can send it without reading it, and so that a file which is collected in mid-transfer can still
be read to its end.
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
    """The store can't answer."""


class NotFoundError(StoreError):
    """The store answered: it does not hold that. Ask a peer, or give up."""


class StoreUnavailableError(StoreError):
    """The store did not answer (containerd is away, the disk fails): ours to report; to the client it is a miss."""


@dataclass(frozen=True, slots=True)
class Image:
    """A named image: `name` is fully qualified (`docker.io/library/busybox:1.37`), `target` its manifest or index."""

    name: str
    target: Digest


class StoreEventKind(StrEnum):
    """What happened."""

    CONTENT_ADDED = "content_added"
    CONTENT_REMOVED = "content_removed"
    IMAGE_ADDED = "image_added"  # created or updated
    IMAGE_REMOVED = "image_removed"
    RESYNC = "resync"  # news may have been missed (a reconnect): look at everything again


@dataclass(frozen=True, slots=True)
class StoreEvent:
    """One piece of news; `digest` comes with content events, `image` (its name) with image events."""

    kind: StoreEventKind
    digest: Digest | None = None
    image: str | None = None


@dataclass(slots=True)
class OpenContent:
    """Content open for reading: a file descriptor and its size in bytes. Close it, or use it in a `with`."""

    digest: Digest
    fd: int
    size: int

    def peek(self, size: int) -> bytes:
        """Up to `size` bytes from the start."""
        return os.pread(self.fd, size, 0)

    def close(self) -> None:
        """Close the descriptor; a second call does nothing."""
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
    """A node's content. Adapters: `memory`, `oci_layout`, `containerd`; `testing.store_conformance` holds for all."""

    async def run(self) -> None:
        """Keep the connection to the store alive and events flowing, until cancelled."""

    @property
    def available(self) -> bool:
        """Whether the store answers at present."""

    async def resolve(self, image: str) -> Digest:
        """The digest that an image name points at. Raises NotFoundError, StoreUnavailableError."""

    async def size(self, digest: Digest) -> int:
        """The size in bytes of complete content. Raises NotFoundError, StoreUnavailableError."""

    async def open(self, digest: Digest) -> OpenContent:
        """Complete content, open. Raises NotFoundError, StoreUnavailableError."""

    async def origins(self, digest: Digest) -> tuple[str, ...]:
        """The repositories (`registry/name`) that content is recorded to come from; none where nothing is recorded.

        Raises NotFoundError, StoreUnavailableError.
        """

    async def images(self) -> list[Image]:
        """All images. Raises StoreUnavailableError."""

    def events(self) -> AsyncIterator[StoreEvent]:
        """News from now on, for ever; starts with a RESYNC and sends one after each gap. Never raises."""
