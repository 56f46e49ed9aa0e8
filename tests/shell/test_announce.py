"""What the store holds is what is announced."""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest

from speil.observe.metrics import Metrics
from speil.oci.digest import Digest
from speil.oci.image_builder import BuiltImage
from speil.routing.announce import Announcer, AnnounceSettings
from speil.routing.memory import MemoryMesh, MemoryRouter
from speil.store.base import OpenContent, StoreEvent, StoreEventKind
from speil.store.memory import MemoryStore
from speil.testing.eventually import eventually
from speil.testing.images import random_image
from speil.testing.samples import sample
from tests.shell.mirrors import peer_at
from tests.shell.test_mirror_tags import layer_of, parts

IMAGE, OTHER = random_image(1), random_image(2)
NAME = "reg.test/lab/app:1"


@asynccontextmanager
async def announcing(
    store: MemoryStore,
    *,
    resolve_tags: bool = True,
    filters: tuple[str, ...] = (),
    mirrors: Callable[[str], bool] | None = None,
    metrics: Metrics | None = None,
) -> AsyncIterator[Callable[[], set[str]]]:
    """A running announcer; what it has announced."""
    mesh = MemoryMesh()
    router = MemoryRouter(mesh, peer_at("10.0.0.1", 1))
    settings = AnnounceSettings(resolve_tags, tuple(map(re.compile, filters)), mirrors)
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
        # the gauges follow the news, not only the next scan of the store
        await eventually(lambda: sample(metrics, "spegel_advertised_image_tags", registry="reg.test") == 2)
        assert sample(metrics, "spegel_advertised_image_digests", registry="reg.test") == 2
        content = len({*IMAGE.blobs, *OTHER.blobs})
        assert sample(metrics, "spegel_advertised_content_digests", registry="reg.test") == content


class FailingDisk(MemoryStore):
    """A store in which some content can be opened and not read."""

    def __init__(self, *rotten: Digest) -> None:
        super().__init__()
        self.rotten = rotten

    async def open(self, digest: Digest) -> OpenContent:
        content = await super().open(digest)
        if digest in self.rotten:
            size = content.size
            content.close()
            return OpenContent(digest, os.open(os.devnull, os.O_WRONLY), size)
        return content


@pytest.mark.parametrize("rotten", ["index", "manifest", "config"])
async def test_content_that_can_not_be_read_costs_its_image_alone(rotten: str) -> None:
    index, manifest, config, *_ = parts(IMAGE, "amd64")
    store = FailingDisk({"index": index, "manifest": manifest, "config": config}[rotten])
    fill(store, IMAGE, NAME)
    fill(store, OTHER, "reg.test/lab/other:2")
    async with announcing(store) as announced:
        wanted = keys(OTHER, "reg.test/lab/other:2")
        await eventually(lambda: wanted <= announced(), what="the other image is announced")
        store.tell(StoreEvent(StoreEventKind.IMAGE_ADDED, image=NAME))
        last = store.put(b"news goes on")
        await eventually(lambda: str(last) in announced(), what="what comes later is announced")
        assert wanted <= announced()
        assert (NAME in announced()) == (rotten != "index")


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


# --- tags ---------------------------------------------------------------------------------------------------


async def test_a_tag_is_announced_where_its_image_is_whole_for_a_platform() -> None:
    store, metrics = MemoryStore(), Metrics()
    missing = layer_of(IMAGE, "amd64")
    for digest in parts(IMAGE, "amd64"):
        store.put(IMAGE.blobs[digest])
    store.remove(missing, tell=False)
    store.tag(NAME, IMAGE.index.digest)
    async with announcing(store, metrics=metrics) as announced:
        here = {str(digest) for digest in parts(IMAGE, "amd64") if digest != missing}
        await eventually(lambda: announced() == here, what="the content alone")
        assert sample(metrics, "speil_withheld_tags") == 1
        store.put(IMAGE.blobs[missing])
        await eventually(lambda: announced() == {*here, str(missing), NAME}, what="the tag, once it is whole")
        assert sample(metrics, "speil_withheld_tags") == 0
        store.remove(missing)
        await eventually(lambda: NAME not in announced(), what="the tag is withdrawn")


async def test_a_tag_that_comes_before_its_content_is_announced_behind_it() -> None:
    store = MemoryStore()
    async with announcing(store) as announced:
        await eventually(lambda: store.listening, what="it listens")
        store.tag(NAME, IMAGE.index.digest)
        for digest in parts(IMAGE, "arm64"):
            store.put(IMAGE.blobs[digest])
        await eventually(lambda: NAME in announced(), what="the tag")


async def test_a_name_with_tag_and_digest_stands_for_no_tag() -> None:
    store = MemoryStore()
    fill(store, IMAGE, f"{NAME}@{IMAGE.index.digest}")
    async with announcing(store) as announced:
        await eventually(lambda: announced() == keys(IMAGE), what="the content")
        fill(store, OTHER, f"reg.test/lab/app:2@{OTHER.index.digest}")
        await eventually(lambda: announced() == keys(IMAGE) | keys(OTHER), what="the content, as news")


# --- what may be shared -------------------------------------------------------------------------------------

PRIVATE = "private.test/secret/app"


@pytest.mark.parametrize(
    ("filters", "mirrors"),
    [(("^private[.]test/",), None), (("secret/app$",), None), ((), lambda registry: registry == "reg.test")],
)
async def test_content_events_of_what_is_kept_back_are_not_announced(
    filters: tuple[str, ...], mirrors: Callable[[str], bool] | None
) -> None:
    store = MemoryStore()
    async with announcing(store, filters=filters, mirrors=mirrors) as announced:
        await eventually(lambda: store.listening, what="it listens")
        for data in IMAGE.blobs.values():
            store.put(data, PRIVATE)
        store.tag(f"{PRIVATE}:1", IMAGE.index.digest)
        allowed = store.put(b"a layer of another repository", "reg.test/lab/app")
        await eventually(lambda: announced() == {str(allowed)}, what="what may be shared")
        store.tell(StoreEvent(StoreEventKind.RESYNC))
        later = store.put(b"another", "reg.test/lab/app")
        await eventually(lambda: announced() == {str(allowed), str(later)}, what="and no more")


async def test_an_origin_that_is_written_down_after_the_event_is_waited_for() -> None:
    store = MemoryStore()
    async with announcing(store, filters=("secret/",)) as announced:
        await eventually(lambda: store.listening, what="it listens")
        open_one, secret = store.put(b"open"), store.put(b"secret")
        await asyncio.sleep(0)
        store.record(open_one, "reg.test/lab/app")
        store.record(secret, PRIVATE)
        await eventually(lambda: announced() == {str(open_one)}, what="what may be shared")


async def test_a_layer_that_an_allowed_image_shares_is_announced() -> None:
    store = MemoryStore()
    shared = parts(IMAGE, "amd64")[3]
    async with announcing(store, filters=("secret/",)) as announced:
        await eventually(lambda: store.listening, what="it listens")
        for data in IMAGE.blobs.values():
            store.put(data, PRIVATE)
        store.tag(f"{PRIVATE}:1", IMAGE.index.digest)
        store.record(shared, "reg.test/lab/app")
        store.tell(StoreEvent(StoreEventKind.CONTENT_ADDED, digest=shared))
        await eventually(lambda: announced() == {str(shared)}, what="the shared layer")
        store.tag(NAME, IMAGE.index.digest)
        await eventually(lambda: announced() == keys(IMAGE, NAME), what="all, once an allowed image names it")
        store.untag(NAME)
        await eventually(lambda: announced() == {str(shared)}, what="what was shared through it is withdrawn")


async def test_what_was_imported_belongs_to_the_images_that_name_it() -> None:
    store = MemoryStore()
    async with announcing(store, filters=("secret/",)) as announced:
        await eventually(lambda: store.listening, what="it listens")
        fill(store, IMAGE, f"{PRIVATE}:1")
        fill(store, OTHER, NAME)
        await eventually(lambda: announced() == keys(OTHER, NAME), what="the open image alone")


async def test_a_filter_of_a_tag_keeps_that_tag_back_and_shares_the_content() -> None:
    store = MemoryStore()
    fill(store, IMAGE, "reg.test/lab/app:latest")
    async with announcing(store, filters=(":latest$",)) as announced:
        await eventually(lambda: announced() == keys(IMAGE), what="the content, as Spegel shares it")


# --- storms -------------------------------------------------------------------------------------------------


async def test_a_layer_is_announced_at_once_while_the_kubelet_removes_images() -> None:
    store, metrics = MemoryStore(), Metrics()
    names = [f"reg.test/lab/app:{number}" for number in range(200)]
    fill(store, IMAGE, names[0])
    for name in names[1:]:
        store.tag(name, IMAGE.index.digest)
    async with announcing(store, metrics=metrics) as announced:
        await eventually(lambda: announced() == keys(IMAGE, *names), what="all is announced")
        looks = sample(metrics, "speil_store_looks_total")
        for name in names:
            store.untag(name)
        layer = store.put(b"a new layer")
        await eventually(lambda: str(layer) in announced(), what="the layer")
        assert sample(metrics, "speil_store_looks_total") == looks, "it did not wait for a look"
        await eventually(lambda: announced() == keys(IMAGE) | {str(layer)}, what="the tags are withdrawn")
        await eventually(lambda: sample(metrics, "speil_store_looks_total") == looks + 1, what="one look")
