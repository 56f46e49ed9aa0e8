"""A runtime that downloads as containerd does, from a mirror and then from an upstream; and the upstream."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import nullcontext
from dataclasses import dataclass, field

from speil.oci.digest import Digest
from speil.store.memory_ingests import MemoryIngest
from tests.shell.mirrors import Mirror

READ_BYTES = 64 << 10
EMPTY_MAX = 3  # answers without a byte in a row: containerd then fails the pull


class PullError(Exception):
    """A pull that containerd would fail."""


@dataclass(slots=True)
class Upstream:
    """A registry that counts. It sends `piece_bytes`, then waits `piece_seconds`.

    `opens`: no answer before it is set. `holds_at`: it stops after so many bytes of a body, until `goes_on` is set.
    `faulty_gets`: so many GETs of content are held, or slow (`crawls`: 1 KiB a tenth of a second); those after them are
    not. None: all are.
    """

    blobs: dict[Digest, bytes] = field(default_factory=dict)
    piece_bytes: int = 1 << 20
    piece_seconds: float = 0.0
    holds_at: int | None = None
    goes_on: asyncio.Event = field(default_factory=asyncio.Event)
    opens: asyncio.Event = field(default_factory=asyncio.Event)
    faulty_gets: int | None = None
    crawls: bool = False
    corrupt: bool = False
    gets: Counter[Digest] = field(default_factory=Counter)
    sent: Counter[Digest] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self.opens.set()

    def add(self, data: bytes) -> Digest:
        """Have content."""
        digest = Digest.of(data)
        self.blobs[digest] = data
        return digest

    async def read(self, digest: Digest, offset: int) -> AsyncIterator[bytes]:
        """The body of a GET from `offset` on."""
        data = self.blobs[digest]
        self.gets[digest] += 1
        is_faulty = self.faulty_gets is None or self.gets[digest] <= self.faulty_gets
        await self.opens.wait()
        while offset < len(data):
            size, seconds = self.piece_bytes, self.piece_seconds
            if self.holds_at is not None and is_faulty and not self.goes_on.is_set():
                if offset < self.holds_at:
                    size = min(size, self.holds_at - offset)
                elif self.crawls:
                    size, seconds = 1 << 10, 0.1
                else:
                    await self.goes_on.wait()
            piece = data[offset : offset + size]
            if self.corrupt:
                piece = bytes(len(piece))
            offset += len(piece)
            self.sent[digest] += len(piece)
            yield piece
            await asyncio.sleep(seconds)


class Runtime:
    """The containerd of a node."""

    def __init__(self, node: Mirror, upstream: Upstream) -> None:
        self.node, self.upstream = node, upstream
        self.statuses: list[int] = []  # of the mirror's answers
        self.freeze: asyncio.Event | None = None  # while it is set and not `is_set`, nothing is taken from a body
        self.headers = ""  # more of them, each with its line's end
        self.came = Counter[str]()  # bytes by where they came from
        self.slots: asyncio.Semaphore | None = None  # from 2.1 on each request waits in line for one

    async def pull(self, digest: Digest, kind: str = "blobs", image: str = "app") -> None:
        """Download content into the store. Raises PullError."""
        total = len(self.upstream.blobs[digest])
        ingest = await self.node.ingests.begin(digest, total)
        try:
            await self._download(digest, kind, image, total, ingest)
            if not digest.matches(ingest.data()):
                raise PullError("unexpected commit digest")
            await ingest.commit()
        finally:
            await ingest.abort()

    async def _download(self, digest: Digest, kind: str, image: str, total: int, ingest: MemoryIngest) -> None:
        empty = 0
        while ingest.record.size < total:
            before = ingest.record.size
            async with self.slots or nullcontext():
                if not await self._from_mirror(f"/v2/{image}/{kind}/{digest}?ns=reg.test", before, total, ingest):
                    break
            empty = 0 if ingest.record.size > before else empty + 1
            if empty >= EMPTY_MAX:
                raise PullError("short read")
        if ingest.record.size < total:
            async with self.slots or nullcontext():
                async for piece in self.upstream.read(digest, ingest.record.size):
                    await ingest.write(piece)
                    self.came["upstream"] += len(piece)

    async def _from_mirror(self, target: str, offset: int, total: int, ingest: MemoryIngest) -> bool:
        """Whether the mirror had it; the body may end early."""
        reader, writer = await asyncio.open_connection(self.node.host, self.node.port)
        try:
            ranged = f"Range: bytes={offset}-\r\n" if offset else ""
            more = f"User-Agent: containerd/2.4.2\r\n{ranged}{self.headers}"
            writer.write(f"GET {target} HTTP/1.1\r\nHost: x\r\n{more}\r\n".encode())
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            status = int(head.split(" ", 2)[1])
            self.statuses.append(status)
            if status not in (200, 206):
                return False
            assert (status == 206) == bool(offset), head
            assert f"content-length: {total - offset}\r\n" in head.lower(), head
            while ingest.record.size < total:
                if self.freeze is not None:
                    await self.freeze.wait()
                data = await reader.read(READ_BYTES)
                if not data:
                    break
                await ingest.write(data)
                self.came["mirror"] += len(data)
            return True
        finally:
            writer.close()
