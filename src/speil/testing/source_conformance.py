"""What every Source must do. A test class derives from it and says where the content comes from."""

from __future__ import annotations

import asyncio
from contextlib import AbstractAsyncContextManager, suppress

import pytest

from speil.oci.byte_range import UnsatisfiableError
from speil.oci.digest import Digest
from speil.oci.endpoint import Content
from speil.sources.base import ContentRequest, Opened, Source
from speil.testing.images import random_image
from speil.testing.outlets import sink_and_client
from speil.wire.sink import ClientGoneError
from speil.wire.turns import Wire

IMAGE = random_image(13)
LAYER = max(IMAGE.blobs, key=lambda digest: len(IMAGE.blobs[digest]))
DATA = IMAGE.blobs[LAYER]
UNKNOWN = Digest.of(b"nobody has it")
SECONDS_MAX = 30.0  # for whatever is waited for


def blob(digest: Digest = LAYER, method: str = "GET", range_header: str = "") -> ContentRequest:
    """A request for a blob."""
    return ContentRequest(Content("blobs", "reg.test", "lab/app", digest), method, range_header)


def manifest(digest: Digest, method: str = "GET") -> ContentRequest:
    """A request for a manifest."""
    return ContentRequest(Content("manifests", "reg.test", "lab/app", digest), method)


async def sent(opened: Opened, wire: Wire) -> bytes:
    """The bytes that it sends."""
    async with sink_and_client(wire) as (sink, reader, _), asyncio.timeout(SECONDS_MAX), asyncio.TaskGroup() as group:
        reading = group.create_task(reader.readexactly(opened.length))
        await opened.send(sink)
        assert sink.sent == opened.length
        return await reading


class SourceConformance:
    """Derive, and implement `holding`."""

    def holding(self) -> AbstractAsyncContextManager[tuple[Source, Wire]]:
        """A source that holds IMAGE, and the wire that it sends through."""
        raise NotImplementedError

    async def test_all_of_a_blob(self) -> None:
        async with self.holding() as (source, wire):
            opened = await source.open(blob())
            assert opened is not None
            async with opened:
                assert (opened.digest, opened.size, opened.length, opened.part) == (LAYER, len(DATA), len(DATA), None)
                assert opened.media_type == "application/octet-stream"
                assert await sent(opened, wire) == DATA

    @pytest.mark.parametrize(
        ("header", "start", "stop"),
        [("bytes=0-9", 0, 10), ("bytes=100-", 100, len(DATA)), ("bytes=-7", len(DATA) - 7, len(DATA))],
    )
    async def test_a_part_of_a_blob(self, header: str, start: int, stop: int) -> None:
        async with self.holding() as (source, wire):
            opened = await source.open(blob(range_header=header))
            assert opened is not None
            async with opened:
                assert opened.part is not None
                assert (opened.part.start, opened.part.stop, opened.size) == (start, stop, len(DATA))
                assert await sent(opened, wire) == DATA[start:stop]

    @pytest.mark.parametrize("header", ["", "bytes=0-", "bytes=9-1", "lines=1-2", "nonsense"])
    async def test_ranges_that_mean_everything(self, header: str) -> None:
        async with self.holding() as (source, _):
            opened = await source.open(blob(range_header=header))
            assert opened is not None
            async with opened:
                assert (opened.part, opened.length) == (None, len(DATA))

    async def test_a_range_behind_the_end(self) -> None:
        async with self.holding() as (source, _):
            with pytest.raises(UnsatisfiableError) as caught:
                await source.open(blob(range_header=f"bytes={len(DATA)}-"))
            assert caught.value.size == len(DATA)

    async def test_every_manifest_has_its_type_and_its_bytes(self) -> None:
        async with self.holding() as (source, wire):
            for digest, kind in IMAGE.media_types.items():
                if "manifest" not in kind and "index" not in kind:
                    continue
                opened = await source.open(manifest(digest))
                assert opened is not None
                async with opened:
                    assert opened.media_type == kind
                    assert opened.manifest is not None
                    assert await sent(opened, wire) == IMAGE.blobs[digest]

    async def test_what_it_does_not_have(self) -> None:
        async with self.holding() as (source, _):
            for request in (blob(UNKNOWN), manifest(UNKNOWN), blob(UNKNOWN, "HEAD"), manifest(UNKNOWN, "HEAD")):
                assert await source.open(request) is None
                assert request.notes.miss

    async def test_a_head_tells_the_size_and_is_closed_without_its_body(self) -> None:
        async with self.holding() as (source, _):
            for request in (blob(method="HEAD"), manifest(IMAGE.index.digest, "HEAD"), blob()):
                opened = await source.open(request)
                assert opened is not None
                assert opened.size == len(IMAGE.blobs[opened.digest])
                await opened.close()
                await opened.close()

    async def test_a_client_that_is_gone_ends_the_body(self) -> None:
        async with self.holding() as (source, wire), sink_and_client(wire) as (sink, _, client):
            opened = await source.open(blob())
            assert opened is not None
            async with opened:
                client.transport.abort()
                with suppress(ConnectionError):
                    await client.wait_closed()
                async with asyncio.timeout(SECONDS_MAX):
                    with pytest.raises(ClientGoneError):
                        await opened.send(sink)
