"""An upstream registry with any number of images, one limit for all clients together, and faults for single clients."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from dataclasses import dataclass, field

from speil.oci import byte_range
from speil.oci.digest import Digest
from speil.oci.image_builder import BuiltImage
from tests.system.lab.doors import Asked, head, miss

PIECE_BYTES = 64 << 10
CRAWL_BYTES_PER_SECOND = 10_000
CRAWL_PIECE_BYTES = 2_000


@dataclass(slots=True)
class FaultyUpstream:
    """`answer` serves. Faults name the addresses of clients, and concern layers."""

    bytes_per_second: float
    first_byte_seconds: float = 0.0  # for each blob
    corrupt: set[Digest] = field(default_factory=set)  # the last byte is another one
    stalled: set[str] = field(default_factory=set)
    crawling: set[str] = field(default_factory=set)
    sent: Counter[tuple[str, Digest]] = field(default_factory=Counter)  # body bytes of blobs
    manifests: Counter[Digest] = field(default_factory=Counter)  # GETs
    ranges: list[tuple[str, Digest, int]] = field(default_factory=list)  # client, and first byte of a range
    _images: dict[str, BuiltImage] = field(default_factory=dict)
    _blobs: dict[Digest, tuple[bytes, str]] = field(default_factory=dict)
    _free_at: float = 0.0

    def add(self, name: str, image: BuiltImage) -> None:
        """Have an image under a name, with any tag; the image before it goes."""
        self._images = {name: image}
        self._blobs = {digest: (data, image.media_types[digest]) for digest, data in image.blobs.items()}
        self.calm()
        self.forget()

    def calm(self) -> None:
        """No faults any more."""
        self.first_byte_seconds = 0.0
        for one in (self.corrupt, self.stalled, self.crawling):
            one.clear()

    def forget(self) -> None:
        """Count from now on."""
        self.sent.clear()
        self.manifests.clear()
        self.ranges.clear()

    def sent_of(self, digest: Digest) -> dict[str, int]:
        """Bytes of a blob by client."""
        return {client: size for (client, one), size in self.sent.items() if one == digest}

    async def answer(self, asked: Asked, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """See doors.Answer."""
        if ":" in asked.reference:
            digest = Digest.parse(asked.reference)
        elif asked.kind == "manifests" and self._images:
            digest = next(iter(self._images.values())).index.digest
        else:
            return miss(writer)
        if digest not in self._blobs:
            return miss(writer)
        data, kind = self._blobs[digest]
        part = byte_range.parse(asked.range_header, len(data))
        start, stop = (part.start, part.stop) if part else (0, len(data))
        more = (f"Content-Range: {part.content_range}",) if part else ()
        status = "206 Partial Content" if part else "200 OK"
        is_blob = asked.kind == "blobs"
        if asked.method == "GET":
            if part:
                self.ranges.append((asked.client, digest, start))
            if is_blob:
                await asyncio.sleep(self.first_byte_seconds)
            else:
                self.manifests[digest] += 1
        writer.write(head(status, stop - start, f"Content-Type: {kind}", f"Docker-Content-Digest: {digest}", *more))
        if asked.method == "GET":
            await self._send(asked.client, digest, data, start, stop, writer, is_blob=is_blob)
        return True

    async def _send(
        self, client: str, digest: Digest, data: bytes, at: int, stop: int, writer: asyncio.StreamWriter, *,
        is_blob: bool,
    ) -> None:  # fmt: skip
        while at < stop:
            while is_blob and client in self.stalled:
                await asyncio.sleep(0.05)
            crawls = is_blob and client in self.crawling
            piece = data[at : min(at + (CRAWL_PIECE_BYTES if crawls else PIECE_BYTES), stop)]
            if digest in self.corrupt and at + len(piece) == len(data):
                piece = piece[:-1] + bytes([piece[-1] ^ 255])
            if crawls:
                await asyncio.sleep(len(piece) / CRAWL_BYTES_PER_SECOND)
            elif is_blob:
                await self._turn(len(piece))
            writer.write(piece)
            await writer.drain()
            at += len(piece)
            if is_blob:
                self.sent[client, digest] += len(piece)

    async def _turn(self, size: int) -> None:
        """Wait until the limit of all clients together allows so many bytes."""
        now = time.monotonic()
        self._free_at = max(self._free_at, now - 0.05) + size / self.bytes_per_second
        await asyncio.sleep(max(0.0, self._free_at - now))
