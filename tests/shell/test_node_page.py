"""The node's pages: routes, the guard, and the event stream with its bounds."""

from __future__ import annotations

import asyncio
import contextlib
import json
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest

from speil.border.record import KEPT_OUT_MAX, BorderRecord
from speil.libp2p.identity import Identity
from speil.mirror.peer_bytes import PEERS_MAX, PeerBytes
from speil.mirror.recent import RecentRequests
from speil.observe.metrics import Metrics
from speil.region.policy import Layer
from speil.routing.memory import MemoryMesh
from speil.testing.eventually import eventually
from speil.testing.images import random_image
from speil.web import event_stream as stream_module
from speil.web.headers import CONTENT_SECURITY_POLICY
from tests.shell.mirrors import Mirror, mirror
from tests.shell.pages import Pages, pages

NAME = "reg.test/app:1"
IMAGE = random_image(4)
SCRIPT = "<img src=x onerror=alert(1)>"


@asynccontextmanager
async def one(*names: str) -> AsyncIterator[tuple[Mirror, Pages, aiohttp.ClientSession]]:
    """A node that holds the image, its pages, and a client."""
    async with mirror(MemoryMesh()) as node, pages(node, *names) as shown, aiohttp.ClientSession() as session:
        await node.hold(IMAGE, NAME)
        yield node, shown, session


class Stream:
    """What a page gets: the last data of each event by its name, and their order."""

    def __init__(self, response: aiohttp.ClientResponse) -> None:
        self._response = response
        self.last: dict[str, Any] = {}
        self.names: list[str] = []
        self.comments = 0

    async def next(self) -> str:
        """Read one event (its name) or comment ("")."""
        name, data = "", ""
        while line := (await self._response.content.readline()).decode():
            field, _, value = line.rstrip("\n").partition(": ")
            if field == "event":
                name = value
            elif field == "data":
                data = value
            elif line.startswith(":"):
                self.comments += 1
            elif line == "\n" and name:
                self.last[name] = json.loads(data)
                self.names.append(name)
                return name
            elif line == "\n":
                return ""
        raise EOFError

    async def until(self, true: Callable[[], bool]) -> None:
        """Read until a condition holds."""
        async with asyncio.timeout(20):
            while not true():
                await self.next()


@asynccontextmanager
async def stream(session: aiohttp.ClientSession, shown: Pages) -> AsyncIterator[Stream]:
    async with session.get(f"{shown.url}/debug/web/events") as response:
        assert response.status == 200
        assert response.headers["Content-Type"] == "text/event-stream"
        assert response.headers["Cache-Control"] == "no-store"
        yield Stream(response)


# --- routes ----------------------------------------------------------------------------------------------------


async def test_the_routes_and_their_headers() -> None:
    async with one() as (_, shown, session):

        async def ask(path: str, method: str = "GET") -> tuple[int, str, str]:
            async with session.request(method, shown.url + path, allow_redirects=False) as response:
                if f"{response.url.path}/".startswith("/debug/web/"):
                    assert response.headers["Content-Security-Policy"] == CONTENT_SECURITY_POLICY, path
                    assert response.headers["X-Content-Type-Options"] == "nosniff"
                return response.status, response.headers.get("Content-Type", ""), await response.text()

        status, kind, page = await ask("/debug/web/")
        assert (status, kind) == (200, "text/html; charset=utf-8")
        assert await ask("/debug/web/measure?image=" + SCRIPT) == (status, kind, page), "no image is put into the page"
        for name, wanted in (("node.js", "text/javascript"), ("show.js", "text/javascript"), ("page.css", "text/css")):
            status, kind, _ = await ask(f"/debug/web/{name}")
            assert (status, kind.partition(";")[0]) == (200, wanted)
        assert (await ask("/debug/web/icon.svg"))[1] == "image/svg+xml"
        assert (await ask("/debug/web"))[0] == 308
        assert json.loads((await ask("/debug/web/metadata"))[2])["region"] == "eu"
        stats = json.loads((await ask("/debug/web/stats"))[2])
        assert (stats["images"], stats["peers"]) == (1, 0)
        for path in (
            "/debug/web/../../setup.py",
            "/debug/web/static/node.html",
            "/debug/web/%2e%2e/build.py",
            "/debug/web/x",
        ):
            assert (await ask(path))[0] == 404
        for path, method in (
            ("", "POST"),
            ("events", "POST"),
            ("node.js", "DELETE"),
            ("trace", "GET"),
            ("trace", "HEAD"),
        ):
            assert (await ask(f"/debug/web/{path}", method))[0] == 405, path
        assert (await ask("/debug/webx"))[0] == 404


async def test_nothing_in_the_page_is_inline_or_from_elsewhere() -> None:
    async with one() as (_, shown, session):
        for path in ("", "node.js", "show.js", "page.css"):
            async with session.get(f"{shown.url}/debug/web/{path}") as response:
                text = await response.text()
            assert "http://" not in text.replace("http://www.w3.org/2000/svg", "")
            assert "https://" not in text
            for word in (
                "innerHTML",
                "outerHTML",
                "insertAdjacentHTML",
                "document.write",
                "eval(",
                " style=",
                "onclick",
            ):
                assert word not in text, (path, word)


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("127.0.0.1", 200), ("10.1.2.3:9090", 200), ("[fd00::1]:9090", 200), ("localhost:9090", 200),
        ("speil-node:9090", 200), ("node-9.example:9090", 200), ("NODE-9.Example.", 200),
        ("speil.speil-eu.svc:9090", 200), ("speil.speil-eu.svc.cluster.local", 200),
        ("evil.example", 421), ("evil.example:9090", 421), ("127.0.0.1.evil.example", 421), ("svc.evil.example", 421),
        ("xsvc", 200), ("a.xsvc", 421), ("", 421), ("[", 421), ("a@evil.example", 421), (SCRIPT, 421),
    ],
)  # fmt: skip
async def test_pages_are_answered_under_own_names_only(host: str, status: int) -> None:
    async with one("node-9.example") as (_, shown, session):
        for path in ("", "events", "node.js", "metadata"):
            async with session.get(f"{shown.url}/debug/web/{path}", headers={"Host": host}) as response:
                assert response.status == status, path
                if status != 200:
                    assert response.headers["Content-Type"].startswith("text/plain")
                    assert "not known by the name" in await response.text()
        for path in ("/metrics", "/debug/state?brief=true"):
            browser = {"Host": host, "Accept-Language": ""}  # what no page can leave out
            async with session.get(shown.url + path, headers=browser) as response:
                assert response.status == status
        async with session.get(f"{shown.url}/metrics", headers={"Host": host}) as response:
            assert response.status == 200, "scrapers come by any name"


# --- events ----------------------------------------------------------------------------------------------------


async def test_a_stream_begins_with_all_and_goes_on_with_what_changes() -> None:
    async with one() as (node, shown, session), stream(session, shown) as found:
        await found.until(
            lambda: {"node", "traffic", "transfers", "peers", "images", "kept_out", "requests"} <= found.last.keys()
        )
        assert found.last["node"]["region"] == "eu"
        assert found.last["node"]["leader"]["known_from"] == "bootstrap kind static: no leader is elected"
        assert found.last["requests"] == {"is_first": True, "requests": []}
        await found.until(lambda: found.last["images"]["total"] == 1)
        await found.until(lambda: found.last.get("holders") == {str(IMAGE.index.digest): 0})
        layer = max(IMAGE.blobs, key=lambda digest: len(IMAGE.blobs[digest]))
        async with session.get(f"{node.url}/v2/app/blobs/{layer}?ns=reg.test") as response:
            size = len(await response.read())
        before = len(found.names)
        await found.until(
            lambda: bool(found.last["requests"]["requests"]) and found.last["traffic"]["own_bytes"] == size
        )
        (request,) = found.last["requests"]["requests"]
        assert (request["key"], request["size"], request["source"]) == (str(layer), size, "store")
        assert request["image"] == "reg.test/app"
        assert request["seconds"] > 0
        shown.border.rejected(Layer.HTTP, "10.9.9.9", f"it said {SCRIPT}")
        await found.until(lambda: found.last["kept_out"]["layers"]["http"] == 1)
        (kept,) = found.last["kept_out"]["last"]
        assert (kept["who"], kept["count"]) == ("10.9.9.9", 1)
        assert "--region" in kept["what_to_do"]
        assert set(found.names[before:]) <= {"requests", "traffic", "kept_out", "node"}, "only what changed is sent"


async def test_a_quiet_stream_sends_a_comment_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream_module, "HEARTBEAT_SECONDS", 0.2)
    async with one() as (_, shown, session), stream(session, shown) as found:
        await found.until(lambda: found.comments >= 2)


async def test_the_number_of_streams_is_bounded_and_a_closed_one_leaves_its_place() -> None:
    async with one() as (node, shown, session):
        opened = [await session.get(f"{shown.url}/debug/web/events") for _ in range(stream_module.STREAMS_MAX)]
        assert {response.status for response in opened} == {200}
        async with session.get(f"{shown.url}/debug/web/events") as refused:
            assert refused.status == 503
            assert "close one" in await refused.text()
        assert node.sample("speil_web_streams") == stream_module.STREAMS_MAX
        assert node.sample("speil_web_refused_total", reason="streams") == 1
        opened.pop().close()
        await eventually(lambda: len(shown.pages.streams) < stream_module.STREAMS_MAX, what="the place is free")
        async with session.get(f"{shown.url}/debug/web/events") as response:
            assert response.status == 200
        for response in opened:
            response.close()
        await eventually(lambda: not len(shown.pages.streams), what="all are closed")


async def test_a_head_of_the_stream_holds_no_place_and_frees_its_connection() -> None:
    async with one() as (_, shown, _):
        host, _, port = shown.url.removeprefix("http://").partition(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        async with asyncio.timeout(30.0):
            for _ in range(stream_module.STREAMS_MAX + 1):
                writer.write(b"HEAD /debug/web/events HTTP/1.1\r\nHost: localhost\r\n\r\n")
                head = (await reader.readuntil(b"\r\n\r\n")).decode()
                assert head.startswith("HTTP/1.1 200 ")
                assert "Content-Type: text/event-stream" in head
        assert len(shown.pages.streams) == 0
        writer.close()


async def test_a_stream_ends_with_the_server_at_once() -> None:
    async with mirror(MemoryMesh()) as node, aiohttp.ClientSession() as session:
        async with pages(node) as shown:
            response = await session.get(f"{shown.url}/debug/web/events")
            found = Stream(response)
            await found.next()
            started = asyncio.get_running_loop().time()
        stopped_after = asyncio.get_running_loop().time() - started
        assert stopped_after < 1.5, "an open page does not hold up the end"
        with contextlib.suppress(EOFError):
            await found.until(lambda: False)
        assert response.content.at_eof()
        response.close()


async def test_a_client_that_takes_nothing_loses_its_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream_module, "TAKE_SECONDS_MAX", 0.2)
    async with one() as (node, shown, _):
        host, _, port = shown.url.removeprefix("http://").partition(":")
        _, writer = await asyncio.open_connection(host, int(port), limit=1)
        writer.write(b"GET /debug/web/events HTTP/1.1\r\nHost: localhost\r\n\r\n")
        await eventually(lambda: len(shown.pages.streams) == 1)

        async def fill() -> bool:
            for _ in range(200):
                node.recent.add("GET", "k" * 9000, "store", "served", "node", image="i" * 9000)
            return not len(shown.pages.streams)

        await eventually(fill, timeout_seconds=60, what="its stream is ended")
        writer.close()


# --- what it reads from ----------------------------------------------------------------------------------------


def test_an_idle_node_has_none_of_it_in_memory() -> None:
    names = "one for one in sys.modules if one.startswith(('speil.web', 'speil.trace', 'speil.region_web'))"
    program = f"import sys, speil.daemon; print(sorted({names}))"
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "['speil.web', 'speil.web.build']"


def test_who_was_kept_out_is_kept_within_a_bound() -> None:
    record = BorderRecord("eu", Metrics())
    for number in range(3 * KEPT_OUT_MAX):
        record.rejected(Layer.HTTP, f"10.0.{number}.1", "it knocked")
        record.rejected(Layer.TOKEN, "10.1.1.1", "its token is old")
    assert len(record.kept_out) == KEPT_OUT_MAX
    last = record.kept_out[Layer.TOKEN, "10.1.1.1"]
    assert (last.count, "--region-secret-file" in last.what_to_do) == (3 * KEPT_OUT_MAX, True)


def test_bytes_of_peers_are_counted_in_all_and_for_the_last_minute() -> None:
    counted, first = PeerBytes(), Identity.generate().peer_id
    for second in range(120):
        counted.add(first, 100, float(second))
    (row,) = counted.document(119.0)
    assert row["bytes"] == 12_000
    assert 5_500 <= row["minute"] <= 6_500
    assert counted.document(1000.0)[0]["minute"] == 0
    for _ in range(2 * PEERS_MAX):
        counted.add(Identity.generate().peer_id, 1, 1000.0)
    assert len(counted.document(1000.0)) == PEERS_MAX


def test_requests_since_a_total_are_the_new_ones() -> None:
    recent = RecentRequests()
    for number in range(300):
        recent.add("GET", f"key-{number}", "store", "served", "node")
    assert [one.key for one in recent.since(298)] == ["key-299", "key-298"]
    assert recent.since(300) == recent.since(500) == []
    assert (len(recent.since(0)), len(recent.since(0, 10))) == (200, 10)
