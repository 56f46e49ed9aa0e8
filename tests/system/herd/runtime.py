"""A runtime that downloads as containerd does, without a containerd: for hundreds of nodes on one machine.

As in containerd: the order of requests, three layers at a time, the own speil before the upstream for each content, and
a Range request to the first host after a body that broke off. What it has received becomes visible in pieces.
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
from collections import defaultdict
from dataclasses import dataclass
from urllib.parse import urlsplit

from speil.oci import media_type
from speil.oci.digest import Digest
from speil.oci.manifest import Descriptor, parse
from speil.store.base import NotFoundError
from speil.store.ingest_writer import IngestWriter
from speil.store.oci_layout import OciLayoutStore
from tests.system.lab.namespaces import Namespace, inside

LAYERS_AT_ONCE = 3  # containerd's max_concurrent_downloads
TRIES_WITHOUT_BYTES_MAX = 3
_ACCEPT = ", ".join(sorted(media_type.MANIFESTS))


class PullFailedError(Exception):
    """The pull failed, as it would in containerd."""


@dataclass(slots=True)
class _Connection:
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter


@dataclass(slots=True)
class _Response:
    status: int
    headers: dict[str, str]
    connection: _Connection
    left: int


class SimulatedRuntime:
    """The pulls of one node. Requests leave from its namespace."""

    def __init__(self, namespace: Namespace, store: OciLayoutStore, hosts: tuple[str, ...], piece_bytes: int) -> None:
        self._namespace, self._store, self._hosts, self._piece_bytes = namespace, store, hosts, piece_bytes
        self._idle: dict[str, list[_Connection]] = defaultdict(list)

    async def pull(self, registry: str, image: str) -> None:
        """Pull `repository:tag` for linux/amd64. Raises PullFailedError."""
        name, _, tag = image.partition(":")
        query = f"?ns={registry}"
        try:
            index = await self._resolve(f"/v2/{name}/manifests/{tag}{query}")
            await self._fetch(f"/v2/{name}/manifests", query, index)
            chosen = self._platform(await self._read(index.digest))
            await self._fetch(f"/v2/{name}/manifests", query, chosen)
            manifest = parse(await self._read(chosen.digest))
            assert manifest is not None
            config, *layers = manifest.children
            await self._fetch(f"/v2/{name}/blobs", query, config)
            slots = asyncio.Semaphore(LAYERS_AT_ONCE)

            async def fetch_layer(layer: Descriptor) -> None:
                async with slots:
                    await self._fetch(f"/v2/{name}/blobs", query, layer)

            async with asyncio.TaskGroup() as group:
                for layer in layers:
                    group.create_task(fetch_layer(layer))
            await self._store.tag(f"{registry}/{image}", index)
        finally:
            for connection in (one for idle in self._idle.values() for one in idle):
                connection.writer.close()

    async def _resolve(self, target: str) -> Descriptor:
        for host in self._hosts:
            try:
                response = await self._ask("HEAD", host, target)
            except (OSError, asyncio.IncompleteReadError):
                continue
            self._finish(host, response)
            if response.status == 200:
                headers = response.headers
                return Descriptor(
                    headers["content-type"],
                    Digest.parse(headers["docker-content-digest"]),
                    int(headers["content-length"]),
                )
        raise PullFailedError(f"{target} not found")

    def _platform(self, index: bytes) -> Descriptor:
        for item in json.loads(index)["manifests"]:
            if item["platform"]["architecture"] == "amd64":
                return Descriptor(item["mediaType"], Digest.parse(item["digest"]), item["size"])
        raise PullFailedError("no manifest for amd64")

    async def _read(self, digest: Digest) -> bytes:
        with await self._store.open(digest) as content:
            return os.pread(content.fd, content.size, 0)

    async def _fetch(self, path: str, query: str, wanted: Descriptor) -> None:
        try:
            await self._store.size(wanted.digest)
            return
        except NotFoundError:
            pass
        target = f"{path}/{wanted.digest}{query}"
        writer = IngestWriter(self._store.root, wanted.digest, wanted.size)
        try:
            in_vain = 0
            while writer.size < wanted.size:
                before = writer.size
                await self._download(target, writer, wanted.size)
                in_vain = 0 if writer.size > before else in_vain + 1
                if in_vain == TRIES_WITHOUT_BYTES_MAX:
                    raise PullFailedError(f"{wanted.digest}: no progress at {before} of {wanted.size} bytes")
            writer.commit()
        finally:
            writer.abort()

    async def _download(self, target: str, writer: IngestWriter, size: int) -> None:
        """From the first host that has the content, as far as its body goes."""
        for host in self._hosts:
            try:
                response = await self._ask("GET", host, target, writer.size)
            except (OSError, asyncio.IncompleteReadError):
                continue
            if response.status != (206 if writer.size else 200):
                self._finish(host, response)
                continue
            if response.left != size - writer.size:
                response.connection.writer.close()
                raise PullFailedError(f"{target}: {response.left} bytes instead of {size - writer.size}")
            while response.left:
                try:
                    piece = await response.connection.reader.readexactly(min(response.left, self._piece_bytes))
                except asyncio.IncompleteReadError as error:
                    writer.write(error.partial)
                    response.connection.writer.close()
                    return
                writer.write(piece)
                response.left -= len(piece)
            self._finish(host, response)
            return
        raise PullFailedError(f"{target}: no host has it at {writer.size}")

    # --- HTTP -------------------------------------------------------------------------------------------

    async def _ask(self, method: str, host: str, target: str, offset: int = 0) -> _Response:
        parts = urlsplit(host)
        lines = [f"{method} {target} HTTP/1.1", f"Host: {parts.netloc}", f"Accept: {_ACCEPT}"]
        if offset:
            lines.append(f"Range: bytes={offset}-")
        request = "\r\n".join([*lines, "User-Agent: containerd/simulated", "", ""]).encode()
        if self._idle[host]:
            try:
                return await self._exchange(self._idle[host].pop(), method, request)
            except (OSError, asyncio.IncompleteReadError):
                pass  # the server had closed it: once more on a new one
        return await self._exchange(await self._connect(parts.hostname, parts.port), method, request)

    async def _exchange(self, connection: _Connection, method: str, request: bytes) -> _Response:
        connection.writer.write(request)
        first, *fields = (await connection.reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        headers = {name.lower(): value for name, _, value in (field.partition(": ") for field in fields if field)}
        left = 0 if method == "HEAD" else int(headers.get("content-length", 0))
        return _Response(int(first.split()[1]), headers, connection, left)

    async def _connect(self, host: str | None, port: int | None) -> _Connection:
        with inside(self._namespace):
            own = socket.socket()
        own.setblocking(False)
        await asyncio.get_running_loop().sock_connect(own, (host, port))
        return _Connection(*await asyncio.open_connection(sock=own, limit=max(self._piece_bytes, 64 << 10)))

    def _finish(self, host: str, response: _Response) -> None:
        """The connection is kept where its body was read."""
        if response.left or response.headers.get("connection") == "close":
            response.connection.writer.close()
        else:
            self._idle[host].append(response.connection)
