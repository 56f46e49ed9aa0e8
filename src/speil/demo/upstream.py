"""The demo's upstream registry: read-only, as slow as a real one, counts what each region pulled."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

from speil.http1.message import Request
from speil.http1.places import Bounds
from speil.http1.reply import Reply
from speil.http1.server import GuardedServer
from speil.oci import byte_range, endpoint, media_type
from speil.oci.digest import Digest
from speil.oci.image_builder import BuiltImage
from speil.setting import ListenAddress
from speil.token_bucket import Bucket

CONNECTIONS = Bounds(total=1024, own=512, per_share=512)  # all nodes of the demo come from loopback
REGION_HEADER = "X-Demo-Region"  # the demo's client names its region


class Upstream:
    """Serves images of one repository, by tag.

    By region and digest, `gets` counts GET requests of content, `sent_bytes` the bytes of the bodies.
    """

    chunk_bytes = 256 << 10  # of a body, written at a time

    def __init__(
        self, name: str, images: Mapping[str, BuiltImage], *, region_bytes_per_second: float | None = None
    ) -> None:
        """`region_bytes_per_second`: the speed of each region's link to the upstream; None: no limit."""
        self.gets: Counter[tuple[str, Digest]] = Counter()
        self.sent_bytes: Counter[tuple[str, Digest]] = Counter()
        self._links: dict[str, Bucket] = {}
        self._link_bytes_per_second = region_bytes_per_second
        self._name = name
        self._tags = {tag: image.index.digest for tag, image in images.items()}
        self._blobs = {digest: data for image in images.values() for digest, data in image.blobs.items()}
        self._types = {digest: kind for image in images.values() for digest, kind in image.media_types.items()}

    @asynccontextmanager
    async def serve(self, host: str, port: int) -> AsyncIterator[str]:
        """Listen on `host` until the end of the block; yields the URL. Raises OSError."""
        async with GuardedServer("upstream", self._answer, CONNECTIONS).serve(ListenAddress(host, port)):
            yield f"http://{host}:{port}"

    async def _answer(self, request: Request, reply: Reply) -> None:
        try:
            asked = endpoint.parse(request.path, "upstream")
        except endpoint.EndpointError:
            await reply.send(404)
            return
        if isinstance(asked, endpoint.Ping):
            await reply.send(200)
            return
        digest = asked.digest or self._tags.get(str(asked.reference))
        if asked.name != self._name or digest not in self._blobs:
            await reply.send(404)
            return
        body, kind = self._blobs[digest], self._types[digest]
        headers = {
            "Docker-Content-Digest": str(digest),
            "Content-Type": kind if asked.is_manifest else media_type.OCTET_STREAM,
        }
        if request.method == "HEAD":
            await reply.send(200, headers.items(), body)
            return
        region = request.headers.get(REGION_HEADER, "?")
        self.gets[region, digest] += 1
        wanted = byte_range.parse(request.headers.get("Range"), len(body))
        status = 200
        if wanted is not None:
            headers["Content-Range"] = wanted.content_range
            status, body = 206, body[wanted.start : wanted.stop]
        async with reply.stream(status, headers.items(), len(body)) as out:
            for start in range(0, len(body), self.chunk_bytes):
                chunk = body[start : start + self.chunk_bytes]
                await self._until_sent(region, len(chunk))
                await out.write(chunk)
                self.sent_bytes[region, digest] += len(chunk)

    async def _until_sent(self, region: str, size: int) -> None:
        """Wait as long as the region's link takes for `size` bytes, behind what it carries already."""
        if not self._link_bytes_per_second:
            return
        now = asyncio.get_running_loop().time()
        link = self._links.setdefault(region, Bucket(self.chunk_bytes, self._link_bytes_per_second, now))
        await asyncio.sleep(link.overdraw(now, size))
