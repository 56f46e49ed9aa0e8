"""What the store holds is what is announced."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from speil.observe.metrics import Metrics
from speil.oci.image_builder import BuiltImage
from speil.routing.announce import Announcer, AnnounceSettings
from speil.routing.memory import MemoryMesh, MemoryRouter
from speil.store.base import StoreEvent, StoreEventKind
from speil.store.memory import MemoryStore
from speil.testing.eventually import eventually
from speil.testing.images import random_image
from speil.testing.samples import sample
from tests.shell.mirrors import peer_at

IMAGE, OTHER = random_image(1), random_image(2)
NAME = "reg.test/lab/app:1"


@asynccontextmanager
async def announcing(
    store: MemoryStore, *, resolve_tags: bool = True, filters: tuple[str, ...] = (), metrics: Metrics | None = None
) -> AsyncIterator[Callable[[], set[str]]]:
    """A running announcer; what it has announced."""
    mesh = MemoryMesh()
    router = MemoryRouter(mesh, peer_at("10.0.0.1", 1))
    settings = AnnounceSettings(resolve_tags, tuple(map(re.compile, filters)))
    async with asyncio.TaskGroup() as group:
        task = group.create_task(Announcer(store, router, settings, metrics or Metrics()).run())
        yield lambda: {key for key, peers in mesh.records.items() if peers}
        task.cancel()


def fill(store: MemoryStore, image: BuiltImage, name: str) -> None:
    for data in image.blobs.values():
        store.put(data)
    store.tag(name, image.index.digest)


def keys(image: BuiltImage, *names: str) -> set[str]:
    return {*map(str, image.blobs), *names}


async def test_what_is_there_at_the_start_and_what_comes_later() -> None:
    store, metrics = MemoryStore(), Metrics()
    fill(store, IMAGE, NAME)
    async with announcing(store, metrics=metrics) as announced:
        await eventually(lambda: announced() == keys(IMAGE, NAME), what="all is announced")
        assert sample(metrics, "spegel_advertised_image_tags", registry="reg.test") == 1
        assert sample(metrics, "spegel_advertised_content_digests", registry="reg.test") == len(IMAGE.blobs)
        fill(store, OTHER, "reg.test/lab/other:2")
        wanted = keys(IMAGE, NAME) | keys(OTHER, "reg.test/lab/other:2")
        await eventually(lambda: announced() == wanted, what="news is announced")


async def test_each_layer_is_announced_as_it_is_committed() -> None:
    store = MemoryStore()
    async with announcing(store) as announced:
        await eventually(lambda: store.listening, what="it listens")
        layer = store.put(b"a layer without an image yet")
        await eventually(lambda: announced() == {str(layer)}, what="the layer")


async def test_what_is_removed_is_withdrawn() -> None:
    store = MemoryStore()
    fill(store, IMAGE, NAME)
    async with announcing(store) as announced:
        await eventually(lambda: announced() == keys(IMAGE, NAME), what="all is announced")
        store.untag(NAME)
        await eventually(lambda: NAME not in announced(), what="the tag is withdrawn")
        assert announced() == keys(IMAGE), "the content is still on disk"
        for digest in IMAGE.blobs:
            store.remove(digest)
        await eventually(lambda: announced() == set(), what="the content is withdrawn")


async def test_content_that_vanished_without_news_is_seen_at_the_next_look() -> None:
    store = MemoryStore()
    fill(store, IMAGE, NAME)
    async with announcing(store) as announced:
        await eventually(lambda: announced() == keys(IMAGE, NAME), what="all is announced")
        gone = IMAGE.manifests["arm64"].digest
        store.remove(gone, tell=False)
        store.tell(StoreEvent(StoreEventKind.RESYNC))
        await eventually(lambda: str(gone) not in announced(), what="it is withdrawn")


async def test_filters_tags_that_may_not_be_resolved_and_names_that_are_none() -> None:
    store = MemoryStore()
    fill(store, IMAGE, "reg.test/secret/app:1")
    fill(store, OTHER, NAME)
    store.tag(f"sha256:{'ab' * 32}", OTHER.index.digest)
    async with announcing(store, resolve_tags=False, filters=("secret/",)) as announced:
        await eventually(lambda: keys(OTHER) <= announced(), what="what may be announced")
        assert NAME not in announced()
        assert "reg.test/secret/app:1" not in announced()


async def test_a_store_that_comes_back_is_announced() -> None:
    store = MemoryStore()
    fill(store, IMAGE, NAME)
    store.available = False
    async with announcing(store) as announced:
        await eventually(lambda: store.listening, what="it listens")
        assert announced() == set()
        store.available = True
        store.tell(StoreEvent(StoreEventKind.RESYNC))
        await eventually(lambda: announced() == keys(IMAGE, NAME), what="all is announced")
