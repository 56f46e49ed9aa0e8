"""A request goes through the data plane once, top to bottom: a tracer sees each hop of the table entered once."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from speil.claims.facts import Sender
from speil.claims.message import Ask, Fetch
from speil.fetch.settings import FetchSettings
from speil.multiformats.content_key import content_key
from speil.routing.memory import MemoryMesh
from speil.routing.memory_claims import ClaimMesh
from tests.shell.mirrors import Mirror, mirror
from tests.shell.one_way import HOPS, table
from tests.shell.test_mirror_answers import DATA, LAYER
from tests.shell.test_mirror_faults import head, scripted_peer

OF_HOP = {f"speil.{module}": number for number, hop in enumerate(HOPS) for module in hop.modules}
SECONDS_MAX = 30.0
CONTAINERD = "User-Agent: containerd/2.4.2\r\n"
AS_IT_COMES = FetchSettings(verify_bytes_max=0)


@contextmanager
def entries() -> Iterator[list[str]]:
    """The modules of the table in the order in which other modules of speil enter them.

    A coroutine counts when it is called, not each time it goes on. To make an object is not to enter its module.
    """
    found: list[str] = []
    seen: set[FrameType] = set()

    def watch(frame: FrameType, event: str, _: Any) -> None:
        if event != "call" or frame in seen or frame.f_code.co_name == "__init__":
            return
        module = frame.f_globals.get("__name__", "")
        if module not in OF_HOP:
            return
        seen.add(frame)
        caller = frame.f_back.f_globals.get("__name__", "") if frame.f_back else ""
        if caller.startswith("speil.") and caller != module and (not found or found[-1] != module):
            found.append(module)

    sys.setprofile(watch)
    try:
        yield found
    finally:
        sys.setprofile(None)
        seen.clear()


async def way_of(node: Mirror) -> list[str]:
    """The modules that a request for DATA enters, until its last byte has come."""
    reader, writer = await asyncio.open_connection(node.host, node.port)
    try:
        with entries() as found:
            writer.write(f"GET /v2/a/blobs/{LAYER} HTTP/1.1\r\nHost: x\r\n{CONTAINERD}\r\n".encode())
            async with asyncio.timeout(SECONDS_MAX):
                assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200 ")
                assert await reader.readexactly(len(DATA)) == DATA
    finally:
        writer.close()
    if found[-1] == "speil.http1.head":
        found.pop()  # it looks for the next request on the connection
    return [module.removeprefix("speil.") for module in found]


def assert_once(way: list[str]) -> None:
    """Each hop of the table is entered, in its order, and none is entered again after another."""
    hops = [OF_HOP[f"speil.{module}"] for module in way]
    assert hops == sorted(hops)
    assert set(hops) == set(range(len(HOPS)))
    assert len(set(way)) == len(way)


def test_the_table_has_at_most_eight_hops() -> None:
    assert len(HOPS) <= 8
    assert table().count("\n") == len(HOPS) + 1


async def test_a_hit_of_the_own_store_goes_through_once(each_way: str) -> None:
    async with mirror(MemoryMesh()) as node:
        node.store.put(DATA)
        way = await way_of(node)
    assert_once(way)
    assert way[-1] == "sources.stored_blob"


async def test_content_of_a_peer_goes_through_once(each_way: str) -> None:
    async def whole(headers: dict[str, str], writer: asyncio.StreamWriter) -> None:
        writer.write(head(200, len(DATA)) + DATA)

    mesh = MemoryMesh()
    for fetch, last in ((AS_IT_COMES, "sources.relayed"), (FetchSettings(), "sources.verified_body")):
        async with mirror(mesh, fetch=fetch) as node, scripted_peer(mesh, whole, str(LAYER)):
            way = await way_of(node)
        assert_once(way)
        assert way[-1] == last


async def test_a_body_that_another_peer_goes_on_with_goes_through_once(each_way: str) -> None:
    half = len(DATA) // 2
    asked: list[str] = []

    async def breaks_off(headers: dict[str, str], writer: asyncio.StreamWriter) -> None:
        asked.append(headers.get("Range", ""))
        if len(asked) > 1:
            content_range = f"bytes {half}-{len(DATA) - 1}/{len(DATA)}"
            writer.write(head(206, len(DATA) - half, Content_Range=content_range) + DATA[half:])
            return
        writer.write(head(200, len(DATA)) + DATA[:half])
        await writer.drain()
        raise ConnectionError

    mesh = MemoryMesh()
    async with (
        mirror(mesh, fetch=AS_IT_COMES) as node,
        scripted_peer(mesh, breaks_off, str(LAYER)),
        scripted_peer(mesh, breaks_off, str(LAYER)),
    ):
        way = await way_of(node)
    assert asked == ["", f"bytes={half}-{len(DATA) - 1}"]
    assert_once(way)


async def test_a_download_of_another_node_that_is_followed_goes_through_once(each_way: str) -> None:
    asked: list[str] = []

    async def downloads(headers: dict[str, str], writer: asyncio.StreamWriter) -> None:
        asked.append(headers.get("X-Speil-Follow", ""))
        writer.write(head(200, len(DATA), X_Speil_Growing="true") + DATA)

    for fetch in (AS_IT_COMES, FetchSettings()):
        mesh = MemoryMesh()
        claims = ClaimMesh(mesh)
        async with (
            mirror(mesh, fetch=fetch, claims=claims) as node,
            scripted_peer(mesh, downloads, "another key"),
        ):
            (peer,) = mesh.records["another key"]
            (umpire,) = (one.umpire for one in claims.nodes.values() if one.local == node.router.local)
            key, now = content_key(str(LAYER)), asyncio.get_running_loop().time()
            assert umpire.ask(key, Sender(peer, "a share"), Ask(), now) == Fetch()
            await asyncio.sleep(0)  # until it runs
            way = await way_of(node)
        assert asked.pop() == "true"
        assert_once(way)
        assert way[-1] == "inflight.delivered"
        assert "inflight.following" in way
