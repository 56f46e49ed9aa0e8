"""Every public coroutine of libp2p and routing, cancelled at each of its suspensions: no task outlives its caller."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from random import Random
from typing import Any

import pytest

from speil.claims.message import Ask, Ending, Release
from speil.election.ownership import Owner
from speil.kad.key import Key
from speil.kad.message import Message, MessageType
from speil.kad.routing_table import RoutingTable
from speil.lease.memory import MemoryLease
from speil.libp2p import ping
from speil.libp2p.connection import Connection
from speil.libp2p.host import Host
from speil.libp2p.stream import Stream
from speil.multiformats.content_key import content_key
from speil.multiformats.multiaddr import Multiaddr
from speil.multiformats.peer_info import PeerInfo
from speil.observe.metrics import Metrics
from speil.routing.announce import Announcer, AnnounceSettings
from speil.routing.bootstrap.base import Bootstrapper
from speil.routing.bootstrap.dns import DnsBootstrapper
from speil.routing.bootstrap.driver import Bootstrap
from speil.routing.bootstrap.http import HttpBootstrapper
from speil.routing.bootstrap.lease import LeaseBootstrapper
from speil.routing.bootstrap.static import StaticBootstrapper
from speil.routing.dht import DhtRouter
from speil.routing.libp2p_network import Libp2pNetwork
from speil.routing.lookups import Lookups
from speil.routing.memory import MemoryMesh, MemoryRouter
from speil.routing.peerstore import Peerstore
from speil.setting import ListenAddress
from speil.store.memory import MemoryStore
from speil.testing.cancellation import AnyTask, cancel_at_each_step
from speil.testing.claim_network_conformance import Statuses
from speil.testing.eventually import eventually
from speil.testing.images import random_image
from tests.shell.hostile_peer import Victim
from tests.shell.lease_region import FAST
from tests.shell.mesh import dht_node, new_host, providers
from tests.shell.mirrors import peer_at

ECHO = "/echo/1.0.0"
KEY = "sha256:" + "ab" * 32
# The host owns these tasks. A call that is cancelled may leave them: `at_rest` checks that they end.
_OF_THE_HOST = {"_Dial.run", "ConnectionTable._keep", "Listener._serve", "StreamServer._serve"}


def owned_by_a_host(task: AnyTask) -> bool:
    """Whether a task belongs to a host and not to whoever caused it."""
    return _name(task) in _OF_THE_HOST


def _name(task: AnyTask) -> str:
    return getattr(task.get_coro(), "__qualname__", "")


async def _echo(stream: Stream) -> None:
    while data := await stream.read():
        await stream.write(data)
    stream.close_write()


@dataclass
class Pair:
    """Two hosts; `connection` is from `host` to `target`."""

    host: Host
    target: Host
    connection: Connection
    tasks: int

    async def at_rest(self) -> None:
        """Wait until only the connection itself is left: no stream, no dial, no slot, no byte, no task."""
        for one in self.host.connections:
            if one is not self.connection:
                one.abort()

        def check() -> bool:
            assert self.host.connections == [self.connection]
            assert self.connection.stream_count == self.connection._slots.used == 0
            assert self.host._dialer.count == self.host.held_bytes == 0
            assert len(asyncio.all_tasks()) <= self.tasks
            return True

        await eventually(check, what="nothing is left of the call")


@asynccontextmanager
async def pair() -> AsyncIterator[Pair]:
    async with new_host() as target, new_host() as host:
        target.set_handler(ECHO, _echo)
        connection = await host.connect(target.local)
        await eventually(lambda: target.connections, what="both sides are connected")
        yield Pair(host, target, connection, len(asyncio.all_tasks()))


# --- libp2p -------------------------------------------------------------------------------------------------------


async def _connect(pair: Pair) -> None:
    async with new_host() as third:
        await third.connect(pair.target.local)
        await third.connect(pair.host.local.addresses[0])


async def _host_lives(pair: Pair) -> None:
    async with new_host():
        pass


async def _open_stream(pair: Pair) -> None:
    (await pair.host.open_stream(pair.target.local, ECHO)).reset()


async def _write_and_read(pair: Pair) -> None:
    async with await pair.connection.open_stream(ECHO) as stream:
        await stream.write(bytes(300_000))
        assert await stream.has_more()
        await stream.read(1000)
        await stream.read_exactly(299_000)


async def _messages(pair: Pair) -> None:
    async with await pair.connection.open_stream(ECHO) as stream:
        await stream.write_message(bytes(300_000))
        await stream.read_message(1 << 20)


async def _ping(pair: Pair) -> None:
    async with await pair.connection.open_stream(ping.PROTOCOL) as stream:
        await stream.write(bytes(ping.BYTES))
        await stream.read_exactly(ping.BYTES)


@pytest.mark.parametrize("call", [_connect, _host_lives, _open_stream, _write_and_read, _messages, _ping])
async def test_libp2p(call: Callable[[Pair], Coroutine[Any, Any, None]]) -> None:
    async with pair() as two:
        steps = await cancel_at_each_step(lambda: call(two), owned=owned_by_a_host, afterwards=two.at_rest)
        assert steps > 0


async def test_a_dial_that_others_share_goes_on() -> None:
    async with new_host() as target, new_host() as host:

        async def share() -> None:
            async with asyncio.TaskGroup() as group:
                other = group.create_task(host.connect(target.local))
                await host.connect(target.local)
                await other

        async def apart() -> None:
            for one in host.connections:
                one.abort()
            await eventually(lambda: not (host.connections or target.connections or host._dialer.count))

        await cancel_at_each_step(share, owned=owned_by_a_host, afterwards=apart)


async def test_closed_and_admitted_are_waited_for() -> None:
    async with pair() as two:
        await cancel_at_each_step(two.connection.wait_closed, endless=True, afterwards=two.at_rest)


# --- routing ------------------------------------------------------------------------------------------------------


@dataclass
class Mesh:
    """Two nodes of a DHT that know each other, and what a node needs."""

    near: DhtRouter
    far: DhtRouter


@asynccontextmanager
async def mesh() -> AsyncIterator[Mesh]:
    status = Statuses().of
    async with dht_node(status=status) as far, dht_node(far.local.addresses[0], status=status) as near:
        await eventually(lambda: near.peers() and far.peers(), what="the nodes have met")
        yield Mesh(near, far)


async def _find(mesh: Mesh) -> None:
    await providers(mesh.near, KEY)


async def _refresh(mesh: Mesh) -> None:
    await mesh.near._lookups.refresh()


async def _lookup(mesh: Mesh) -> None:
    await mesh.near._lookups.run(content_key(KEY), MessageType.GET_PROVIDERS, lambda message: None)


async def _request(mesh: Mesh) -> None:
    await mesh.near._network.request(mesh.far.local, Message(MessageType.PING))


async def _announce(mesh: Mesh) -> None:
    await mesh.near._network.announce(mesh.far.local, [Key.of(KEY)])


async def _ask(mesh: Mesh) -> None:
    await mesh.near.claims.ask(mesh.far.claims.local, content_key(KEY), Ask(dead=(mesh.near.local.peer_id,)))


async def _ask_status(mesh: Mesh) -> None:
    await mesh.near.claims.ask_status(mesh.far.claims.local, content_key(KEY))


async def _release(mesh: Mesh) -> None:
    await mesh.near.claims.release(mesh.far.claims.local, content_key(KEY), Release(Ending.CANCELLED))


async def _dial(mesh: Mesh) -> None:
    await mesh.near._network.dial(mesh.far.local.addresses[0])


def owned_by_a_router(task: AnyTask) -> bool:
    """A search and its requests belong to the router: they go on for the next caller."""
    return owned_by_a_host(task) or _name(task) in {"DhtRouter._run_search", "Lookups.run.<locals>.ask"}


@pytest.mark.parametrize(
    ("call", "owned"),
    [
        (_find, owned_by_a_router),
        (_refresh, owned_by_a_host),
        (_lookup, owned_by_a_host),
        (_request, owned_by_a_host),
        (_announce, owned_by_a_host),
        (_ask, owned_by_a_host),
        (_ask_status, owned_by_a_host),
        (_release, owned_by_a_host),
        (_dial, owned_by_a_host),
    ],
)
async def test_requests_of_the_dht(
    call: Callable[[Mesh], Coroutine[Any, Any, None]], owned: Callable[[AnyTask], bool]
) -> None:
    async with mesh() as two:
        before = len(asyncio.all_tasks())

        async def at_rest() -> None:
            two.near._searches.clear()
            await eventually(lambda: len(asyncio.all_tasks()) <= before + 4, what="only served streams are left")

        await cancel_at_each_step(lambda: call(two), owned=owned, afterwards=at_rest)


async def test_a_lookup_whose_peers_do_not_answer() -> None:
    victim = Victim()
    async with victim.host, new_host() as host:
        victim.network.attach(lambda *_: None, lambda *_: None, lambda *_: None)
        network = Libp2pNetwork(host, "/t", Metrics(), victim.network._record)
        network.attach(lambda *_: None, lambda *_: None, lambda *_: None)
        table = RoutingTable(host.local.peer_id)
        table.add(victim.host.local, 0.0)
        lookups = Lookups(network, table, Metrics(), lambda: None)
        run = partial(lookups.run, content_key(KEY), MessageType.FIND_NODE)

        async def apart() -> None:
            for one in host.connections:
                one.abort()
            await eventually(lambda: not (host.connections or victim.host.connections), what="both are apart")

        await cancel_at_each_step(run, owned=owned_by_a_host, endless=True, afterwards=apart)
        assert len(table) == 1, "a cancelled lookup counts no failure"


async def _run_router(seeds: tuple[Multiaddr, ...]) -> None:
    async with dht_node(*seeds) as router:
        await router.provide([KEY])
        await asyncio.Event().wait()


async def _run_bootstrap(bootstrapper: Bootstrapper, seeds: tuple[Multiaddr, ...]) -> None:
    async with new_host() as host:
        network = Libp2pNetwork(host, "/spegel", metrics := Metrics(), Victim().network._record)
        network.attach(lambda *_: None, lambda *_: None, lambda *_: None)
        bootstrap = Bootstrap(bootstrapper, Peerstore(None), metrics, Random(1))

        async def refresh() -> None:
            await asyncio.sleep(0)

        await bootstrap.run(network, lambda: len(host.connections), refresh)


def _store() -> MemoryStore:
    store, image = MemoryStore(), random_image(1)
    for data in image.blobs.values():
        store.put(data)
    store.tag("reg.test/lab/app:1", image.index.digest)
    return store


async def _run_announcer(store: MemoryStore, method: str) -> None:
    settings = AnnounceSettings(resolve_tags=True)
    announcer = Announcer(store, MemoryRouter(MemoryMesh(), peer_at("10.0.0.1", 1)), settings, Metrics())
    await getattr(announcer, method)()


async def _run_lease(local: PeerInfo) -> None:
    lease = LeaseBootstrapper("file", MemoryLease(), FAST, Owner("r", ""), Metrics(), Random(1))
    async with asyncio.TaskGroup() as group:
        group.create_task(lease.run(lambda: local))
        await lease.find(local)
        await asyncio.Event().wait()


async def _run_memory_router() -> None:
    await MemoryRouter(MemoryMesh(), peer_at("10.0.0.1", 1)).run()


@pytest.mark.parametrize("name", ["router", "static", "announcer", "follow_up", "memory", "page", "lease"])
async def test_parts_that_run_until_they_are_cancelled(name: str) -> None:
    store = _store()
    async with dht_node() as first:
        seeds, local = first.local.addresses, first.local
        calls: dict[str, Callable[[], Coroutine[Any, Any, None]]] = {
            "router": partial(_run_router, seeds),
            "static": partial(_run_bootstrap, StaticBootstrapper(seeds), seeds),
            "announcer": partial(_run_announcer, store, "run"),
            "follow_up": partial(_run_announcer, store, "follow_up"),
            "memory": _run_memory_router,
            "lease": partial(_run_lease, local),
            "page": partial(HttpBootstrapper("", ListenAddress("127.0.0.1", 0)).run, lambda: local),
        }
        await cancel_at_each_step(calls[name], owned=owned_by_a_host, endless=True)


@pytest.mark.parametrize("name", ["dns", "http", "static"])
async def test_sources_of_first_peers(name: str) -> None:
    local = peer_at("127.0.0.1", 1)
    sources: dict[str, Bootstrapper] = {
        "dns": DnsBootstrapper("localhost", 5001),
        "static": StaticBootstrapper(local.addresses),
        "http": HttpBootstrapper("http://127.0.0.1:1", None),
    }

    async def find() -> None:
        try:
            await sources[name].find(local)
        except Exception:  # nobody listens there
            if name != "http":
                raise

    await cancel_at_each_step(find, owned=owned_by_a_host)
