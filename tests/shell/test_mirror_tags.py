"""A tag is answered where the content behind it can be supplied, and the upstream decides where holders disagree."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import pytest

from speil.oci import media_type
from speil.oci.digest import Digest
from speil.oci.image_builder import BuiltImage
from speil.oci.platform import Platform
from speil.routing.memory import MemoryMesh
from speil.sources.holders import IMAGES_HEADER
from speil.sources.tags import this_machine
from speil.testing.images import random_image
from tests.shell.mirrors import Mirror, mirror
from tests.shell.test_mirror_answers import ask
from tests.shell.test_mirror_faults import scripted_peer

IMAGE, MOVED = random_image(41), random_image(42)
NAME, PATH = "reg.test/lab/app:1", "/v2/lab/app/manifests/1?ns=reg.test"
AMD64, ARM64 = (Platform("linux", architecture) for architecture in ("amd64", "arm64"))
PEER = {"X-Spegel-Mirrored": "true"}


def parts(image: BuiltImage, architecture: str) -> list[Digest]:
    """The index, and all that a node of one architecture pulls."""
    manifest = image.manifests[architecture].digest
    document = json.loads(image.blobs[manifest])
    below = [document["config"], *document["layers"]]
    return [image.index.digest, manifest, *(Digest.parse(one["digest"]) for one in below)]


def layer_of(image: BuiltImage, architecture: str) -> Digest:
    """A layer that only this architecture has."""
    other = {"amd64": "arm64", "arm64": "amd64"}[architecture]
    return next(one for one in parts(image, architecture)[3:] if one not in parts(image, other))


async def hold(node: Mirror, image: BuiltImage, digests: Sequence[Digest], target: Digest | None = None) -> None:
    """As a pull leaves it, and announced as an old speil would."""
    for digest in digests:
        node.store.put(image.blobs[digest])
    node.store.tag(NAME, target or image.index.digest)
    await node.router.provide([*map(str, digests), NAME])


@asynccontextmanager
async def nodes(count: int, *platforms: Platform) -> AsyncIterator[list[Mirror]]:
    """Mirrors of one mesh; the first asks, with these platforms."""
    mesh = MemoryMesh()
    async with AsyncExitStack() as stack:
        first = await stack.enter_async_context(mirror(mesh, node_platforms=platforms or (AMD64,)))
        yield [first, *[await stack.enter_async_context(mirror(mesh)) for _ in range(count - 1)]]


async def digest_of(node: Mirror, **headers: str) -> str | None:
    """What a node says to HEAD and GET of the tag; None for a miss."""
    status, found, body = await ask(node, PATH, **headers)
    head_status, head, _ = await ask(node, PATH, "HEAD", **headers)
    assert (status, found.get("Docker-Content-Digest")) == (head_status, head.get("Docker-Content-Digest"))
    if status == 404:
        return None
    assert status == 200
    digest = found["Docker-Content-Digest"]
    assert Digest.parse(digest).matches(body)
    assert found["Content-Type"] == head["Content-Type"] == media_type.OCI_INDEX
    return digest


def outcomes(node: Mirror) -> dict[str, float]:
    """Tag answers counted so far (each question is asked twice here)."""
    names = ("store", "peer", "none", "disagreement", "not_whole")
    found = {name: node.sample("speil_tag_answers_total", outcome=name) for name in names}
    return {name: count for name, count in found.items() if count}


async def test_a_holder_of_one_platform_answers_and_says_which() -> None:
    async with nodes(2) as (asker, holder):
        await hold(holder, IMAGE, parts(IMAGE, "amd64"))
        status, headers, _ = await ask(holder, PATH, **PEER)
        assert status == 200
        assert headers[IMAGES_HEADER] == f"linux/amd64={IMAGE.manifests['amd64'].digest}"
        assert await digest_of(asker) == str(IMAGE.index.digest)
        assert outcomes(asker) == {"peer": 2}


@pytest.mark.parametrize("missing", ["manifest", "config", "layer"])
async def test_a_partial_holder_answers_neither_peers_nor_its_own_containerd(missing: str) -> None:
    async with nodes(2) as (asker, holder):
        _, manifest, config, *_ = parts(IMAGE, "amd64")
        gone = {"manifest": manifest, "config": config, "layer": layer_of(IMAGE, "amd64")}[missing]
        await hold(holder, IMAGE, [one for one in parts(IMAGE, "amd64") if one != gone])
        assert await digest_of(holder, **PEER) is None
        assert await digest_of(holder) is None
        assert await digest_of(asker) is None
        assert outcomes(asker) == {"none": 2}


async def test_a_layer_that_was_collected_after_the_announcement_is_a_miss_at_once() -> None:
    async with nodes(2) as (asker, holder):
        await hold(holder, IMAGE, parts(IMAGE, "amd64"))
        assert await digest_of(asker) == str(IMAGE.index.digest)
        holder.store.remove(layer_of(IMAGE, "amd64"), tell=False)
        assert await digest_of(asker) is None
        assert await digest_of(holder) is None


async def test_of_another_architecture_it_is_a_miss() -> None:
    async with nodes(2, ARM64) as (asker, holder):
        await hold(holder, IMAGE, parts(IMAGE, "amd64"))
        assert await digest_of(holder, **PEER), "for others it is of use"
        assert await digest_of(asker) is None
        assert outcomes(asker) == {"not_whole": 2}


async def test_holders_of_several_architectures_supply_it_together() -> None:
    async with nodes(3, ARM64, AMD64) as (asker, one, other):
        await hold(one, IMAGE, parts(IMAGE, "amd64"))
        assert await digest_of(asker) is None
        await hold(other, IMAGE, parts(IMAGE, "arm64"))
        assert await digest_of(asker) == str(IMAGE.index.digest)


async def test_a_node_takes_its_own_word_where_it_has_all_for_its_platform() -> None:
    async with nodes(1, AMD64) as (node,):
        await hold(node, IMAGE, parts(IMAGE, "amd64"))
        assert await digest_of(node) == str(IMAGE.index.digest)
        assert outcomes(node) == {"store": 2}
    async with nodes(1, ARM64) as (node,):
        await hold(node, IMAGE, parts(IMAGE, "amd64"))
        assert await digest_of(node) is None


@pytest.mark.parametrize("own", [True, False])
async def test_where_holders_disagree_the_upstream_decides(own: bool) -> None:
    async with nodes(3) as (asker, one, other):
        await hold(asker if own else one, IMAGE, parts(IMAGE, "amd64"))
        await hold(other, MOVED, parts(MOVED, "amd64"))
        assert await digest_of(asker) is None
        assert outcomes(asker) == {"disagreement": 2}


async def test_a_manifest_without_an_index_is_for_the_platform_of_its_config() -> None:
    for platform, found in ((AMD64, True), (ARM64, False)):
        async with nodes(2, platform) as (asker, holder):
            _, manifest, *below = parts(IMAGE, "amd64")
            await hold(holder, IMAGE, [manifest, *below], manifest)
            status, headers, _ = await ask(asker, PATH)
            assert (status == 200) is found
            if found:
                assert headers["Docker-Content-Digest"] == str(manifest)


def index_over(blobs: dict[Digest, bytes], *entries: tuple[Digest, dict[str, Any] | None]) -> bytes:
    manifests = [
        {"mediaType": media_type.OCI_MANIFEST, "digest": str(digest), "size": len(blobs.get(digest, b"absent"))}
        | ({"platform": platform} if platform else {})
        for digest, platform in entries
    ]
    return json.dumps({"schemaVersion": 2, "mediaType": media_type.OCI_INDEX, "manifests": manifests}).encode()


LINUX = {"os": "linux", "architecture": "amd64"}
UNKNOWN = {"os": "unknown", "architecture": "unknown"}


@pytest.mark.parametrize(
    ("entries", "found"),
    [
        ([("amd64", LINUX)], True),
        ([("amd64", LINUX), ("attestation", UNKNOWN)], True),
        ([("attestation", UNKNOWN)], False),
        ([("amd64", None)], True),
        ([("absent", LINUX)], False),
        ([("absent", {"os": "linux", "architecture": "arm64"}), ("amd64", LINUX)], True),
        ([], False),
    ],
)
async def test_indexes_as_they_are(entries: list[tuple[str, dict[str, Any] | None]], found: bool) -> None:
    _, manifest, *below = parts(IMAGE, "amd64")
    named = {"amd64": manifest, "attestation": manifest, "absent": Digest.of(b"absent")}
    data = index_over(IMAGE.blobs, *((named[name], platform) for name, platform in entries))
    async with nodes(2) as (asker, holder):
        index = holder.store.put(data)
        await holder.router.provide([str(index)])
        await hold(holder, IMAGE, [manifest, *below], index)
        assert await digest_of(asker) == (str(index) if found else None)


async def test_an_index_in_an_index_is_followed() -> None:
    _, manifest, *below = parts(IMAGE, "amd64")
    inner = index_over(IMAGE.blobs, (manifest, LINUX))
    outer = index_over({Digest.of(inner): inner}, (Digest.of(inner), None))
    async with nodes(2) as (asker, holder):
        for data in (inner, outer):
            await holder.router.provide([str(holder.store.put(data))])
        await hold(holder, IMAGE, [manifest, *below], Digest.of(outer))
        assert await digest_of(asker) == str(Digest.of(outer))
        holder.store.remove(layer_of(IMAGE, "amd64"))
        assert await digest_of(asker) is None


# --- peers that do not say what they have: Spegel, and speil before it did ---------------------------------


@asynccontextmanager
async def spegel(mesh: MemoryMesh, image: BuiltImage, digests: Sequence[Digest]) -> AsyncIterator[list[dict[str, str]]]:
    """A peer that answers what it has, and its tag always."""
    box: list[list[dict[str, str]]] = []

    async def script(headers: dict[str, str], writer: asyncio.StreamWriter) -> None:
        method, target, _ = box[0][-1]["line"].split(" ")
        reference = target.partition("?")[0].rpartition("/")[2]
        digest = image.index.digest if reference == "1" else Digest.parse(reference)
        if digest not in digests:
            writer.write(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")
            return
        data = image.blobs[digest]
        kind = image.media_types[digest]
        lines = ["HTTP/1.1 200 OK", f"Content-Type: {kind}", f"Docker-Content-Digest: {digest}"]
        head = "\r\n".join([*lines, f"Content-Length: {len(data)}", "", ""]).encode()
        writer.write(head if method == "HEAD" else head + data)
        await writer.drain()

    async with scripted_peer(mesh, script, NAME, *map(str, digests)) as requests:
        box.append(requests)
        yield requests


async def test_a_spegel_that_has_it_all_is_taken_at_its_word_blob_by_blob() -> None:
    mesh = MemoryMesh()
    async with mirror(mesh, node_platforms=(AMD64,)) as asker:
        async with spegel(mesh, IMAGE, parts(IMAGE, "amd64")) as requests:
            assert await digest_of(asker) == str(IMAGE.index.digest)
            heads = [one["line"].split(" ")[1] for one in requests if one["line"].startswith("HEAD")]
            for digest in parts(IMAGE, "amd64")[2:]:
                assert any(str(digest) in line for line in heads)
        mesh.records.clear()


@pytest.mark.parametrize("missing", ["manifest", "config", "layer", "platform"])
async def test_a_spegel_that_lacks_a_part_is_a_miss(missing: str) -> None:
    _, manifest, config, *_ = parts(IMAGE, "amd64")
    gone = {"manifest": manifest, "config": config, "layer": layer_of(IMAGE, "amd64")}.get(missing)
    mesh = MemoryMesh()
    platform = ARM64 if missing == "platform" else AMD64
    async with mirror(mesh, node_platforms=(platform,)) as asker:
        async with spegel(mesh, IMAGE, [one for one in parts(IMAGE, "amd64") if one != gone]):
            assert await digest_of(asker) is None
            assert outcomes(asker) == {"not_whole": 2}
        mesh.records.clear()


@pytest.mark.parametrize("restarted", [False, True])
async def test_a_blob_that_was_promised_and_nobody_has_sends_the_next_try_upstream(restarted: bool) -> None:
    """A disk that fails, a collection in mid-pull, a holder that boasts: a pull fails once, and not for good."""
    digest, manifest, _, *layers = parts(IMAGE, "amd64")

    async def boasts(headers: dict[str, str], writer: asyncio.StreamWriter) -> None:
        method, path, _ = requests[-1]["line"].split(" ")
        asked = path.partition("?")[0].rpartition("/")[2]
        found = str(digest) if asked == "1" else asked
        if found == str(layers[-1]):
            writer.write(b"HTTP/1.1 404 X\r\nContent-Length: 0\r\n\r\n")
            return
        data = IMAGE.blobs[Digest.parse(found)]
        kind = IMAGE.media_types.get(Digest.parse(found), media_type.OCTET_STREAM)
        lines = ["HTTP/1.1 200 OK", f"Content-Type: {kind}", f"Docker-Content-Digest: {found}"]
        lines += [f"{IMAGES_HEADER}: linux/amd64={manifest}", f"Content-Length: {len(data)}"]
        writer.write("\r\n".join([*lines, "", ""]).encode() + (b"" if method == "HEAD" else data))

    mesh = MemoryMesh()
    async with mirror(mesh, node_platforms=(AMD64,)) as asker:
        async with scripted_peer(mesh, boasts, NAME, *map(str, parts(IMAGE, "amd64"))) as requests:
            assert await digest_of(asker) == str(digest)
            if restarted:  # the manifest is here from the try before, and is not asked for again
                asker.store.put(IMAGE.blobs[manifest])
                assert await digest_of(asker) == str(digest)
            else:
                assert (await ask(asker, f"/v2/lab/app/manifests/{manifest}?ns=reg.test"))[0] == 200
            assert (await ask(asker, f"/v2/lab/app/blobs/{layers[0]}?ns=reg.test"))[0] == 200
            assert await digest_of(asker) == str(digest), "what is supplied takes nothing back"
            assert (await ask(asker, f"/v2/lab/app/blobs/{layers[-1]}?ns=reg.test"))[0] == 404
            assert await digest_of(asker) is None
        mesh.records.clear()


async def test_what_one_spegel_lacks_another_or_the_node_itself_supplies() -> None:
    mesh = MemoryMesh()
    layer, config = layer_of(IMAGE, "amd64"), parts(IMAGE, "amd64")[2]
    async with mirror(mesh, node_platforms=(AMD64,)) as asker, mirror(mesh) as other:
        left = [one for one in parts(IMAGE, "amd64") if one not in (layer, config)]
        async with spegel(mesh, IMAGE, left):
            assert await digest_of(asker) is None
            asker.store.put(IMAGE.blobs[layer])
            assert await digest_of(asker) is None
            other.store.put(IMAGE.blobs[config])
            await other.router.provide([str(config)])
            assert await digest_of(asker) == str(IMAGE.index.digest)
        mesh.records.clear()


async def test_stale_records_do_not_hide_a_holder() -> None:
    mesh = MemoryMesh()
    async with AsyncExitStack() as stack:
        asker = await stack.enter_async_context(mirror(mesh, node_platforms=(AMD64,)))
        for _ in range(6):
            stale = await stack.enter_async_context(mirror(mesh))
            await stale.router.provide([NAME])
        holder = await stack.enter_async_context(mirror(mesh))
        await hold(holder, IMAGE, parts(IMAGE, "amd64"))
        assert await digest_of(asker) == str(IMAGE.index.digest)


async def test_a_holder_that_hangs_costs_a_tenth_of_a_second_and_not_the_answer() -> None:
    async def hangs(headers: dict[str, str], writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(3600)

    mesh = MemoryMesh()
    async with mirror(mesh, node_platforms=(AMD64,)) as asker, mirror(mesh) as holder, AsyncExitStack() as stack:
        await hold(holder, IMAGE, parts(IMAGE, "amd64"))
        for _ in range(3):
            await stack.enter_async_context(scripted_peer(mesh, hangs, NAME))
        assert (await ask(asker, PATH, "HEAD"))[0] == 200


async def test_a_promise_that_could_not_be_kept_is_not_made_again() -> None:
    async with nodes(2) as (asker, holder):
        await hold(holder, IMAGE, parts(IMAGE, "amd64"))
        assert await digest_of(asker) == str(IMAGE.index.digest)
        for digest in parts(IMAGE, "amd64")[1:2]:
            assert (await ask(asker, f"/v2/lab/app/manifests/{digest}?ns=reg.test"))[0] == 200
        assert await digest_of(asker) == str(IMAGE.index.digest), "a client for this node's platform finds it all"
        arm64 = IMAGE.manifests["arm64"].digest
        assert (await ask(asker, f"/v2/lab/app/manifests/{arm64}?ns=reg.test"))[0] == 404
        assert await digest_of(asker) is None, "the next try goes upstream"


def test_this_machine_has_a_platform() -> None:
    assert this_machine().os == "linux"
    assert this_machine().architecture
