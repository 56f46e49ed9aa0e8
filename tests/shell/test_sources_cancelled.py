"""Requests that are cancelled at any moment leave no task, descriptor, pipe or memory behind."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import pytest

from speil.fetch.settings import FetchSettings
from speil.oci.endpoint import Content
from speil.routing.memory import MemoryMesh
from speil.sources.base import ContentRequest, Source
from speil.testing.cancellation import cancel_at_each_step
from speil.testing.outlets import sink_and_client
from tests.shell.mirrors import Mirror, mirror
from tests.shell.test_mirror_answers import IMAGE, LAYER, NAME

BLOB = Content("blobs", "reg.test", "lab/app", LAYER)
MANIFEST = Content("manifests", "reg.test", "lab/app", IMAGE.index.digest)
TAG = Content("manifests", "reg.test", "lab/app", "1")


@pytest.fixture
async def pair(request: pytest.FixtureRequest) -> AsyncIterator[tuple[Mirror, Mirror]]:
    """A node that holds the image, and one without; the parameter is how large verified blobs may be."""
    mesh = MemoryMesh()
    async with AsyncExitStack() as stack:
        holder = await stack.enter_async_context(mirror(mesh))
        asker = await stack.enter_async_context(mirror(mesh, fetch=FetchSettings(verify_bytes_max=request.param)))
        await holder.hold(IMAGE, NAME)
        yield holder, asker


async def served(node: Mirror, source: Source, content: Content) -> None:
    """Open content and send it to a client."""
    opened = await source.open(ContentRequest(content, "GET", verifies=True))
    assert opened is not None
    async with opened, sink_and_client(node.wire) as (sink, _, _):
        await opened.send(sink)


def nothing_is_held(node: Mirror) -> None:
    node.built.client.close()
    node.wire.close()
    assert node.wire.pipes.open_count == 0
    assert node.known.verified.taken == 0
    assert not node.known.verified.is_pending(LAYER)


@pytest.mark.parametrize("pair", [0], indirect=True)
@pytest.mark.parametrize("content", [BLOB, MANIFEST, TAG], ids=["blob", "manifest", "tag"])
async def test_content_of_the_own_store(pair: tuple[Mirror, Mirror], content: Content) -> None:
    holder, _ = pair
    sources = holder.built.sources
    source: Source = sources.own if content.digest else sources.held_tags

    async def afterwards() -> None:
        nothing_is_held(holder)

    assert await cancel_at_each_step(lambda: served(holder, source, content), afterwards=afterwards) > 0


@pytest.mark.parametrize("pair", [0, 4 << 20], indirect=True, ids=["relayed", "verified"])
@pytest.mark.parametrize("content", [BLOB, MANIFEST, TAG], ids=["blob", "manifest", "tag"])
async def test_content_of_a_peer(pair: tuple[Mirror, Mirror], content: Content) -> None:
    holder, asker = pair
    sources, peer_id = asker.built.sources, holder.router.local.peer_id
    source: Source = sources.peers if content.digest else sources.tags

    async def afterwards() -> None:
        nothing_is_held(asker)
        assert asker.known.health.record(peer_id).in_flight == 0
        # forgiven each time, so that the next round asks it again
        asker.known.health.answered(peer_id, 0.01)
        asker.known.health.delivered(peer_id)
        asker.known.trust.settled(LAYER, asyncio.get_running_loop().time())

    assert await cancel_at_each_step(lambda: served(asker, source, content), afterwards=afterwards) >= 3
