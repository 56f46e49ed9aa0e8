"""The demo's pulls: all nodes at once, or one and then the others; verified; and a request across the border."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from speil.border.http import MIRRORED_HEADER, REGION_HEADER
from speil.demo.client import PullClient, PullError, Target
from speil.demo.node import Node
from speil.http1.client import Answer, HttpClient
from speil.oci.digest import Digest
from speil.oci.image_builder import BuiltImage
from speil.progress import Progress
from speil.store.base import NotFoundError
from speil.store.oci_layout import OciLayoutStore

REGISTRY, NAME = "registry.demo", "demo/app"
ANNOUNCE_SECONDS_MAX = 20.0  # a record reaches the mesh in milliseconds
_POLL_SECONDS = 0.1


@dataclass
class Pulls:
    """Pulls from each node's own speil, then from `upstream` (a URL).

    `seconds`: how long each pull took, by host. `bytes`: of all pulls.
    """

    upstream: str
    http: HttpClient
    progress: Progress
    seconds: dict[str, float] = field(default_factory=dict)
    bytes: int = 0

    async def one(self, node: Node, tag: str, on_bytes: Callable[[int], None] = lambda count: None) -> None:
        """One node pulls. `on_bytes` is called with the size of each chunk. Raises PullError."""
        began = time.monotonic()

        def received(count: int) -> None:
            self.bytes += count
            self.progress.note(f"{self.bytes >> 20} MiB pulled")
            on_bytes(count)

        client = PullClient(node.region, OciLayoutStore(node.layout), self.http, received)
        await client.pull(Target(REGISTRY, NAME, tag, (node.url, self.upstream)))
        self.seconds[node.host] = time.monotonic() - began
        self.progress.line(f"  {node.name}: done in {self.seconds[node.host]:.2f} s")
        self.progress.advance()

    async def at_once(self, nodes: Sequence[Node], tag: str) -> None:
        """All nodes pull at the same moment. Raises PullError."""
        async with asyncio.TaskGroup() as group:
            for node in nodes:
                group.create_task(self.one(node, tag))

    async def staged(self, nodes: Sequence[Node], tag: str, image: BuiltImage) -> None:
        """The first node pulls. When its content is announced, all others pull at once. Raises PullError."""
        first, *others = nodes
        await self.one(first, tag)
        await self.announced(first, others, image)
        await self.at_once(others, tag)

    async def announced(self, holder: Node, others: Sequence[Node], image: BuiltImage) -> None:
        """Wait until the others find all content of the image that `holder` has. Raises PullError."""
        try:
            async with asyncio.timeout(ANNOUNCE_SECONDS_MAX):
                for node in others:
                    for digest in await _held(holder, image):
                        while (await self._ask(node, "HEAD", image, digest)).status != 200:
                            await asyncio.sleep(_POLL_SECONDS)
        except TimeoutError:
            raise PullError(f"{holder.name}'s content was not found after {ANNOUNCE_SECONDS_MAX:.0f} s") from None

    async def known(self, node: Node, region: Sequence[Node]) -> None:
        """Wait until `node` has all provider records of its region, which is small. Raises PullError."""
        try:
            async with asyncio.timeout(ANNOUNCE_SECONDS_MAX):
                while True:
                    provided = [await one.metric(self.http, "speil_provided_keys") for one in region]
                    if await node.metric(self.http, "speil_provider_records") >= sum(provided):
                        return
                    await asyncio.sleep(_POLL_SECONDS)
        except TimeoutError:
            raise PullError(f"{node.name} lacks records after {ANNOUNCE_SECONDS_MAX:.0f} s") from None

    async def verify(self, node: Node, image: BuiltImage) -> None:
        """Request all that the node pulled from its own speil. Raises PullError."""
        for digest in await _held(node, image):
            answer = await self._ask(node, "GET", image, digest)
            if answer.status != 200 or not digest.matches(answer.body):
                raise PullError(f"{node.name} served wrong bytes for {digest}")

    async def held_bytes(self, node: Node, image: BuiltImage) -> int:
        """The size of what `node` holds of an image."""
        return sum(len(image.blobs[digest]) for digest in await _held(node, image))

    async def knock(self, stranger: Node, node: Node, image: BuiltImage) -> int:
        """Request a layer that `node` has, as a peer of the stranger's region. Returns the status."""
        (digest, *_) = await _held(node, image)
        headers = {MIRRORED_HEADER: "true", REGION_HEADER: stranger.region}
        return (await self._ask(node, "GET", image, digest, headers)).status

    async def _ask(
        self, node: Node, method: str, image: BuiltImage, digest: Digest, headers: dict[str, str] | None = None
    ) -> Answer:
        return await self.http.request(
            method,
            _url(node, image, digest),
            params={"ns": REGISTRY},
            headers=headers,
            answer_bytes_max=image.size_bytes,
        )


def _url(node: Node, image: BuiltImage, digest: Digest) -> str:
    return f"{node.url}/v2/{NAME}/{image.kind(digest)}/{digest}"


async def _held(node: Node, image: BuiltImage) -> list[Digest]:
    store, held = OciLayoutStore(node.layout), []
    for digest in image.blobs:
        try:
            await store.size(digest)
            held.append(digest)
        except NotFoundError:
            continue
    return held
