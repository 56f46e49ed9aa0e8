"""Manifests as real tools write them, and what strangers make of them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import pytest

from speil.fetch.settings import FetchSettings
from speil.oci import media_type
from speil.oci.digest import Digest
from speil.oci.manifest import MANIFEST_BYTES_MAX
from speil.routing.memory import MemoryMesh
from speil.testing.images import random_image
from tests.shell.mirrors import Mirror, mirror
from tests.shell.test_mirror_answers import CONTAINERD, DATA, IMAGE, LAYER, NAME, ask
from tests.shell.test_mirror_faults import AS_IT_COMES, PATH, scripted_peer
from tests.shell.test_mirror_trust import GARBAGE, region, sends

CONFIG = {"mediaType": "application/vnd.oci.image.config.v1+json", "digest": str(Digest.of(b"{}")), "size": 2}
LAYERS = [{"mediaType": "application/vnd.oci.image.layer.v1.tar+gzip", "digest": str(LAYER), "size": len(DATA)}]
PLAIN = {"schemaVersion": 2, "mediaType": media_type.OCI_MANIFEST, "config": CONFIG, "layers": LAYERS}
SHAPES: dict[str, tuple[dict[str, object], str]] = {
    "plain": (PLAIN, media_type.OCI_MANIFEST),
    "no media type": ({k: v for k, v in PLAIN.items() if k != "mediaType"}, media_type.OCI_MANIFEST),
    "no schema version": ({k: v for k, v in PLAIN.items() if k != "schemaVersion"}, media_type.OCI_MANIFEST),
    "layers empty": (PLAIN | {"layers": []}, media_type.OCI_MANIFEST),
    "layers null": (PLAIN | {"layers": None}, media_type.OCI_MANIFEST),
    "layers absent": ({k: v for k, v in PLAIN.items() if k != "layers"}, media_type.OCI_MANIFEST),
    "nothing but a config": ({"config": CONFIG}, media_type.OCI_MANIFEST),
    "nothing but layers": ({"layers": LAYERS}, media_type.OCI_MANIFEST),
    "no size": (PLAIN | {"layers": [{"digest": str(LAYER)}]}, media_type.OCI_MANIFEST),
    "docker": (PLAIN | {"mediaType": media_type.DOCKER_MANIFEST}, media_type.DOCKER_MANIFEST),
    "index": ({"schemaVersion": 2, "mediaType": media_type.OCI_INDEX, "manifests": []}, media_type.OCI_INDEX),
    "index null": ({"schemaVersion": 2, "mediaType": media_type.OCI_INDEX, "manifests": None}, media_type.OCI_INDEX),
    "index absent": ({"mediaType": media_type.OCI_INDEX}, media_type.OCI_INDEX),
    "index by shape": ({"manifests": None}, media_type.OCI_INDEX),
    "docker list": ({"mediaType": media_type.DOCKER_LIST, "manifests": []}, media_type.DOCKER_LIST),
    "artifact": (
        {"mediaType": media_type.OCI_ARTIFACT, "artifactType": "a/b", "blobs": LAYERS},
        media_type.OCI_ARTIFACT,
    ),
    "artifact by shape": ({"artifactType": "a/b", "blobs": None}, media_type.OCI_ARTIFACT),
    "oras artifact": ({"mediaType": media_type.ORAS_ARTIFACT, "blobs": []}, media_type.ORAS_ARTIFACT),
    "schema 1": ({"schemaVersion": 1, "name": "a", "fsLayers": [], "history": []}, media_type.DOCKER_SCHEMA1),
    "schema 1, signed": (
        {"schemaVersion": 1, "fsLayers": [{"blobSum": str(LAYER)}], "signatures": [{}]},
        media_type.DOCKER_SCHEMA1_SIGNED,
    ),
    "a type that nobody knows": ({"mediaType": "application/vnd.new+json"}, "application/vnd.new+json"),
}


def odd(name: str) -> tuple[bytes, str]:
    document, kind = SHAPES[name]
    return json.dumps(document, indent=3).encode() + b"\n", kind


@asynccontextmanager
async def holder_and_asker(fetch: FetchSettings = FetchSettings()) -> AsyncIterator[tuple[Mirror, Mirror]]:  # noqa: B008
    mesh = MemoryMesh()
    async with AsyncExitStack() as stack:
        holder = await stack.enter_async_context(mirror(mesh))
        yield holder, await stack.enter_async_context(mirror(mesh, fetch=fetch))


@pytest.mark.parametrize("algorithm", ["sha256", "sha512"])
@pytest.mark.parametrize("name", SHAPES)
async def test_what_containerd_took_in_is_served_with_its_digest_and_type(name: str, algorithm: str) -> None:
    """By digest always; by tag where it is an image: an index that names none has nothing that a node could run."""
    data, kind = odd(name)
    async with holder_and_asker() as (holder, asker):
        digest = holder.store.put(data, algorithm=algorithm)
        for content in (b"{}", DATA):
            await holder.router.provide([str(holder.store.put(content))])
        holder.store.tag("reg.test/lab/odd:1", digest)
        await holder.router.provide([str(digest), "reg.test/lab/odd:1"])
        for one in (holder, asker):
            for method in ("GET", "HEAD"):
                for reference in (str(digest), "1"):
                    path = f"/v2/lab/odd/manifests/{reference}?ns=reg.test"
                    status, headers, body = await ask(one, path, method, **CONTAINERD)
                    if reference == "1" and kind in media_type.INDEXES:
                        assert (status, body) == (404, b"")
                        continue
                    assert (status, headers.get("Docker-Content-Digest")) == (200, str(digest))
                    assert (headers["Content-Type"], headers["Content-Length"]) == (kind, str(len(data)))
                    assert body == (data if method == "GET" else b"")
            status, headers, body = await ask(one, f"/v2/lab/odd/blobs/{digest}?ns=reg.test", **CONTAINERD)
            assert (status, body, headers["Content-Type"]) == (200, data, media_type.OCTET_STREAM)


@pytest.mark.parametrize(
    ("name", "asked", "served"),
    [
        ("no media type", media_type.DOCKER_MANIFEST, media_type.DOCKER_MANIFEST),
        ("no media type", media_type.DOCKER_LIST, media_type.OCI_MANIFEST),
        ("index by shape", media_type.DOCKER_LIST, media_type.DOCKER_LIST),
        ("plain", media_type.DOCKER_MANIFEST, media_type.OCI_MANIFEST),
    ],
)
async def test_where_the_shape_leaves_a_choice_it_is_the_type_that_was_asked_for(
    name: str, asked: str, served: str
) -> None:
    async with holder_and_asker() as (holder, _):
        digest = holder.store.put(odd(name)[0])
        _, headers, _ = await ask(holder, f"/v2/a/manifests/{digest}", Accept=f"{asked}, */*")
        assert headers["Content-Type"] == served


UNREADABLE = {
    "deep": b'{"a":' + b"[" * 5000 + b"]" * 5000 + b"}",
    "wide": b'{"schemaVersion":2,"layers":[' + b"{}," * 200_000 + b"{}]}",
    "no JSON": b'{"schemaVersion": 2, ',
    "not an object": b"[]",
}


@pytest.mark.parametrize("name", [*SHAPES, *UNREADABLE])
async def test_right_bytes_that_are_odd_are_passed_on_and_nobody_is_banned_for_them(name: str) -> None:
    """A Spegel serves whatever its containerd holds."""
    data = odd(name)[0] if name in SHAPES else UNREADABLE[name]
    digest = str(Digest.of(data))
    honest = sends(data, digest=digest, kind=f"{media_type.OCI_MANIFEST}; charset=utf-8")
    mesh = MemoryMesh()
    async with mirror(mesh) as asker, scripted_peer(mesh, honest, digest):
        status, headers, body = await ask(asker, f"/v2/lab/odd/manifests/{digest}?ns=reg.test", **CONTAINERD)
        assert (status, body, headers["Docker-Content-Digest"]) == (200, data, digest)
        kinds = {kind for _, kind in SHAPES.values()}
        assert headers["Content-Type"] in (kinds if name in SHAPES else {media_type.OCI_MANIFEST})
        assert asker.sample("speil_peer_bans_total") == 0


async def test_right_bytes_that_are_no_manifest_cost_their_sender_nothing() -> None:
    digest = str(Digest.of(GARBAGE))
    mesh = MemoryMesh()
    async with mirror(mesh) as asker, scripted_peer(mesh, sends(GARBAGE, digest=digest), digest) as asked:
        for _ in range(3):
            assert (await ask(asker, f"/v2/a/manifests/{digest}", **CONTAINERD))[0] == 404
        assert (await ask(asker, f"/v2/a/blobs/{digest}", **CONTAINERD))[::2] == (200, GARBAGE)
        assert len(asked) == 4, "it is asked each time"
        assert asker.sample("speil_peer_bans_total") == 0


async def test_with_a_tag_the_upstream_is_asked_where_one_names_what_is_no_manifest() -> None:
    async with region(sends(GARBAGE, digest=str(Digest.of(GARBAGE))), NAME) as lab:
        assert (await ask(lab.asker, "/v2/lab/app/manifests/1?ns=reg.test", **CONTAINERD))[::2] == (404, b"")
        assert lab.asked
        assert lab.asker.sample("speil_tag_answers_total", outcome="disagreement") == 1
        assert lab.asker.sample("speil_peer_bans_total") == 0


# --- sizes ----------------------------------------------------------------------------------------------------


def claiming(size: int, seed: str = "") -> bytes:
    """A manifest that says that the layer has so many bytes."""
    layers = [{**LAYERS[0], "size": size}]
    return json.dumps(PLAIN | {"layers": layers, "annotations": {"seed": seed}}).encode()


@pytest.mark.parametrize("size", [1, len(DATA) - 1, len(DATA) + 1, 1 << 40])
async def test_a_manifest_with_wrong_sizes_costs_no_holder_anything(size: int) -> None:
    async with holder_and_asker() as (holder, asker):
        await holder.hold(IMAGE, NAME)
        false = holder.store.put(claiming(size))
        await holder.router.provide([str(false)])
        assert (await ask(asker, f"/v2/lab/app/manifests/{false}", **CONTAINERD))[0] == 200
        for _ in range(3):
            assert (await ask(asker, PATH, **CONTAINERD))[::2] == (200, DATA), "its digest says that it is right"
        assert (await ask(asker, PATH, "HEAD"))[1]["Content-Length"] == str(len(DATA)), "the false size is forgotten"
        assert asker.sample("speil_peer_bans_total") == 0
        for digest, data in IMAGE.blobs.items():
            path = f"/v2/lab/app/{IMAGE.kind(digest)}/{digest}"
            assert (await ask(asker, path, **CONTAINERD))[::2] == (200, data)
        assert asker.sample("speil_peer_requests_total", outcome="bad_answer") == 0


async def test_what_is_too_large_to_verify_is_not_taken_with_a_false_size_until_a_manifest_tells_the_right_one() -> (
    None
):
    async with holder_and_asker(AS_IT_COMES) as (holder, asker):
        await holder.hold(IMAGE, NAME)
        false, right = (holder.store.put(claiming(size)) for size in (len(DATA) + 1, len(DATA)))
        await holder.router.provide([str(false), str(right)])
        assert (await ask(asker, f"/v2/lab/app/manifests/{false}", **CONTAINERD))[0] == 200
        for _ in range(5):
            assert (await ask(asker, PATH, **CONTAINERD))[::2] == (404, b"")
        for digest, data in IMAGE.blobs.items():
            if digest != LAYER and IMAGE.kind(digest) == "blobs":
                path = f"/v2/lab/app/blobs/{digest}"
                assert (await ask(asker, path, **CONTAINERD))[::2] == (200, data), "its holder is asked for all else"
        for manifest in (right, false):
            assert (await ask(asker, f"/v2/lab/app/manifests/{manifest}", **CONTAINERD))[0] == 200
            assert (await ask(asker, PATH))[::2] == (200, DATA)


async def test_two_holders_that_agree_outvote_a_manifest() -> None:
    mesh = MemoryMesh()
    async with mirror(mesh) as one, mirror(mesh) as two, mirror(mesh, fetch=AS_IT_COMES) as asker:
        await one.hold(IMAGE, NAME)
        await two.hold(IMAGE, NAME)
        false = one.store.put(claiming(len(DATA) + 1))
        await one.router.provide([str(false)])
        assert (await ask(asker, f"/v2/lab/app/manifests/{false}", **CONTAINERD))[0] == 200
        answers = [(await ask(asker, PATH, **CONTAINERD))[0] for _ in range(2)]
        assert answers == [404, 200]


# --- what a manifest may cost ---------------------------------------------------------------------------------


def filled(start: bytes, piece: bytes, end: bytes) -> bytes:
    count = (MANIFEST_BYTES_MAX - len(start) - len(end)) // len(piece)
    return start + piece * count + end


COSTLY = {
    "empty layers": filled(b'{"schemaVersion":2,"layers":[', b"{},", b"{}]}"),
    "nested": filled(b'{"layers":', b"[", b"}"),
    "nested objects": filled(b'{"layers":', b'{"":', b"}"),
    "a huge number": filled(b'{"layers":', b"1", b"}"),
    "huge numbers": filled(b'{"layers":[', b"1" * 4300 + b",", b"1]}"),
    "the same key": filled(b"{", b'"layers":[],', b'"layers":[]}'),
    "digests": filled(b'{"layers":[', b'{"digest":"%s"},' % str(LAYER).encode(), b"{}]}"),
}


@pytest.mark.parametrize("name", COSTLY)
async def test_a_large_manifest_of_a_stranger_stops_nobody(name: str) -> None:
    data, mesh = COSTLY[name], MemoryMesh()
    digest = str(Digest.of(data))
    stranger = sends(data, digest=digest, kind=media_type.OCI_MANIFEST)
    async with mirror(mesh) as holder, mirror(mesh) as asker, scripted_peer(mesh, stranger, digest):
        await holder.hold(IMAGE, NAME)
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(ask(asker, f"/v2/a/manifests/{digest}")) for _ in range(3)]
            pulls = [await ask(asker, PATH) for _ in range(5)]
        assert [pull[::2] for pull in pulls] == [(200, DATA)] * 5
        assert {task.result()[0] for task in tasks} == {200}, "the bytes are right, and the type was told"


async def test_a_config_and_a_layer_are_no_manifests_wherever_they_are_asked_for() -> None:
    image = random_image(5)
    async with holder_and_asker() as (holder, asker):
        await holder.hold(image)
        for digest in image.blobs:
            if image.kind(digest) == "blobs":
                for one in (holder, asker):
                    assert (await ask(one, f"/v2/a/manifests/{digest}", **CONTAINERD))[0] == 404
