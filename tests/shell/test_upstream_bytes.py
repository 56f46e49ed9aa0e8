"""What came from the upstream is counted, though it never passes through speil."""

from __future__ import annotations

from functools import partial

import aiohttp
import pytest

from speil.fetch.settings import FetchSettings
from speil.mirror.series import MirrorSeries
from speil.mirror.upstream_bytes import MISSES_MAX, UpstreamBytes
from speil.observe.metrics import Metrics
from speil.oci.digest import Digest
from speil.routing.memory import MemoryMesh
from speil.store.memory import MemoryStore
from speil.testing.samples import sample
from tests.shell.mirrors import Mirror, mirror
from tests.shell.test_mirror_answers import DATA, LAYER, ask
from tests.shell.test_mirror_faults import dies_after, scripted_peer

PATH = f"/v2/lab/app/blobs/{LAYER}?ns=reg.test"


async def arrive(node: Mirror) -> float:
    """The layer lands in the store; what is counted."""
    node.store.put(DATA)
    await node.upstream_bytes.arrived([str(LAYER), "reg.test/lab/app:1"])
    return node.sample("speil_upstream_bytes_total", registry="reg.test")


async def test_what_no_peer_has_came_from_upstream_once() -> None:
    async with mirror(MemoryMesh()) as node:
        assert (await ask(node, PATH))[0] == 404
        assert (await ask(node, PATH))[0] == 404
        assert await arrive(node) == len(DATA)
        assert await arrive(node) == len(DATA), "it arrives once"


async def test_what_nobody_asked_for_is_an_import_and_not_counted() -> None:
    async with mirror(MemoryMesh()) as node:
        assert await arrive(node) == 0


async def test_after_a_break_the_upstream_gives_the_rest() -> None:
    mesh = MemoryMesh()
    async with mirror(mesh, fetch=FetchSettings(verify_bytes_max=0)) as node:
        async with scripted_peer(mesh, partial(dies_after, 1000)):
            with pytest.raises(aiohttp.ClientPayloadError, match="received 1000"):
                await ask(node, PATH)
        mesh.records.clear()
        assert (await ask(node, PATH, Range="bytes=1000-"))[0] == 404
        assert await arrive(node) == len(DATA) - 1000


async def test_what_a_peer_gave_after_all_is_not_counted() -> None:
    upstream_bytes = UpstreamBytes(store := MemoryStore(), (metrics := Metrics()).of(MirrorSeries))
    store.put(DATA)
    upstream_bytes.missed(LAYER, "reg.test")
    upstream_bytes.served(LAYER)
    await upstream_bytes.arrived([str(LAYER)])
    assert sample(metrics, "speil_upstream_bytes_total") == 0
    store.close()


async def test_misses_that_never_arrive_are_forgotten_oldest_first() -> None:
    upstream_bytes = UpstreamBytes(store := MemoryStore(), (metrics := Metrics()).of(MirrorSeries))
    store.put(DATA)
    upstream_bytes.missed(LAYER, "reg.test")
    for number in range(MISSES_MAX):
        upstream_bytes.missed(Digest.of(str(number).encode()), "reg.test")
    await upstream_bytes.arrived([str(LAYER), str(Digest.of(b"1"))])
    assert sample(metrics, "speil_upstream_bytes_total") == 0
    store.close()


async def test_what_a_store_without_content_events_took_in_is_counted_at_a_pull_s_end() -> None:
    upstream_bytes = UpstreamBytes(store := MemoryStore(), (metrics := Metrics()).of(MirrorSeries))
    upstream_bytes.missed(LAYER, "reg.test")
    await upstream_bytes.image_added("reg.test/lab/app:1")
    assert sample(metrics, "speil_upstream_bytes_total") == 0
    store.put(DATA)
    await upstream_bytes.image_added("reg.test/lab/app:1")
    await upstream_bytes.content_added([LAYER])
    assert sample(metrics, "speil_upstream_bytes_total") == len(DATA)
    store.close()
