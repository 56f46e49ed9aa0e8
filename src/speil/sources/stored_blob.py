"""A blob of this node's store, sent from its open file."""

from __future__ import annotations

import asyncio

from speil.observe.logs import get_log
from speil.oci import media_type
from speil.oci.byte_range import ByteRange
from speil.sources.base import BrokeOffError, Opened, Origin
from speil.sources.unreadable import Unreadable
from speil.store.base import OpenContent
from speil.wire.file_body import FileBody
from speil.wire.sink import Sink

log = get_log("mirror")


class StoredBlob(Opened):
    """It owns the open file."""

    def __init__(self, content: OpenContent, part: ByteRange | None, unreadable: Unreadable) -> None:
        super().__init__(Origin.STORE, content.digest, media_type.OCTET_STREAM, content.size, part)
        self._content, self._unreadable = content, unreadable
        self._body = FileBody(content.fd, part.start if part else 0, self.length)

    async def send(self, sink: Sink) -> None:
        """See Opened."""
        try:
            await self._body.send(sink)
        except OSError as error:
            # the head is sent: this answer can only break off, and the client's next request must not come here
            self._unreadable.add(self.digest, asyncio.get_running_loop().time())
            log.error("the disk failed in mid-body", key=self.digest, missing_bytes=self._body.left, error=error)
            raise BrokeOffError(str(error)) from error

    async def close(self) -> None:
        """See Opened."""
        self._content.close()
