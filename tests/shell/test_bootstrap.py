"""The kinds of bootstrap and the driver."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from random import Random

import pytest
from aiohttp import web

from speil.libp2p.identity import Identity
from speil.multiformats.multiaddr import Multiaddr
from speil.multiformats.peer_info import PeerInfo
from speil.observe.metrics import Metrics
from speil.observe.seldom import Seldom
from speil.routing.bootstrap.base import BootstrapError
from speil.routing.bootstrap.dns import DnsBootstrapper
from speil.routing.bootstrap.driver import Bootstrap
from speil.routing.bootstrap.http import HttpBootstrapper
from speil.routing.dht import DhtRouter
from speil.routing.peerstore import FILE_NAME, PEERS_MAX, Peerstore
from speil.setting import ListenAddress
from speil.testing.eventually import eventually
from speil.testing.network import MemoryWire
from tests.shell.nodes import free_ports

LOCAL = PeerInfo(Identity.generate().peer_id, (Multiaddr.parse("/ip4/10.0.0.1/tcp/5001"),))
OTHER = PeerInfo(Identity.generate().peer_id, (Multiaddr.parse("/ip4/10.0.0.2/tcp/5001"),))


async def test_dns_takes_the_first_addresses_of_each_family_and_not_its_own() -> None:
    found = await DnsBootstrapper("localhost", 5001).find(LOCAL)
    assert Multiaddr.parse("/ip4/127.0.0.1/tcp/5001") in found
    own = PeerInfo(LOCAL.peer_id, tuple(found))
    assert await DnsBootstrapper("localhost", 5001).find(own) == []


async def test_dns_gives_the_first_three_of_each_family_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    names = [f"10.0.0.{number}" for number in (9, 1, 10, 2)] + [f"fd00::{number}" for number in (4, 3, 2, 1)]

    async def resolve(host: str, port: int, **options: object) -> list[tuple[object, ...]]:
        assert (host, port) == ("peers.test", 5001)
        return [(0, 0, 0, "", (name, port)) for name in names]

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", resolve)
    found = await DnsBootstrapper("peers.test", 5001).find(LOCAL)
    hosts = ["10.0.0.2", "10.0.0.9", "10.0.0.10", "fd00::1", "fd00::2", "fd00::3"]
    assert [address.tcp for address in found] == [(host, 5001) for host in hosts], "its own, 10.0.0.1, is left out"


async def test_a_name_that_does_not_exist_is_an_error_that_names_it() -> None:
    with pytest.raises(BootstrapError, match=r"nowhere\.invalid"):
        await DnsBootstrapper("nowhere.invalid", 5001).find(LOCAL)


@asynccontextmanager
async def page(text: str, status: int = 200) -> AsyncIterator[str]:
    """A web server with one answer; its URL."""

    async def answer(request: web.BaseRequest) -> web.Response:
        return web.Response(text=text, status=status)

    runner = web.ServerRunner(web.Server(answer))
    await runner.setup()
    (port,) = free_ports("127.0.0.1", 1)
    await web.TCPSite(runner, "127.0.0.1", port).start()
    yield f"http://127.0.0.1:{port}/id"
    await runner.cleanup()


@pytest.mark.parametrize(
    "text",
    [
        json.dumps({"ID": str(OTHER.peer_id), "Addrs": ["/ip4/10.0.0.2/tcp/5001"]}),
        str(OTHER.addresses[0].with_peer_id(OTHER.peer_id)),
    ],
    ids=["json", "multiaddr"],
)
async def test_http_understands_both_generations(text: str) -> None:
    async with page(text) as url:
        assert await HttpBootstrapper(url, None).find(LOCAL) == [OTHER.addresses[0].with_peer_id(OTHER.peer_id)]


@pytest.mark.parametrize(("text", "status"), [("", 200), ("{}", 200), ("/nonsense", 200), ("x", 503)])
async def test_http_says_what_is_wrong_with_an_answer(text: str, status: int) -> None:
    async with page(text, status) as url:
        with pytest.raises(BootstrapError, match="http://127"):
            await HttpBootstrapper(url, None).find(LOCAL)
    with pytest.raises(BootstrapError, match="can't be requested"):
        await HttpBootstrapper("http://127.0.0.1:1/id", None).find(LOCAL)


async def test_http_serves_what_http_asks_for() -> None:
    (port,) = free_ports("127.0.0.1", 1)
    served = HttpBootstrapper("", ListenAddress("127.0.0.1", port))
    asking = HttpBootstrapper(f"http://127.0.0.1:{port}/id", None)

    async def found() -> bool:
        try:
            return await asking.find(LOCAL) == [OTHER.addresses[0].with_peer_id(OTHER.peer_id)]
        except BootstrapError:
            return False

    async with asyncio.TaskGroup() as group:
        task = group.create_task(served.run(lambda: OTHER))
        await eventually(found, what="the id is served")
        assert await asking.find(OTHER) == [], "itself is nobody to dial"
        task.cancel()


def test_known_peers_are_kept_and_a_damaged_list_is_none(tmp_path: Path) -> None:
    store = Peerstore(tmp_path)
    assert store.load() == []
    many = [PeerInfo(Identity.generate().peer_id, OTHER.addresses) for _ in range(PEERS_MAX + 10)]
    store.save([OTHER, *many])
    loaded = store.load()
    assert loaded[0] == OTHER.addresses[0].with_peer_id(OTHER.peer_id)
    assert len(loaded) == PEERS_MAX
    for text in ("", "nonsense", "{}", '["/nope"]', "[3]", "[" * 60_000):
        (tmp_path / FILE_NAME).write_text(text)
        assert store.load() == []
    (tmp_path / FILE_NAME).unlink()
    os.mkfifo(tmp_path / FILE_NAME)
    assert store.load() == [], "a pipe is not waited for"
    assert Peerstore(None).load() == []


class Source:
    """A bootstrapper that a test steers."""

    kind = "test"

    def __init__(self) -> None:
        self.peers: list[Multiaddr] = []
        self.fails = False
        self.asked = 0

    async def find(self, local: PeerInfo) -> list[Multiaddr]:
        self.asked += 1
        if self.fails:
            raise BootstrapError("away")
        return self.peers

    async def run(self, local: Callable[[], PeerInfo]) -> None:
        """Nothing."""


@asynccontextmanager
async def node(wire: MemoryWire, source: Source, data_dir: Path | None = None) -> AsyncIterator[DhtRouter]:
    metrics = Metrics()
    router = DhtRouter(wire.new_node(), Bootstrap(source, Peerstore(data_dir), metrics, Random(1)), metrics, Random(1))
    async with asyncio.TaskGroup() as group:
        task = group.create_task(router.run())
        yield router
        task.cancel()


async def test_readiness_waits_for_the_sources_first_answer() -> None:
    source = Source()
    source.fails = True
    async with node(MemoryWire(), source) as router:
        await eventually(lambda: source.asked > 2, what="it asks again")
        assert not router.ready
        source.fails = False
        await eventually(lambda: router.ready, timeout_seconds=20, what="alone is a decision")


async def test_a_peer_that_comes_makes_ready_whatever_the_source_does() -> None:
    wire, away, working = MemoryWire(), Source(), Source()
    away.fails = True
    async with node(wire, away) as one:
        working.peers = [one.local.addresses[0]]
        async with node(wire, working) as other:
            await eventually(lambda: one.ready and other.ready, what="both are ready")


async def test_a_restarted_node_rejoins_from_known_peers_while_the_source_is_away(tmp_path: Path) -> None:
    wire, source, quiet = MemoryWire(), Source(), Source()
    async with node(wire, quiet) as other:
        source.peers = [other.local.addresses[0]]
        async with node(wire, source, tmp_path) as router:
            await eventually(lambda: router.peers(), what="it joined")
        away = Source()
        away.fails = True
        async with node(wire, away, tmp_path) as again:
            await eventually(lambda: again.ready and again.peers(), what="it rejoined")


class HangingSource(Source):
    """An API that takes the question and does not answer."""

    async def find(self, local: PeerInfo) -> list[Multiaddr]:
        self.asked += 1
        await asyncio.Event().wait()
        raise AssertionError


async def test_known_peers_are_dialled_and_make_ready_while_the_source_hangs(tmp_path: Path) -> None:
    wire, hanging = MemoryWire(), HangingSource()
    async with node(wire, Source()) as other:
        Peerstore(tmp_path).save([other.local])
        async with node(wire, hanging, tmp_path) as router:
            await eventually(lambda: router._bootstrap.decided and router.peers(), what="it joined from its list")
            assert router.ready
            assert hanging.asked == 1


async def test_a_failure_that_lasts_is_said_again_and_again_but_seldom(caplog: pytest.LogCaptureFixture) -> None:
    now = [0.0]
    metrics, source = Metrics(), Source()
    source.fails = True
    bootstrap = Bootstrap(source, Peerstore(None), metrics, Random(1))
    bootstrap._failure = Seldom(clock=lambda: now[0])
    network = MemoryWire().new_node()
    lines = 0
    with caplog.at_level("WARNING", logger="speil"):
        for second in range(0, 300, 2):
            now[0] = second
            assert await bootstrap._ask(network) == (False, [])
            lines = sum("bootstrap failed" in record.message for record in caplog.records)
        assert lines == 5, "once a minute"
        source.fails = False
        assert await bootstrap._ask(network) == (True, [])
        source.fails = True
        now[0] = 310
        await bootstrap._ask(network)
    assert sum("bootstrap failed" in record.message for record in caplog.records) == 6, "it had worked: news again"


async def test_peers_that_are_named_and_can_not_be_joined_are_said(caplog: pytest.LogCaptureFixture) -> None:
    wire, source = MemoryWire(), Source()
    source.peers = [Multiaddr.parse("/ip4/10.9.9.9/tcp/5001")]
    with caplog.at_level("WARNING", logger="speil"):
        async with node(wire, source) as router:
            source.peers.append(router.local.addresses[0])  # itself, as one configuration for all nodes has it
            await eventually(lambda: router.ready, what="alone is a decision")
            await eventually(lambda: source.asked > 3, what="it asks again")
            asked = source.asked
            source.peers.clear()
            source.peers.append(router.local.addresses[0])
            await eventually(lambda: source.asked > asked + 1, what="and again, naming this node alone")
    said = [record for record in caplog.records if "can be joined" in record.message]
    assert len(said) == 1
    assert "/ip4/10.9.9.9/tcp/5001" in str(getattr(said[0], "fields", ""))


async def test_a_table_that_ran_dry_is_filled_again() -> None:
    wire, source, quiet = MemoryWire(), Source(), Source()
    async with node(wire, quiet) as first, node(wire, quiet) as second:
        source.peers = [first.local.addresses[0]]
        async with node(wire, source) as router:
            await eventually(lambda: len(router.peers()) == 1, what="it joined")
            asked = source.asked
            source.peers = [second.local.addresses[0]]
            wire.kill(first.local.peer_id)
            await eventually(lambda: source.asked > asked, what="the source is asked again")
            await eventually(lambda: second.local in router.peers(), timeout_seconds=20, what="it joined elsewhere")
