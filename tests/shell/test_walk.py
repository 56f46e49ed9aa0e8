"""The walk from an image to its content, with deep nesting and with very many entries."""

from __future__ import annotations

import json
import logging

import pytest

from speil.oci import media_type
from speil.oci.digest import Digest
from speil.store import walk
from speil.store.memory import MemoryStore


def index_of(store: MemoryStore, *children: Digest, algorithm: str = "sha256") -> Digest:
    entries = [{"mediaType": media_type.OCI_INDEX, "digest": str(child), "size": 1} for child in children]
    return store.put(
        json.dumps({"mediaType": media_type.OCI_INDEX, "manifests": entries}).encode(), algorithm=algorithm
    )


def manifest_of(store: MemoryStore, *layers: Digest) -> Digest:
    entries = [{"digest": str(layer)} for layer in layers]
    return store.put(json.dumps({"mediaType": media_type.OCI_MANIFEST, "config": None, "layers": entries}).encode())


def lines(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [str(record.fields["bound"]) for record in caplog.records if record.levelno == logging.WARNING]  # type: ignore[attr-defined]


@pytest.mark.parametrize("depth", [1, 2, 5, 10, walk.DEPTH_MAX - 1])
async def test_an_index_of_indexes_to_any_depth(depth: int, caplog: pytest.LogCaptureFixture) -> None:
    store = MemoryStore()
    layer = store.put(b"layer", algorithm="sha512")
    found = [layer, manifest_of(store, layer)]
    for level in range(depth):
        found.append(index_of(store, found[-1], algorithm="sha512" if level % 2 else "sha256"))
    assert set(await walk.contents(store, found[-1])) == set(found)
    assert not lines(caplog)
    store.close()


async def test_what_is_deeper_is_left_off_and_told(caplog: pytest.LogCaptureFixture) -> None:
    store = MemoryStore()
    found = [manifest_of(store)]
    for _ in range(walk.DEPTH_MAX + 3):
        found.append(index_of(store, found[-1]))
    assert set(await walk.contents(store, found[-1])) == set(found[-walk.DEPTH_MAX :])
    assert lines(caplog) == [f"depth {walk.DEPTH_MAX}"]
    store.close()


async def test_what_is_looked_at_is_bounded_whether_it_is_here_or_not(caplog: pytest.LogCaptureFixture) -> None:
    class Counting(MemoryStore):
        looks = 0

        async def size(self, digest: Digest) -> int:
            self.looks += 1
            return await super().size(digest)

    store = Counting()
    absent = [Digest.of(str(number).encode()) for number in range(6_000)]
    half = [manifest_of(store, *absent[:3_000]), manifest_of(store, *absent[3_000:])]
    more = manifest_of(store, *(Digest.of(f"{number}-".encode()) for number in range(6_000)))
    root = index_of(store, *half, more)
    assert set(await walk.contents(store, root)) == {root, *half, more}
    assert store.looks <= walk.CONTENTS_MAX
    assert lines(caplog) == [f"{walk.CONTENTS_MAX} contents"]
    store.close()


async def test_content_that_is_named_a_thousand_times_is_looked_at_once() -> None:
    store = MemoryStore()
    layer = store.put(b"layer")
    manifests = [manifest_of(store, *[layer] * number) for number in range(1, 50)]
    root = index_of(store, *manifests * 20)
    assert len(await walk.contents(store, root)) == len(manifests) + 2
    store.close()


async def test_the_bytes_of_manifests_are_bounded(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(walk, "MANIFEST_BYTES_TOTAL_MAX", 10_000)
    store = MemoryStore()
    manifests = [manifest_of(store, *[Digest.of(bytes([number, other])) for other in range(30)]) for number in range(9)]
    root = index_of(store, *manifests)
    assert set(await walk.contents(store, root)) == {root, *manifests}, "what is here is here"
    assert lines(caplog) == ["10000 bytes of manifests"]
    store.close()


@pytest.mark.parametrize("data", [b"", b" " * 70 + b'{"manifests":[]}', b"[]", b"{", b"\x1f\x8b"])
async def test_small_content_of_any_kind(data: bytes) -> None:
    store = MemoryStore()
    digest = store.put(data)
    loaded = await walk.read_manifest(store, digest)
    assert (loaded is not None) == (b"manifests" in data)
    assert await walk.contents(store, digest) == [digest]
    store.close()
