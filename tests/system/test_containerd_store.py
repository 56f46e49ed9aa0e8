"""The containerd store against real containerds: the port's conformance where it applies, and events."""

from __future__ import annotations

import asyncio

import pytest

from speil.observe.metrics import Metrics
from speil.oci.digest import Digest
from speil.store.base import NotFoundError, StoreEventKind
from speil.store.containerd.inspect import inspect
from speil.store.containerd.store import ContainerdStore
from speil.store.series import StoreSeries
from speil.store.walk import contents
from speil.testing.eventually import eventually
from speil.testing.images import random_image
from tests.system.conftest import Lab
from tests.system.lab.node import REGISTRY
from tests.system.test_pulls import LAYERS, wanted

pytestmark = pytest.mark.system


async def test_images_content_and_events_of_a_real_containerd(lab: Lab) -> None:
    node = lab.nodes[0].containerd
    store = ContainerdStore(str(node.socket), "k8s.io", "", Metrics().of(StoreSeries))
    image = random_image(30, LAYERS)
    lab.registry.push(image, "lab/store", "1")
    seen: list[tuple[StoreEventKind, str]] = []

    async def listen() -> None:
        async for event in store.events():
            seen.append((event.kind, str(event.digest or event.image or "")))

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(store.run()), group.create_task(listen())]
        await eventually(lambda: store.available, what="the store found containerd")
        with pytest.raises(NotFoundError):
            await store.resolve(f"{REGISTRY}/lab/store:1")
        await lab.nodes[0].pull("lab/store:1")
        name = f"{REGISTRY}/lab/store:1"
        await eventually(lambda: (StoreEventKind.IMAGE_ADDED, name) in seen, what="the image's event")
        assert seen[0][0] is StoreEventKind.RESYNC
        assert await store.resolve(name) == image.index.digest
        assert {str(digest) for digest in await contents(store, image.index.digest)} == wanted(image)
        for digest in wanted(image):
            with await store.open(Digest.parse(digest)) as content:
                assert content.peek(content.size) == image.blobs[Digest.parse(digest)]
        if node.version.major >= 2:
            layers = {digest for kind, digest in seen if kind is StoreEventKind.CONTENT_ADDED}
            assert wanted(image) <= layers, "2.x tells of each blob as it commits"
        for digest in wanted(image):
            assert await store.origins(Digest.parse(digest)) == (f"{REGISTRY}/lab/store",)
        with pytest.raises(NotFoundError):
            await store.origins(Digest.of(b"nothing"))
        await node.remove(name)
        await eventually(lambda: (StoreEventKind.IMAGE_REMOVED, name) in seen, what="the removal's event")
        for task in tasks:
            task.cancel()


async def test_what_containerd_tells_of_its_configuration(lab: Lab) -> None:
    node = lab.nodes[0].containerd
    client = node.client()
    try:
        facts = await inspect(client, str(node.config_file))
    finally:
        client.close()
    assert facts.major == node.version.major
    assert facts.registry_config_path == str(node.certs)
    assert facts.discard_unpacked_layers is False
