"""An upstream registry on loopback that sends no faster than a rate, all responses together, and counts its bytes."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

from speil.demo.upstream import CONNECTIONS, REGION_HEADER
from speil.http1.message import Request
from speil.http1.reply import Reply
from speil.http1.server import GuardedServer
from speil.oci import byte_range, endpoint, media_type
from speil.oci.digest import Digest
from speil.oci.image_builder import BuiltImage
from speil.setting import ListenAddress

CHUNK_BYTES = 64 << 10


class PacedUpstream:
    """Serves images by tag, under any name. The demo's client names itself in a header."""

    def __init__(self, images: Mapping[str, BuiltImage], bytes_per_second: float) -> None:
        self.sent = Counter[tuple[str, Digest]]()  # body bytes of GETs, by client and digest
        self.gets = Counter[Digest]()
        self._rate, self._free_at = bytes_per_second, 0.0
        self._tags = {tag: image.index.digest for tag, image in images.items()}
        self._blobs = {digest: data for image in images.values() for digest, data in image.blobs.items()}
        self._types = {digest: kind for image in images.values() for digest, kind in image.media_types.items()}

    def copies(self, image: BuiltImage) -> float:
        """Bytes of configs and layers that were sent, in sizes of the image without its manifests."""
        blobs = [digest for digest in image.blobs if image.kind(digest) == "blobs"]
        sizes = Counter[Digest]()
        for (_, digest), size in self.sent.items():
            sizes[digest] += size
        return sum(sizes[digest] for digest in blobs) / sum(len(image.blobs[digest]) for digest in blobs)

    @asynccontextmanager
    async def serve(self, host: str, port: int) -> AsyncIterator[str]:
        """Listen on `host` until the end of the block; yields the URL. Raises OSError."""
        async with GuardedServer("upstream", self._answer, CONNECTIONS).serve(ListenAddress(host, port)):
            yield f"http://{host}:{port}"

    async def _answer(self, request: Request, reply: Reply) -> None:
        asked = endpoint.parse(request.path, "upstream")
        assert not isinstance(asked, endpoint.Ping)
        digest = asked.digest or self._tags[str(asked.reference)]
        body, kind = self._blobs[digest], self._types[digest]
        headers = {
            "Docker-Content-Digest": str(digest),
            "Content-Type": kind if asked.is_manifest else media_type.OCTET_STREAM,
        }
        if request.method == "HEAD":
            await reply.send(200, headers.items(), body)
            return
        self.gets[digest] += 1
        wanted, status = byte_range.parse(request.headers.get("Range"), len(body)), 200
        if wanted is not None:
            headers["Content-Range"] = wanted.content_range
            status, body = 206, body[wanted.start : wanted.stop]
        client = request.headers.get(REGION_HEADER, "?")
        async with reply.stream(status, headers.items(), len(body)) as out:
            for start in range(0, len(body), CHUNK_BYTES):
                chunk = body[start : start + CHUNK_BYTES]
                await self._turn(len(chunk))
                await out.write(chunk)
                self.sent[client, digest] += len(chunk)

    async def _turn(self, size: int) -> None:
        """Wait until the link is free for so many bytes; whoever waits longest is next."""
        now = time.monotonic()
        start = max(now, self._free_at)
        self._free_at = start + size / self._rate
        await asyncio.sleep(self._free_at - now)
