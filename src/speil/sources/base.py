"""The port to the bytes of content: this node's store, its peers, tags.

    opened = await source.open(request)      None: this source does not have it
    async with opened: ...                   size, extent and type for the head; then `send` into the client's sink

What a source opens need not be there in full: a body from a peer may stop, and `send` goes on from another peer at the
same offset.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from enum import StrEnum
from types import TracebackType
from typing import Protocol

from speil.multiformats.peer_id import PeerId
from speil.oci.byte_range import ByteRange
from speil.oci.digest import Digest
from speil.oci.endpoint import Content
from speil.oci.manifest import Manifest
from speil.wire.sink import Sink


class Origin(StrEnum):
    """Where bytes come from; the text is a metric's label and stands in the log."""

    STORE = "store"
    PEER = "peer"
    INGEST = "ingest"  # a download of this node's runtime, as it grows


class BrokeOffError(Exception):
    """A body whose head was sent can't be finished; the message says why. The connection ends with FIN."""


@dataclass(slots=True)
class Notes:
    """What a source notes about a request while it works on it. It can be read at any time, after errors too."""

    attempts: int = 0  # requests sent to peers
    peer: PeerId | None = None  # that serves, or served last
    asked_peers: bool = False  # the answer depends on peers: a hit if one of them serves it, else a miss
    miss: str = "not found"  # why `open` returned None
    comes_again: bool = False  # it is ended without a byte, and the client will ask again: neither a hit nor a miss


@dataclass(frozen=True, slots=True)
class ContentRequest:
    """What is asked of a source.

    `method` is GET or HEAD, `range_header` the client's ("" for all), `accept` its Accept (the type of a manifest that
    does not state its own). `verifies`: the client verifies content and keeps it, so that a second request for it means
    that the first delivery was wrong: containerd does. `frees_slot`: the client waits for a download slot before each
    request, also before the next one for the same content: containerd 2.1 and later.
    """

    content: Content
    method: str
    range_header: str = ""
    accept: str = ""
    verifies: bool = False
    frees_slot: bool = False
    notes: Notes = field(default_factory=Notes)


class Opened(ABC):
    """Content that can be sent. Use it in `async with`, or close it.

    `size` is the size of all of it in bytes, `part` the range that is sent, None for all.
    """

    data: bytes | None = None  # where all that is sent is in memory, and small
    manifest: Manifest | None = None  # where it is one
    headers: tuple[tuple[str, str], ...] = ()  # more headers for the answer

    def __init__(
        self, origin: Origin, digest: Digest, media_type: str, size: int, part: ByteRange | None = None
    ) -> None:
        self.origin, self.digest, self.media_type, self.size, self.part = origin, digest, media_type, size, part

    @property
    def length(self) -> int:
        """How many bytes are sent."""
        return self.part.length if self.part else self.size

    @abstractmethod
    async def send(self, sink: Sink) -> None:
        """Send `length` bytes. Raises BrokeOffError, ClientGoneError."""

    def client_left(self) -> None:  # noqa: B027 - most wait for nothing
        """The client waits for no more bytes: `send` need not wait for more that could be sent."""

    async def close(self) -> None:  # noqa: B027 - most have nothing to close
        """Free what is held; a second call does nothing."""

    async def __aenter__(self) -> Opened:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()


class Source(Protocol):
    """Adapters: `own_store`, `growing`, `peers`, `tags`; `others`, `following` and `serving` in `inflight`."""

    async def open(self, request: ContentRequest) -> Opened | None:
        """Content, ready to be sent; None where this source does not have it (`request.notes.miss` says why).

        Raises UnsatisfiableError (`oci.byte_range`) where the range is behind the end of the content.
        """
