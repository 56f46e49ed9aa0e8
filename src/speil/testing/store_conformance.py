"""The tests that every ContentStore must pass. Derive a test class and implement `opened`."""

from __future__ import annotations

import asyncio
from contextlib import AbstractAsyncContextManager
from typing import Protocol

import pytest

from speil.oci.digest import Digest
from speil.oci.image_builder import BuiltImage
from speil.store.base import ContentStore, NotFoundError, StoreEvent, StoreEventKind
from speil.store.walk import contents, read_manifest
from speil.testing.eventually import eventually
from speil.testing.images import random_image

NAME = "reg.test/lab/app:1"
IMAGE = random_image(11)


class Filler(Protocol):
    """Changes the content of the store under test, as another program would."""

    async def add(self, image: BuiltImage, name: str) -> None:
        """Add an image with all its blobs."""

    async def remove_blob(self, digest: Digest) -> None:
        """Remove content."""

    async def remove_image(self, name: str) -> None:
        """Remove an image name."""


class StoreConformance:
    """The suite. A derived class implements `opened`."""

    def opened(self) -> AbstractAsyncContextManager[tuple[ContentStore, Filler]]:
        """A running, available store without content, and its filler."""
        raise NotImplementedError

    async def test_what_is_there_is_found_and_is_right(self) -> None:
        async with self.opened() as (store, filler):
            await filler.add(IMAGE, NAME)
            assert await store.resolve(NAME) == IMAGE.index.digest
            assert (NAME, IMAGE.index.digest) in [(image.name, image.target) for image in await store.images()]
            for digest, data in IMAGE.blobs.items():
                assert await store.size(digest) == len(data)
                with await store.open(digest) as content:
                    assert content.size == len(data)
                    assert digest.matches(content.peek(content.size))

    async def test_what_is_not_there_is_not_found(self) -> None:
        async with self.opened() as (store, _):
            with pytest.raises(NotFoundError):
                await store.resolve(NAME)
            with pytest.raises(NotFoundError):
                await store.size(IMAGE.index.digest)
            with pytest.raises(NotFoundError):
                await store.open(IMAGE.index.digest)
            assert await store.images() == []

    async def test_origins_are_repositories_that_it_was_pulled_from_or_nothing(self) -> None:
        async with self.opened() as (store, filler):
            with pytest.raises(NotFoundError):
                await store.origins(IMAGE.index.digest)
            await filler.add(IMAGE, NAME)
            for digest in IMAGE.blobs:
                assert set(await store.origins(digest)) <= {NAME.rpartition(":")[0]}

    async def test_open_content_can_be_read_after_it_was_removed(self) -> None:
        async with self.opened() as (store, filler):
            await filler.add(IMAGE, NAME)
            digest = next(iter(IMAGE.blobs))
            with await store.open(digest) as content:
                await filler.remove_blob(digest)
                assert digest.matches(content.peek(content.size))
            with pytest.raises(NotFoundError):
                await store.open(digest)

    async def test_two_readers_do_not_disturb_each_other(self) -> None:
        async with self.opened() as (store, filler):
            await filler.add(IMAGE, NAME)
            digest = max(IMAGE.blobs, key=lambda one: len(IMAGE.blobs[one]))
            with (
                await store.open(digest) as one,
                await store.open(digest) as other,
                open(one.fd, "rb", closefd=False) as first,
                open(other.fd, "rb", closefd=False) as second,
            ):
                assert first.read(10) == second.read(10) == IMAGE.blobs[digest][:10]

    async def test_the_walk_finds_what_is_there_and_no_more(self) -> None:
        async with self.opened() as (store, filler):
            await filler.add(IMAGE, NAME)
            assert set(await contents(store, IMAGE.index.digest)) == set(IMAGE.blobs)
            arm64 = IMAGE.manifests["arm64"].digest
            await filler.remove_blob(arm64)
            left = set(await contents(store, IMAGE.index.digest))
            assert arm64 not in left
            assert IMAGE.manifests["amd64"].digest in left
            loaded = await read_manifest(store, IMAGE.index.digest)
            assert loaded is not None
            assert loaded[0] == IMAGE.blobs[IMAGE.index.digest]

    async def test_news_comes_and_starts_with_a_resync(self) -> None:
        async with self.opened() as (store, filler), asyncio.TaskGroup() as group:
            seen: list[StoreEvent] = []

            async def listen() -> None:
                async for event in store.events():
                    seen.append(event)

            def has(kind: StoreEventKind, digest: Digest | None = None, image: str | None = None) -> bool:
                return StoreEvent(kind, digest, image) in seen

            listening = group.create_task(listen())
            await eventually(lambda: seen, what="the first news")
            assert seen[0].kind is StoreEventKind.RESYNC
            await filler.add(IMAGE, NAME)
            await eventually(lambda: has(StoreEventKind.IMAGE_ADDED, image=NAME), what="the image's news")
            await filler.remove_image(NAME)
            await eventually(lambda: has(StoreEventKind.IMAGE_REMOVED, image=NAME), what="the removal's news")
            digest = IMAGE.manifests["arm64"].digest
            await filler.remove_blob(digest)
            await eventually(lambda: has(StoreEventKind.CONTENT_REMOVED, digest), what="the content's removal")
            listening.cancel()
