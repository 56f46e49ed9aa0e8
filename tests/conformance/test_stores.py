"""The conformance suite on the in-memory store and on the OCI layout. containerd is tested in tests/system."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from speil.oci.digest import Digest
from speil.oci.image_builder import BuiltImage
from speil.store.base import ContentStore, StoreUnavailableError
from speil.store.ingest_writer import VerificationError
from speil.store.memory import MemoryStore
from speil.store.oci_layout import OciLayoutStore
from speil.testing.images import random_image
from speil.testing.store_conformance import Filler, StoreConformance
from tests.shell.nodes import write_layout

IMAGE = random_image(12)
NAME = "reg.test/lab/other:1"


class MemoryFiller:
    """Fills a MemoryStore."""

    def __init__(self, store: MemoryStore) -> None:
        self._store = store

    async def add(self, image: BuiltImage, name: str) -> None:
        for data in image.blobs.values():
            self._store.put(data, name.rpartition(":")[0])
        self._store.tag(name, image.index.digest)

    async def remove_blob(self, digest: Digest) -> None:
        self._store.remove(digest)

    async def remove_image(self, name: str) -> None:
        self._store.untag(name)


class LayoutFiller:
    """Fills a layout as another program would."""

    def __init__(self, root: Path) -> None:
        self._root = root

    async def add(self, image: BuiltImage, name: str) -> None:
        await write_layout(self._root, image, name)

    async def remove_blob(self, digest: Digest) -> None:
        (self._root / "blobs" / digest.algorithm / digest.hex).unlink()

    async def remove_image(self, name: str) -> None:
        index = json.loads((self._root / "index.json").read_bytes())
        index["manifests"] = [entry for entry in index["manifests"] if name not in entry["annotations"].values()]
        (self._root / "index.json.new").write_text(json.dumps(index))
        (self._root / "index.json.new").rename(self._root / "index.json")


class TestMemoryStore(StoreConformance):
    """The in-memory store."""

    @asynccontextmanager
    async def opened(self) -> AsyncIterator[tuple[ContentStore, Filler]]:
        store = MemoryStore()
        yield store, MemoryFiller(store)
        store.close()


async def test_the_twin_forgets_where_content_came_from_with_the_content() -> None:
    store = MemoryStore()
    digest = store.put(b"data", "reg.test/lab/app")
    store.put(b"data", "docker.io/library/app")
    assert await store.origins(digest) == ("reg.test/lab/app", "docker.io/library/app")
    store.remove(digest)
    store.put(b"data")
    assert await store.origins(digest) == ()
    store.close()


class TestOciLayout(StoreConformance):
    """The OCI layout, written by another program."""

    @pytest.fixture(autouse=True)
    def _directory(self, tmp_path: Path) -> None:
        self.root = tmp_path / "layout"
        self.root.mkdir()
        (self.root / "oci-layout").write_text('{"imageLayoutVersion":"1.0.0"}')
        (self.root / "index.json").write_text('{"schemaVersion":2,"manifests":[]}')

    @asynccontextmanager
    async def opened(self) -> AsyncIterator[tuple[ContentStore, Filler]]:
        yield OciLayoutStore(self.root), LayoutFiller(self.root)

    async def test_wrong_bytes_are_not_stored_and_leave_nothing(self) -> None:
        store = OciLayoutStore(self.root)
        digest, data = next(iter(IMAGE.blobs.items()))

        async def chunks(data: bytes) -> AsyncIterator[bytes]:
            yield data

        for wrong in (data[:-1], data + b"x", data[:-1] + bytes([data[-1] ^ 1])):
            with pytest.raises(VerificationError):
                await store.ingest(digest, len(data), chunks(wrong))
        assert list((self.root / "ingest").iterdir()) == []

    @pytest.mark.parametrize("text", ["", "nonsense", "[]", '{"manifests": 3}', '{"manifests": [{"digest": "x"}]}'])
    async def test_a_damaged_index_is_an_error_that_names_the_file(self, text: str) -> None:
        (self.root / "index.json").write_text(text)
        if text.startswith('{"manifests": ['):
            assert await OciLayoutStore(self.root).images() == [], "an entry without a name is no image"
            return
        with pytest.raises(StoreUnavailableError, match=r"index\.json"):
            await OciLayoutStore(self.root).images()

    async def test_a_missing_layout_is_unavailable(self) -> None:
        store = OciLayoutStore(self.root / "nowhere")
        assert not store.available
        with pytest.raises(StoreUnavailableError):
            await store.images()
