"""The demo's upstream registry: read-only, counts what each region pulled."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

from aiohttp import web

from speil.oci import byte_range, endpoint, media_type
from speil.oci.digest import Digest
from speil.oci.image_builder import BuiltImage

REGION_HEADER = "X-Demo-Region"  # the demo's client names its region


class Upstream:
    """Serves images of one repository, by tag. `gets` counts GET requests of content by region and digest."""

    def __init__(self, name: str, images: Mapping[str, BuiltImage]) -> None:
        self.gets: Counter[tuple[str, Digest]] = Counter()
        self._name = name
        self._tags = {tag: image.index.digest for tag, image in images.items()}
        self._blobs = {digest: data for image in images.values() for digest, data in image.blobs.items()}
        self._types = {digest: kind for image in images.values() for digest, kind in image.media_types.items()}

    @asynccontextmanager
    async def serve(self, host: str, port: int) -> AsyncIterator[str]:
        """Listen on `host` until the end of the block; yields the URL. Raises OSError."""
        app = web.Application()
        app.router.add_get("/{path:.*}", self._answer)
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        try:
            await web.TCPSite(runner, host, port).start()
            yield f"http://{host}:{port}"
        finally:
            await runner.cleanup()

    async def _answer(self, request: web.Request) -> web.Response:
        try:
            asked = endpoint.parse(request.path, "upstream")
        except endpoint.EndpointError:
            return web.Response(status=404)
        if isinstance(asked, endpoint.Ping):
            return web.Response()
        digest = asked.digest or self._tags.get(str(asked.reference))
        if asked.name != self._name or digest not in self._blobs:
            return web.Response(status=404)
        body, kind = self._blobs[digest], self._types[digest]
        headers = {
            "Docker-Content-Digest": str(digest),
            "Content-Type": kind if asked.is_manifest else media_type.OCTET_STREAM,
        }
        if request.method == "HEAD":
            return web.Response(headers=headers | {"Content-Length": str(len(body))})
        self.gets[request.headers.get(REGION_HEADER, "?"), digest] += 1
        wanted = byte_range.parse(request.headers.get("Range"), len(body))
        if wanted is None:
            return web.Response(body=body, headers=headers)
        headers["Content-Range"] = wanted.content_range
        return web.Response(status=206, body=body[wanted.start : wanted.stop], headers=headers)
