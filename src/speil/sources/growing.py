"""Content that this node's runtime is downloading now, for a peer that follows: sent as it grows.

The bytes are not verified. The peer's runtime verifies them, as it does for all that peers send. A new request for an
ingest that has all its bytes and is not committed waits a moment for the commit: its digest is being checked, or was
wrong.
"""

from __future__ import annotations

from collections.abc import Callable

from speil.observe.logs import get_log
from speil.oci import byte_range, media_type
from speil.oci.byte_range import ByteRange
from speil.oci.digest import Digest
from speil.sources.base import BrokeOffError, ContentRequest, Opened, Origin
from speil.store.base import NotFoundError, StoreError
from speil.store.growing_content import GrowingContent, IngestEnd
from speil.store.ingests import STALL_SECONDS_MAX, Ingests
from speil.store.sharing import Sharing
from speil.wire.growing_file import GrowingBody
from speil.wire.sink import ClientGoneError, Sink
from speil.wire.splice import SourceBrokeOffError, SourceStalledError

COMMIT_SECONDS_MAX = 1.0  # a commit takes 0.04 to 0.22 s for layers up to 256 MiB: an fsync and a rename

log = get_log("growing")


class Growing:
    """A `Source`: blobs that grow. Manifests are small, and a peer gets them from the store once they are there."""

    def __init__(
        self,
        ingests: Ingests,
        sharing: Sharing,
        *,
        stall_seconds: Callable[[Digest], float] = lambda digest: STALL_SECONDS_MAX,
    ) -> None:
        """`stall_seconds`: for how long the ingest of this content may not grow, read before each wait."""
        self._ingests, self._sharing, self._stall_seconds = ingests, sharing, stall_seconds

    async def open(self, request: ContentRequest) -> Opened | None:
        """See Source. A range may begin behind the bytes that are there: `send` waits for them."""
        digest = request.content.digest
        if digest is None or request.content.is_manifest or not await self._sharing.allows(digest):
            return None
        try:
            content = self._ingests.open(digest, stall_seconds=self._stall_seconds(digest))
        except NotFoundError as error:
            request.notes.miss = str(error)
            return None
        except StoreError as error:
            log.warning("an ingest can't be followed", key=digest, error=error)
            request.notes.miss = str(error)
            return None
        try:
            part = byte_range.parse(request.range_header, content.total)
            if content.end is None and content.size >= content.total:
                await content.ended(COMMIT_SECONDS_MAX)
                if content.end is not IngestEnd.COMMITTED:
                    request.notes.miss = "downloaded, not verified"
                    content.close()
                    return None
        except BaseException:
            content.close()
            raise
        return GrowingBlob(content, part, lambda: self._stall_seconds(digest))


class GrowingBlob(Opened):
    """A blob of which more and more is there. It owns the open ingest."""

    def __init__(self, content: GrowingContent, part: ByteRange | None, stall_seconds: Callable[[], float]) -> None:
        super().__init__(Origin.INGEST, content.digest, media_type.OCTET_STREAM, content.total, part)
        self._content, self._has_left = content, False
        self._body = GrowingBody(content, part.start if part else 0, self.length, stall_seconds)

    @property
    def offset(self) -> int:
        """The next byte to send."""
        return (self.part.stop if self.part else self.size) - self._body.left

    def abandon(self) -> None:
        """`send` ends with BrokeOffError after the bytes that are there."""
        self._content.abandon()

    def client_left(self) -> None:
        """See Opened: `send` ends with ClientGoneError after the bytes that are there."""
        self._has_left = True
        self._content.abandon()

    async def send(self, sink: Sink) -> None:
        """See Opened. BrokeOffError also where the ingest is gone, was begun again, or does not grow."""
        try:
            await self._body.send(sink)
        except (SourceBrokeOffError, SourceStalledError, OSError) as error:
            if self._has_left:
                raise ClientGoneError from error
            log.info("a growing blob broke off", key=self.digest, missing_bytes=self._body.left, error=error)
            raise BrokeOffError(str(error)) from error

    async def close(self) -> None:
        """See Opened."""
        self._content.close()
