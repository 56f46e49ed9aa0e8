"""Requests that follow a download and are cancelled at any moment leave nothing behind."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any

import pytest

from speil.fetch.settings import FetchSettings
from speil.oci.endpoint import Content
from speil.routing.memory import MemoryMesh
from speil.routing.memory_claims import ClaimMesh
from speil.testing.cancellation import cancel_at_each_step
from speil.testing.eventually import eventually
from tests.shell.mirrors import Mirror, mirror
from tests.shell.test_inflight import ask
from tests.shell.test_mirror_answers import IMAGE, LAYER
from tests.shell.test_sources_cancelled import BLOB, MANIFEST, nothing_is_held, served


@pytest.fixture
async def pair(request: pytest.FixtureRequest) -> AsyncIterator[tuple[Mirror, Mirror]]:
    """A node that was told to fetch the image, and one without; the parameter is how large verified blobs may be."""
    mesh = MemoryMesh()
    claims = ClaimMesh(mesh)
    async with AsyncExitStack() as stack:
        fetch = FetchSettings(verify_bytes_max=request.param)
        fetcher = await stack.enter_async_context(mirror(mesh, claims=claims))
        asker = await stack.enter_async_context(mirror(mesh, claims=claims, fetch=fetch))
        for kind, digest in (("blobs", LAYER), ("manifests", IMAGE.index.digest)):
            assert await ask(fetcher, "GET", digest, "User-Agent: containerd/2.4.2", kind=kind) == 404
        for data in IMAGE.blobs.values():
            fetcher.store.put(data)  # it is not announced: only the claim names this node
        await eventually(lambda: not fetcher.inflight.pulls.flights, what="its pulls end")
        yield fetcher, asker


def of_the_node(task: asyncio.Task[Any]) -> bool:
    """Messages to umpires are the node's."""
    return getattr(task.get_coro(), "__name__", "") == "_guarded"


@pytest.mark.parametrize("pair", [0, 4 << 20], indirect=True, ids=["passed on", "verified"])
@pytest.mark.parametrize("content", [BLOB, MANIFEST], ids=["blob", "manifest"])
async def test_a_follower(pair: tuple[Mirror, Mirror], content: Content) -> None:
    _, asker = pair

    async def afterwards() -> None:
        nothing_is_held(asker)
        for flight in asker.inflight.pulls.flights:  # delivered: the runtime has it
            assert flight.request is None
            asker.inflight.pulls.completed(flight.key)

    steps = await cancel_at_each_step(
        lambda: served(asker, asker.inflight.others, content), afterwards=afterwards, owned=of_the_node
    )
    assert steps > 3
    assert asker.sample("speil_shared_pulls_total", outcome="followed") > 0
    assert asker.sample("speil_shared_pulls_total", outcome="cancelled") > 3
    assert asker.sample("speil_shared_pulls_total", outcome="failed") == 0
