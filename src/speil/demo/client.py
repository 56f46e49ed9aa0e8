"""The demo's client: pulls an image as containerd does, first from the node's own speil, then from upstream.

As in containerd: the order of requests, three layers at a time, the parameter `ns`, and a Range request after a body
that broke off. Every blob is verified by digest and size when it is written to the node's store.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass

from speil.demo.upstream import REGION_HEADER
from speil.http1.client import HttpClient, HttpError, StreamedAnswer
from speil.oci import media_type
from speil.oci.digest import Digest
from speil.oci.manifest import Descriptor, parse
from speil.store.base import NotFoundError
from speil.store.oci_layout import OciLayoutStore

LAYERS_AT_ONCE = 3  # containerd's max_concurrent_downloads
_ACCEPT = ", ".join(sorted(media_type.MANIFESTS))


class PullError(Exception):
    """The pull failed, as it would in containerd."""


@dataclass(frozen=True, slots=True)
class Target:
    """An image for one platform, and the hosts to ask, in the order of a hosts.toml."""

    registry: str
    name: str
    tag: str
    hosts: tuple[str, ...]
    architecture: str = "amd64"


class PullClient:
    """Pulls for one node into its store. `on_bytes` is called with the size of each chunk."""

    def __init__(self, region: str, store: OciLayoutStore, http: HttpClient, on_bytes: Callable[[int], None]) -> None:
        self._region, self._store, self._http, self._on_bytes = region, store, http, on_bytes

    async def pull(self, target: Target) -> None:
        """Pull what the store does not have, verify it, tag it. Raises PullError."""
        index = await self._resolve(target)
        await self._fetch(target, "manifests", index)
        chosen = await self._platform(target, index.digest)
        await self._fetch(target, "manifests", chosen)
        if (manifest := parse(await self._read(chosen.digest))) is None:
            raise PullError(f"{chosen.digest} is not a manifest")
        config, *layers = manifest.children
        await self._fetch(target, "blobs", config)
        slots = asyncio.Semaphore(LAYERS_AT_ONCE)

        async def fetch_layer(layer: Descriptor) -> None:
            async with slots:
                await self._fetch(target, "blobs", layer)

        async with asyncio.TaskGroup() as group:
            for layer in layers:
                group.create_task(fetch_layer(layer))
        await self._store.tag(f"{target.registry}/{target.name}:{target.tag}", index)

    async def _resolve(self, target: Target) -> Descriptor:
        for host in target.hosts:
            async with self._request("HEAD", host, target, "manifests", target.tag) as response:
                if response.status == 200:
                    return Descriptor(
                        response.headers["Content-Type"],
                        Digest.parse(response.headers["Docker-Content-Digest"]),
                        int(response.headers["Content-Length"]),
                    )
        raise PullError(f"{target.name}:{target.tag} not found")

    async def _platform(self, target: Target, index: Digest) -> Descriptor:
        for item in json.loads(await self._read(index))["manifests"]:
            if item["platform"]["architecture"] == target.architecture:
                return Descriptor(item["mediaType"], Digest.parse(item["digest"]), item["size"])
        raise PullError(f"no manifest for {target.architecture}")

    async def _fetch(self, target: Target, kind: str, wanted: Descriptor) -> None:
        try:
            await self._store.size(wanted.digest)
        except NotFoundError:
            chunks = self._bytes(target.hosts, target, kind, wanted.digest, wanted.size)
            await self._store.ingest(wanted.digest, wanted.size, chunks)

    async def _bytes(
        self, hosts: tuple[str, ...], target: Target, kind: str, digest: Digest, size: int
    ) -> AsyncIterator[bytes]:
        """The content, from the first host that has it; after a break from the next one, at the same offset."""
        offset = 0
        for host in hosts:
            headers = {"Range": f"bytes={offset}-"} if offset else {}
            try:
                async with self._request("GET", host, target, kind, str(digest), headers) as response:
                    if response.status != (206 if offset else 200):
                        continue
                    async for chunk in response:
                        offset += len(chunk)
                        self._on_bytes(len(chunk))
                        yield chunk
            except HttpError:
                continue  # the body broke off: the next host continues at this offset
            if offset == size:
                return
        raise PullError(f"{digest}: {offset} of {size} bytes, and no host left to ask")

    def _request(
        self, method: str, host: str, target: Target, kind: str, reference: str, headers: dict[str, str] | None = None
    ) -> AbstractAsyncContextManager[StreamedAnswer]:
        return self._http.stream(
            method,
            f"{host}/v2/{target.name}/{kind}/{reference}",
            params={"ns": target.registry},
            headers={"Accept": _ACCEPT, "User-Agent": "containerd/demo", REGION_HEADER: self._region} | (headers or {}),
        )

    async def _read(self, digest: Digest) -> bytes:
        with await self._store.open(digest) as content:
            return os.pread(content.fd, content.size, 0)
