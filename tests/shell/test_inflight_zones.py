"""Zones of a region: what only other zones have crosses the border of zones once."""

from __future__ import annotations

import asyncio
from random import Random

import pytest

from speil.fetch.trust import Care
from speil.oci.digest import Digest
from tests.shell.runtime import Upstream
from tests.shell.test_inflight import LAYER, SMALL, Region, all_pull, paced, region
from tests.shell.test_mirror_faults import never_answers, scripted_peer

SECONDS_MAX = 60.0
ZONES = ("b", "b", "a", "a", "a", "a")


def crossed(found: Region) -> float:
    """Bytes between zones."""
    return found.total("speil_peer_bytes_total", relation="other")


async def given(found: Region, digest: Digest) -> None:
    """The first node has the content, and the others can find it there."""
    first = found.runtimes[0]
    await first.pull(digest)
    await found.ended()
    await first.node.router.provide([str(digest)])


@pytest.mark.parametrize("data", [LAYER, SMALL], ids=["layer", "small"])
async def test_content_of_another_zone_crosses_the_border_once(data: bytes) -> None:
    upstream = Upstream()
    digest = upstream.add(data)
    async with asyncio.timeout(SECONDS_MAX), region(6, upstream, zones=ZONES) as found:
        await given(found, digest)
        await all_pull(found.runtimes[2:], digest)
        assert upstream.gets[digest] == 1
        assert crossed(found) == len(data)
        await found.ended()


async def test_content_that_is_fetched_at_once_in_two_zones_crosses_the_border_once() -> None:
    upstream = paced()
    digest = upstream.add(LAYER)
    async with asyncio.timeout(SECONDS_MAX), region(6, upstream, zones=ZONES) as found:
        await all_pull(found, digest)
        assert upstream.gets[digest] == 1
        assert crossed(found) == len(LAYER)
        await found.ended()


async def test_a_holder_in_this_zone_is_asked_before_another_node_that_downloads() -> None:
    upstream = Upstream()
    digest = upstream.add(LAYER)
    async with asyncio.timeout(SECONDS_MAX), region(6, upstream, zones=ZONES) as found:
        await given(found, digest)
        await found.runtimes[1].pull(digest)
        assert upstream.gets[digest] == 1
        assert not crossed(found)
        assert found.runtimes[1].came == {"mirror": len(LAYER)}


async def test_a_silent_holder_in_this_zone_is_not_waited_for_until_time_is_up() -> None:
    upstream = Upstream()
    digest = upstream.add(LAYER)
    async with asyncio.timeout(SECONDS_MAX), region(2, upstream, zones=("b", "a")) as found:
        await given(found, digest)
        mesh, second = found.claims.mesh, found.runtimes[1]
        async with scripted_peer(mesh, never_answers, str(digest)) as requests:
            silent = next(iter(mesh.records[str(digest)]))
            mesh.zones[silent.peer_id] = "a"
            messages = found.claims.messages
            await second.pull(digest)
            assert requests, "it was asked first"
        assert second.came == {"mirror": len(LAYER)}
        assert upstream.gets[digest] == 1
        assert found.claims.messages == messages, "the other zone was asked beside it, without the umpire"


async def test_umpires_that_do_not_answer_do_not_keep_a_node_from_the_holders_of_other_zones() -> None:
    upstream = Upstream()
    digest = upstream.add(LAYER)
    async with asyncio.timeout(SECONDS_MAX), region(6, upstream, zones=ZONES) as found:
        await given(found, digest)
        found.claims.dead.update(one.node.router.local.peer_id for one in found.runtimes[1:])
        await found.runtimes[2].pull(digest)
        assert upstream.gets[digest] == 1, "only the holder's zone has it"
        assert found.runtimes[2].came == {"mirror": len(LAYER)}


async def test_after_the_upstream_did_not_help_anyone_is_asked_in_other_zones_too() -> None:
    upstream = Upstream()
    digest = upstream.add(LAYER)
    async with asyncio.timeout(SECONDS_MAX), region(3, upstream, zones=("b", "b", "a")) as found:
        await given(found, digest)
        third = found.runtimes[2]
        trust, now = third.node.known.trust, asyncio.get_running_loop().time()
        gone = found.runtimes[1].node.router.local.peer_id
        trust.sent(digest, gone, now)
        trust.whole(digest, now)
        assert trust.asked(digest, now, from_start=True).care is Care.UNPROVEN
        trust.turned_away(digest, now)
        await third.pull(digest)
        assert third.came == {"mirror": len(LAYER)}


async def test_a_part_is_served_from_another_zone_as_before() -> None:
    upstream = Upstream()
    digest = upstream.add(Random(3).randbytes(9 << 20))
    async with asyncio.timeout(SECONDS_MAX), region(2, upstream, zones=("b", "a")) as found:
        await given(found, digest)
        second = found.runtimes[1]
        ingest = await second.node.ingests.begin(digest, len(upstream.blobs[digest]))
        await ingest.write(upstream.blobs[digest][: 1 << 20])
        await second._download(digest, "blobs", "app", len(upstream.blobs[digest]), ingest)
        assert digest.matches(ingest.data())
        assert second.came == {"mirror": len(upstream.blobs[digest]) - (1 << 20)}
        await ingest.commit()
