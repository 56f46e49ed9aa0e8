"""The upstream registry of the demo: read-only, and it counts who took what how often."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from aiohttp import web

from speil.oci import endpoint, media_type
from speil.oci.digest import Digest
from speil.oci.image_builder import BuiltImage

NODE_HEADER = "X-Demo-Node"  # the demo's client says for which node it asks


class Upstream:
    """Serves one image under one name and tag; `gets` and `bytes_by_node` tell what left it."""

    def __init__(self, image: BuiltImage, name: str, tag: str) -> None:
        self.gets: Counter[Digest] = Counter()
        self.bytes_by_node: Counter[str] = Counter()
        self._image, self._name, self._tag = image, name, tag

    @asynccontextmanager
    async def serve(self, host: str, port: int) -> AsyncIterator[str]:
        """Listen; yields the URL."""
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
        digest = asked.digest or (self._image.index.digest if asked.reference == self._tag else None)
        if asked.name != self._name or digest not in self._image.blobs:
            return web.Response(status=404)
        body, kind = self._image.blobs[digest], self._image.media_types[digest]
        headers = {
            "Docker-Content-Digest": str(digest),
            "Content-Type": kind if asked.is_manifest else media_type.OCTET_STREAM,
        }
        if request.method == "HEAD":
            return web.Response(headers=headers | {"Content-Length": str(len(body))})
        self.gets[digest] += 1
        self.bytes_by_node[request.headers.get(NODE_HEADER, "?")] += len(body)
        return web.Response(body=body, headers=headers)
