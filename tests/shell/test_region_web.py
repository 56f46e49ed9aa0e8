"""`speil region web`: who may open it, what it reads and how often, and the checks that run from it."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import pytest
from aiohttp import web as web_server

from speil.overview.view import FromPeer, NodeView, RegionView, Traffic
from speil.region_web import collector as collector_module
from speil.region_web.collector import Collector
from speil.region_web.server import RegionWeb
from speil.region_web.session import Session, redirect_file
from speil.survey.error import SurveyError
from speil.survey.look import ClusterSettings, SurveySettings, looking
from speil.survey.node_state import read_state
from speil.survey.nodes import ASKED_AT_ONCE_MAX
from speil.testing.eventually import eventually
from tests.shell.nodes import free_ports
from tests.shell.test_cli import running, speil

EU_NODE = NodeView("n1", region="eu", zone="z1", peer_id="p1", ready=True, leads=True, started_at=1.0)
EU = RegionView("eu", (), (EU_NODE,))
US = RegionView("us", (), (NodeView("n2", region="us", zone="z2", peer_id="p2", ready=True, started_at=1.0),))


@dataclass
class Regions:
    """What a look returns; `looks` counts them."""

    views: list[RegionView] = field(default_factory=lambda: [EU, US])
    error: str = ""
    looks: int = 0

    async def look(self) -> list[RegionView]:
        self.looks += 1
        if self.error:
            raise SurveyError(self.error)
        return self.views


@dataclass
class Web:
    url: str
    session: Session
    regions: Regions
    client: aiohttp.ClientSession

    @property
    def cookie(self) -> dict[str, str]:
        return {"Cookie": self.session.set_cookie[1].partition(";")[0]}

    async def ask(self, path: str, method: str = "GET", **headers: str) -> tuple[int, str]:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        async with self.client.request(method, self.url + path, headers=named, allow_redirects=False) as response:
            return response.status, await response.text()


@asynccontextmanager
async def web(interval_seconds: float = 0.05) -> AsyncIterator[Web]:
    regions = Regions()
    collector = Collector(regions.look, interval_seconds)
    collector.show(await regions.look(), 0.0)
    (port,) = free_ports("127.0.0.1", 1)
    session = Session(port)
    async with (
        asyncio.TaskGroup() as group,
        RegionWeb(collector, session).serve(port),
        aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar()) as client,
    ):
        task = group.create_task(collector.run())
        yield Web(session.url.rstrip("/"), session, regions, client)
        task.cancel()


async def events(response: aiohttp.ClientResponse, count: int) -> list[tuple[str, dict[str, object]]]:
    """The next events."""
    found: list[tuple[str, dict[str, object]]] = []
    name = ""
    while len(found) < count and (line := (await response.content.readline()).decode()):
        kind, _, value = line.rstrip("\n").partition(": ")
        if kind == "event":
            name = value
        elif kind == "data":
            found.append((name, json.loads(value)))
    return found


# --- who may open it -------------------------------------------------------------------------------------------


async def test_only_who_has_the_token_gets_anything() -> None:
    async with web() as page:
        for path in ("/", "/events", "/page.css", "/?token=", "/?token=wrong", "/nothing"):
            assert (await page.ask(path))[0] == 403, path
        assert "has printed" in (await page.ask("/"))[1]
        assert (await page.ask("/verify", "POST"))[0] == 403
        assert (await page.ask("/", Cookie=f"speil-1={'x' * 32}"))[0] == 403
        async with page.client.get(page.session.url_with_token, allow_redirects=False) as response:
            assert (response.status, response.headers["Location"]) == (303, "/")
            cookie = response.headers["Set-Cookie"]
        assert "HttpOnly" in cookie
        assert "SameSite=Lax" in cookie
        status, text = await page.ask("/", Cookie=cookie.partition(";")[0])
        assert (status, "all regions" in text) == (200, True)
        for name in ("region.js", "map.js", "show.js", "page.css", "icon.svg"):
            assert (await page.ask(f"/{name}", **page.cookie))[0] == 200
        assert (await page.ask("/node.js", **page.cookie))[0] == 404
        assert (await page.ask("/", "PUT", **page.cookie))[0] == 405


async def test_another_page_can_do_nothing_with_the_users_cookie() -> None:
    async with web() as page:
        own = urlsplit(page.url).netloc
        for headers, status in (
            ({"Origin": "http://evil.example"}, 403),
            ({"Origin": "http://127.0.0.1:1"}, 403),
            ({"Origin": "http://[::1"}, 403),
            ({"Origin": page.url, "Sec_Fetch_Site": "cross-site"}, 403),
            ({"Host": "evil.example", "Origin": "http://evil.example"}, 421),
        ):
            assert (await page.ask("/verify?observe=0s", "POST", **page.cookie, **headers))[0] == status, headers
        assert page.regions.looks <= 2, "nothing was read for them"
        assert (await page.ask("/", Host="evil.example", **page.cookie))[0] == 421
        assert (await page.ask("/verify?observe=0s", "GET", **page.cookie))[0] == 404, "a GET starts nothing"
        accepted = {"Origin": f"http://{own}", "Sec_Fetch_Site": "same-origin"}
        assert (await page.ask("/verify?observe=0s", "POST", **page.cookie, **accepted))[0] == 200


def test_the_file_that_leads_the_browser_is_the_users_alone_and_gone_afterwards() -> None:
    with redirect_file("http://127.0.0.1:1/?token=a&b") as uri:
        file = Path(urlsplit(uri).path)
        assert "token" not in uri
        assert file.parent.stat().st_mode & 0o077 == 0
        assert 'url=http://127.0.0.1:1/?token=a&amp;b"' in file.read_text()
    assert not file.exists()


# --- what it reads ---------------------------------------------------------------------------------------------


async def test_a_page_gets_all_sections_and_then_what_changed() -> None:
    async with web() as page, page.client.get(f"{page.url}/events", headers=page.cookie) as response:
        first = await events(response, 9)
        names = [name for name, _ in first]
        assert sorted(set(names)) == ["border", "kept_out", "region", "rollouts", "steps", "summary", "verify"]
        crossings = next(data for name, data in first if name == "border")["crossings"]
        assert crossings == [
            {"source": "eu", "target": "us", "total": 0, "minute": 0},
            {"source": "us", "target": "eu", "total": 0, "minute": 0},
        ]  # fmt: skip
        received = replace(EU.nodes[0], from_peers={"p2": FromPeer(7, 7)}, traffic={"r": Traffic(peer_bytes=7)})
        page.regions.views = [replace(EU, nodes=(received,)), US]
        async with asyncio.timeout(20):
            while True:
                ((name, data),) = await events(response, 1)
                if name == "border":
                    break
        assert {"source": "us", "target": "eu", "total": 7, "minute": 7} in data["crossings"]  # type: ignore[operator]


async def test_a_node_that_can_not_be_read_stays_in_its_region() -> None:
    async with web() as page, page.client.get(f"{page.url}/events", headers=page.cookie) as response:
        lost = RegionView("?", (), (NodeView("n2", error="refused"),))
        page.regions.views = [lost, EU]
        async with asyncio.timeout(20):
            while True:
                ((name, data),) = await events(response, 1)
                if name == "region" and data["region"] == "us" and data["errors"]:
                    break
        assert data["errors"] == ["n2: refused"]
        assert data["nodes"][0]["zone"] == "z2"  # type: ignore[index]


async def test_regions_are_read_seldom_while_no_page_is_open_and_an_error_is_shown(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(collector_module, "UNWATCHED_SECONDS", 3600.0)
    async with web() as page:
        await eventually(lambda: page.regions.looks >= 2)
        before = page.regions.looks
        assert (await page.ask("/", **page.cookie))[0] == 200
        assert page.regions.looks == before
        page.regions.error = "no cluster"
        async with page.client.get(f"{page.url}/events", headers=page.cookie) as response, asyncio.timeout(20):
            while True:
                ((name, data),) = await events(response, 1)
                if name == "summary" and data["error"]:
                    break
        assert (data["error"], data["nodes"]) == ("no cluster", 2), "with what was read last"


async def test_the_checks_run_once_at_a_time_and_their_result_stays() -> None:
    async with web() as page:

        async def check(seconds: str) -> tuple[int, str]:
            return await page.ask(f"/verify?observe={seconds}", "POST", **page.cookie)

        first, second = await asyncio.gather(check("1s"), check("1s"))
        assert sorted((first[0], second[0])) == [200, 409]
        found = json.loads(first[1] if first[0] == 200 else second[1])
        assert {one["level"] for one in found["findings"]} == {"fail", "ok"}
        assert (await check("61s"))[0] == 400
        assert (await check("soon"))[0] == 400
        async with page.client.get(f"{page.url}/events", headers=page.cookie) as response:
            verify = dict(await events(response, 9))["verify"]
        assert verify["findings"] == found["findings"]
        assert verify["is_running"] is False
        page.regions.error = "no cluster"
        assert await check("0s") == (502, "no cluster\n")


# --- the state of a node ---------------------------------------------------------------------------------------


STATE: dict[str, Any] = {
    "region": "eu", "zone": "z1", "lease": "", "peer_id": "p1", "ready": True, "started_at": 1.5,
    "rejected": {"http": 2},
    "peers": [{"peer": "p2", "hosts": "10.0.0.2"}], "traffic": {"r": {"hits": 1, "peer_bytes": 7}},
    "from_peers": [{"peer": "p2", "bytes": 7, "minute": 3}], "addresses": "/ip4/10.0.0.1/tcp/5001",
    "transfers": [{"key": "k", "role": "following", "peer": "p2", "offset": 1, "total": 9, "seconds": 1.0}],
    "requests_in_flight": [
        {"key": "k", "role": "getting", "peer": "p2", "offset": 1, "total": 9, "image": "r/a"},
        {"key": "k", "role": "serving", "peer": "10.0.0.3", "offset": 1, "total": 9, "image": "r/a"},
    ],
    "kept_out": [{"layer": "http", "who": "x", "why": "y", "what_to_do": "z", "count": 2, "time": 5.0}],
}  # fmt: skip


def test_a_state_is_read_with_each_body_once() -> None:
    found = read_state("n", json.dumps(STATE))
    assert found is not None
    assert (found.total.peer_bytes, found.started_at, found.hosts) == (7, 1.5, ("10.0.0.1",))
    assert [(one.role, one.peer) for one in found.in_flight] == [("following", "p2"), ("serving", "10.0.0.3")]
    assert found.from_peers == {"p2": FromPeer(7, 3)}
    assert read_state("n", '{"region": "eu"}') is None, "of an older version"


@pytest.mark.parametrize(
    "change",
    [
        {"traffic": [1]}, {"traffic": {"r": 1}}, {"traffic": {"r": {"hits": "1"}}}, {"peers": {"a": 1}},
        {"peers": ["x"]},
        {"from_peers": [{"peer": "p", "bytes": 1e400, "minute": 0}]}, {"started_at": float("nan")}, {"region": 5},
        {"from_peers": [{"peer": "p", "bytes": -1, "minute": 0}]}, {"kept_out": [{"layer": []}]}, {"transfers": 7},
        {"requests_in_flight": [{"key": {"a": 1}}]}, {"rejected": {"http": "<b>"}}, {"peer_id": None},
    ],
    ids=str,
)  # fmt: skip
def test_a_state_that_is_no_speils_is_an_error_of_that_node_alone(change: dict[str, Any]) -> None:
    with pytest.raises((ValueError, KeyError, TypeError)):
        read_state("n", json.dumps({**STATE, **change}))


# --- the command -----------------------------------------------------------------------------------------------


async def test_the_command_prints_its_address_and_ends_on_a_signal(tmp_path: Path) -> None:
    file = tmp_path / "x.lease"
    file.write_text('{"metadata": {"annotations": {"speil.dev/region": "x"}}, "spec": {"holderIdentity": "somebody"}}')
    async with running("region", "web", "--no-browser", f"--lease-files={file}") as process, asyncio.timeout(30):
        assert process.stdout is not None
        line = (await process.stdout.readline()).decode()
        match = re.fullmatch(r"all regions: (http://127\.0\.0\.1:(\d+)/\?token=\S{20,})\n", line)
        assert match, line
        jar = aiohttp.CookieJar(unsafe=True)  # it keeps cookies of IP addresses too, as browsers do
        async with aiohttp.ClientSession(cookie_jar=jar) as session, session.get(match[1]) as response:
            assert response.status == 200
            assert response.url.path == "/"
        code, _, err = await speil("region", "web", "--no-browser", f"--port={match[2]}", f"--lease-files={file}")
        assert (code, "--port: 127.0.0.1:" in err, "in use" in err) == (1, True, True)
        process.terminate()
        assert await process.wait() == 143
    assert (await speil("region", "web", "--port=70000"))[0] == 2
    code, _, err = await speil("region", "web", "--no-browser", f"--kubeconfig-path={tmp_path}/none")
    assert code == 1
    assert "Traceback" not in err


async def test_the_browser_is_opened_through_a_file_and_not_with_the_token(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lease, opened, browser, pid = (tmp_path / name for name in ("x.lease", "opened", "browser", "pid"))
    lease.write_text('{"metadata": {"annotations": {"speil.dev/region": "x"}}, "spec": {"holderIdentity": "somebody"}}')
    copied = f'echo "$1" > {opened}.new; cp "${{1#file://}}" {tmp_path}/page; mv {opened}.new {opened}'
    stays = f"echo $$ > {pid}; exec sleep 3600 </dev/null >/dev/null 2>&1"  # as a browser does
    browser.write_text(f"#!/bin/sh\n{copied}\n{stays}\n")
    browser.chmod(0o755)
    command = ("region", "web", f"--lease-files={lease}")
    monkeypatch.setenv("BROWSER", str(browser))
    monkeypatch.setenv("DISPLAY", ":9")
    async with running(*command) as process, asyncio.timeout(30):
        assert process.stdout is not None
        address = (await process.stdout.readline()).decode().removeprefix("all regions: ").strip()
        await eventually(opened.exists, what="the browser is started")
        assert opened.read_text().startswith("file:///")
        assert address.partition("token=")[2] not in opened.read_text()
        assert address in (tmp_path / "page").read_text()
        await eventually(lambda: pid.exists() and pid.read_text().endswith("\n"), what="the browser stays")
        process.terminate()
        assert await process.wait() == 143
    os.kill(int(pid.read_text()), signal.SIGTERM)
    assert not Path(opened.read_text().strip().removeprefix("file://")).exists(), "the file is gone with the command"


# --- a cluster -------------------------------------------------------------------------------------------------


async def test_a_cluster_is_read_by_one_client_and_a_bounded_number_of_requests_at_once(tmp_path: Path) -> None:
    """An API server with 100 pods, each of which is asked for its brief state alone."""
    asked: list[str] = []
    now = most = 0

    async def answer(request: web_server.Request) -> web_server.StreamResponse:
        nonlocal now, most
        if request.path.endswith("/pods"):
            pods = [
                {
                    "metadata": {"name": f"speil-{number}", "namespace": "speil"},
                    "spec": {"nodeName": f"node-{number}"},
                    "status": {"phase": "Running"},
                }
                for number in range(100)
            ]
            return web_server.json_response({"items": pods})
        if request.path.endswith("/leases"):
            return web_server.json_response({"items": []})
        now, most = now + 1, max(most, now + 1)
        asked.append(request.path_qs)
        await asyncio.sleep(0)
        now -= 1
        return web_server.Response(text=json.dumps(STATE))

    app = web_server.Application()
    app.router.add_route("*", "/{path:.*}", answer)
    runner = web_server.AppRunner(app)
    await runner.setup()
    (port,) = free_ports("127.0.0.1", 1)
    await web_server.TCPSite(runner, "127.0.0.1", port).start()
    config = {
        "current-context": "c",
        "contexts": [{"name": "c", "context": {"cluster": "k", "user": "u"}}],
        "clusters": [{"name": "k", "cluster": {"server": f"http://127.0.0.1:{port}"}}],
        "users": [{"name": "u", "user": {}}],
    }
    (tmp_path / "kubeconfig").write_text(json.dumps(config))
    settings = SurveySettings(ClusterSettings(kubeconfig_path=str(tmp_path / "kubeconfig")))
    try:
        async with looking(settings) as look:
            for _ in range(2):
                (view,) = await look()
    finally:
        await runner.cleanup()
    assert (view.region, len(view.nodes)) == ("eu", 100)
    assert {path.partition(":9090")[2] for path in asked} == {"/proxy/debug/state?brief=true"}
    assert len(asked) == 200
    assert 1 < most <= ASKED_AT_ONCE_MAX
