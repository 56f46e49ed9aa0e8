"""Isolation, layer by layer: each one alone keeps other regions out, and counts."""

from __future__ import annotations

import asyncio
import io
import itertools
import json
import os
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from ipaddress import ip_network
from pathlib import Path
from random import Random
from typing import Any

import aiohttp
import pytest

from speil.border.gate import RegionGate
from speil.border.http import NODE_TOKEN_HEADER, REGION_HEADER, TOKEN_HEADER
from speil.border.record import LOGGED_MAX, BorderRecord
from speil.border.secret_file import SecretFile
from speil.claims.message import Ask, Defer, Ending, Follow, Holders, Phase, Release, Row, Status, Tell
from speil.kad.message import Message, MessageType
from speil.libp2p import identify, ping
from speil.libp2p.error import Libp2pError
from speil.libp2p.host import Host
from speil.libp2p.identity import Identity
from speil.libp2p.stream import Stream
from speil.libp2p.transport import ConnectionGate, OpenGate
from speil.multiformats.content_key import content_key
from speil.multiformats.multiaddr import Multiaddr
from speil.observe import logs
from speil.observe.metrics import Metrics
from speil.region.policy import Layer, Policy, protocols_of
from speil.region.secret import SecretError, parse
from speil.region.token import Request, sign_node, sign_request
from speil.routing.bootstrap.driver import Bootstrap
from speil.routing.bootstrap.static import StaticBootstrapper
from speil.routing.dht import DhtRouter
from speil.routing.libp2p_network import Libp2pNetwork
from speil.routing.memory import MemoryMesh
from speil.routing.network import NetworkError
from speil.routing.peerstore import Peerstore
from speil.setting import ListenAddress
from speil.testing.eventually import eventually
from speil.testing.samples import sample
from tests.shell.mesh import address, providers, push_identify
from tests.shell.mirrors import Mirror, mirror
from tests.shell.test_mirror_answers import DATA, IMAGE, LAYER, NAME
from tests.shell.test_mirror_faults import head, scripted_peer

OLD, NEW = "an old secret of the region", "a new secret of the region"
KEY = "sha256:" + "ab" * 32
PATH = f"/v2/lab/app/blobs/{LAYER}"
OTHER = next(digest for digest in IMAGE.blobs if IMAGE.kind(digest) == "blobs" and digest != LAYER)


@pytest.fixture
def lines() -> Callable[[], list[dict[str, Any]]]:
    """The log so far, as JSON objects."""
    stream = io.StringIO()
    logs.configure("DEBUG", "json", stream)
    return lambda: [json.loads(line) for line in stream.getvalue().splitlines()]


class Node:
    """A DHT node at its region's border."""

    def __init__(self, host: Host, router: DhtRouter, metrics: Metrics) -> None:
        self.host, self.router, self.metrics = host, router, metrics

    def rejected(self, layer: Layer) -> float:
        return sample(self.metrics, "speil_cross_region_rejected_total", layer=layer.value)

    @property
    def address(self) -> Multiaddr:
        return address(self.router.local)


@asynccontextmanager
async def node(
    *seeds: Multiaddr,
    region: str = "",
    says: str | None = None,
    prefix: str = "/test",
    networks: tuple[str, ...] = (),
    gate: ConnectionGate | None = None,
    psks: tuple[bytes, ...] = (),
    label: str = "",
    dht_policy: Policy | None = None,
) -> AsyncIterator[Node]:
    """A node of `region` that `says` another where that is given; one prefix for all, so that it keeps nobody out."""
    metrics = Metrics()
    policy = Policy(region, not region, tuple(map(ip_network, networks)), label)
    record = BorderRecord(region, metrics)
    host = Host(
        Identity.generate(),
        ListenAddress("127.0.0.1", 0),
        agent_version="speil/test",
        metrics=metrics,
        gate=gate or RegionGate(policy, record),
        extra_protocols=protocols_of(region if says is None else says, "", label),
        psks=lambda: psks,
    )
    async with host:
        bootstrap = Bootstrap(StaticBootstrapper(seeds), Peerstore(None), metrics, Random(1))
        router = DhtRouter(
            Libp2pNetwork(host, prefix, metrics, record, dht_policy or policy), bootstrap, metrics, Random(2)
        )
        router.claims.attach(lambda key: Status(Phase.NONE))
        async with asyncio.TaskGroup() as group:
            task = group.create_task(router.run())
            yield Node(host, router, metrics)
            task.cancel()


def noise_keys(*lines: str, region: str = "r") -> tuple[bytes, ...]:
    return parse("\n".join(lines), region).noise_keys


async def stay_apart(one: Node, other: Node) -> None:
    """Both have decided, and neither has the other in its table or records."""
    await eventually(lambda: other.router.ready)
    await other.router.provide([KEY])
    assert not one.router.peers()
    assert not other.router.peers()
    assert await providers(one.router, KEY) == set()


# --- libp2p ---------------------------------------------------------------------------------------------------


async def test_one_region_meets_and_another_is_kept_out_by_what_it_says() -> None:
    async with (
        node(region="a") as one,
        node(one.address, region="a") as fellow,
        node(one.address, region="b") as stranger,
        node(one.address) as spegel,
    ):
        await eventually(lambda: one.router.peers() and fellow.router.peers(), what="the region has met")
        await eventually(lambda: one.rejected(Layer.IDENTIFY) >= 2, what="two were kept out")
        assert [peer.peer_id for peer in one.router.peers()] == [fellow.router.local.peer_id]
        await eventually(lambda: stranger.router.ready and spegel.router.ready)
        assert not stranger.router.peers()
        assert not spegel.router.peers()
        assert stranger.rejected(Layer.IDENTIFY) >= 1, "both sides see it"


async def test_a_peer_that_changes_its_region_later_has_to_go() -> None:
    async with node(region="a") as one, node(one.address, region="a") as fellow:
        await eventually(lambda: one.router.peers())
        fellow.host._extra_protocols = protocols_of("b", "")  # no speil states another region later
        with suppress(Libp2pError):  # the other side closes the connection
            await push_identify(fellow.host)
        await eventually(lambda: one.rejected(Layer.IDENTIFY), what="it was kept out")
        await eventually(lambda: not one.host.connections, what="its connection is gone")


async def test_the_dht_protocol_alone_keeps_meshes_apart() -> None:
    async with (
        node(gate=OpenGate(), prefix="/speil/a") as one,
        node(one.address, gate=OpenGate(), prefix="/speil/b") as other,
    ):
        await eventually(lambda: one.rejected(Layer.DHT_PROTOCOL) and other.rejected(Layer.DHT_PROTOCOL))
        assert one.host.connections, "nothing else kept it out"
        await stay_apart(one, other)


async def test_the_label_keeps_out_by_identify_alone_who_says_the_same_region() -> None:
    """The mission's own mistake: the names of region a were copied, so both sides say region a."""
    no_labels = Policy("a", False)
    async with (
        node(region="a", label="eu", dht_policy=no_labels) as one,
        node(one.address, region="a", label="eu", dht_policy=no_labels) as fellow,
        node(one.address, region="a", label="us", dht_policy=no_labels) as stranger,
        node(one.address, region="a", dht_policy=no_labels) as plain,
    ):
        await eventually(lambda: one.rejected(Layer.IDENTIFY), what="it was kept out")
        await eventually(lambda: stranger.router.ready)
        friends = {fellow.router.local.peer_id, plain.router.local.peer_id}
        await eventually(lambda: {peer.peer_id for peer in one.router.peers()} == friends, what="the others are in")
        with pytest.raises(Libp2pError, match="identify"):
            await stranger.host.connect(one.address)
        assert stranger.rejected(Layer.IDENTIFY)
        assert one.router.local.peer_id not in {peer.peer_id for peer in stranger.router.peers()}
        for layer in Layer:
            if layer is not Layer.IDENTIFY:
                assert not one.rejected(layer), "no other layer was asked"


async def test_the_label_keeps_out_by_the_dht_alone_who_came_past_the_gate() -> None:
    async with (
        node(region="a", label="eu", gate=OpenGate()) as one,
        node(one.address, region="a", label="us", gate=OpenGate()) as other,
    ):
        await eventually(lambda: one.rejected(Layer.DHT_PROTOCOL) and other.rejected(Layer.DHT_PROTOCOL))
        assert one.host.connections, "nothing else kept it out"
        assert not one.rejected(Layer.IDENTIFY)
        await stay_apart(one, other)
        network = other.router._network
        before = one.rejected(Layer.DHT_PROTOCOL)
        for question in (MessageType.FIND_NODE, MessageType.GET_PROVIDERS):
            with pytest.raises(NetworkError, match="topology label"):
                await network.request(one.router.local, Message(question, content_key(KEY)))
        # a peer that does not look at labels itself: its stream is reset, and its record is not kept
        stream = await other.host.open_stream(one.router.local, "/test/kad/1.0.0")
        provide = Message(MessageType.ADD_PROVIDER, content_key(KEY), (), (other.router.local,))
        answer: bytes | None = None
        with suppress(Libp2pError):
            await stream.write_message(provide.encode())
            await stream.write_message(Message(MessageType.FIND_NODE, content_key(KEY)).encode())
            answer = await stream.read_message(1 << 16)
        assert answer is None
        await eventually(lambda: one.rejected(Layer.DHT_PROTOCOL) > before)
        assert sample(one.metrics, "speil_provider_records") == 0
        assert sample(one.metrics, "speil_dht_messages_total", direction="in") == 0


async def test_a_node_without_a_label_goes_with_both_and_tells_neither_of_the_other() -> None:
    async with (
        node(region="a") as plain,
        node(plain.address, region="a", label="eu") as one,
        node(plain.address, region="a", label="us") as other,
    ):
        both = {one.router.local.peer_id, other.router.local.peer_id}
        await eventually(lambda: {peer.peer_id for peer in plain.router.peers()} == both)
        await other.router.provide([KEY])
        holder = str(other.router.local.peer_id)

        async def found() -> bool:
            return await providers(plain.router, KEY, 0.5) == {holder}

        await eventually(found, what="it has the record")
        assert await providers(one.router, KEY) == set()
        for _ in range(3):
            await one.router._lookups.refresh()
        assert [peer.peer_id for peer in one.router.peers()] == [plain.router.local.peer_id]
        assert not one.rejected(Layer.IDENTIFY), "it was never told where the other is"


async def test_a_source_of_another_label_is_not_used_though_a_node_of_both_names_it() -> None:
    async with (
        node(region="a") as plain,
        node(plain.address, region="a", label="eu", gate=OpenGate()) as one,
        node(plain.address, region="a", label="us", gate=OpenGate()) as other,
    ):
        await eventually(lambda: len(plain.router.peers()) == 2)
        claims, foreign = one.router.claims, other.router.claims.local
        assert claims._peers.checked(plain.router.local.peer_id, Follow(foreign)) == Follow(foreign)
        with suppress(Libp2pError):
            await other.host.connect(one.address)
        await eventually(lambda: one.rejected(Layer.DHT_PROTOCOL) > 0, what="its label is known now")
        for named in (Follow(foreign), Defer(foreign), Holders((foreign,)), Tell((Row(foreign, Phase.FETCHING, 2),))):
            assert claims._peers.checked(plain.router.local.peer_id, named) is None
        with pytest.raises(NetworkError):
            await claims.ask(foreign, content_key(KEY), Ask())
        with pytest.raises(NetworkError):
            await other.router.claims.ask(claims.local, content_key(KEY), Ask())
        assert not claims.state()["claims"]


@pytest.mark.parametrize("theirs", ["no secret", "another region"])
async def test_a_stranger_reaches_no_umpire_and_is_no_umpire(theirs: str) -> None:
    async with AsyncExitStack() as stack:
        if theirs == "no secret":
            one = await stack.enter_async_context(node(psks=noise_keys(OLD)))
            other = await stack.enter_async_context(node(one.address))
        else:
            one = await stack.enter_async_context(node(region="a"))
            other = await stack.enter_async_context(node(one.address, region="b"))
        key = content_key(KEY)
        for asker, umpire in ((other, one), (one, other)):
            with pytest.raises(NetworkError):
                await asker.router.claims.ask(umpire.router.claims.local, key, Ask())
            with pytest.raises(NetworkError):
                await asker.router.claims.ask_status(umpire.router.claims.local, key)
            await asker.router.claims.release(umpire.router.claims.local, key, Release(Ending.CANCELLED))
            assert [peer.peer_id for peer in asker.router.claims.closest(key)] == [asker.router.local.peer_id]
            assert umpire.router.claims.held == 0
        assert sample(one.metrics, "speil_claims_answers_total") == 0


async def test_networks_alone_keep_strangers_from_being_dialled_and_from_coming_in() -> None:
    async with node(networks=("10.9.0.0/16",)) as one, node() as other:
        with pytest.raises(Libp2pError, match="network"):
            await one.host.connect(other.address)
        assert one.rejected(Layer.NETWORK) == 1
        with pytest.raises(Libp2pError):
            await other.host.connect(one.address)
        await eventually(lambda: one.rejected(Layer.NETWORK) == 2)
        assert not one.host.connections
    async with node(networks=("127.0.0.0/8",)) as one, node(one.address) as other:
        await eventually(lambda: one.router.peers() and other.router.peers())


@pytest.mark.parametrize(
    "theirs",
    [noise_keys(NEW), noise_keys(OLD, region="s"), ()],
    ids=["another secret", "the same secret in another region", "no secret"],
)
async def test_the_secret_alone_keeps_out_who_does_not_hold_it(theirs: tuple[bytes, ...]) -> None:
    """Whoever dials: the holder of the secret sees why."""
    async with node(psks=noise_keys(OLD)) as one, node(one.address, psks=theirs) as other:
        await eventually(lambda: one.rejected(Layer.SECRET), what="it was kept out")
        await stay_apart(one, other)
        before = one.rejected(Layer.SECRET) + other.rejected(Layer.SECRET)
        with pytest.raises(Libp2pError):
            await one.host.connect(other.address)
        await eventually(lambda: one.rejected(Layer.SECRET) + other.rejected(Layer.SECRET) > before)
        assert not one.host.connections


async def test_a_secret_is_rotated_without_a_moment_apart() -> None:
    """Every step of old → old+new → new+old → new, each node at its own time: neighbours always meet."""
    steps = [(OLD,), (OLD, NEW), (NEW, OLD), (NEW,)]
    for earlier, later in [*itertools.pairwise(steps), *((step, step) for step in steps)]:
        for dialler, listener in ((earlier, later), (later, earlier)):
            async with (
                node(psks=noise_keys(*listener)) as one,
                node(psks=noise_keys(*dialler)) as other,
            ):
                await other.host.connect(one.address)
                assert not one.rejected(Layer.SECRET)


async def test_a_region_with_a_secret_meets_and_finds() -> None:
    keys = noise_keys(OLD)
    async with node(region="r", psks=keys) as one, node(one.address, region="r", psks=keys) as other:
        await eventually(lambda: one.router.peers() and other.router.peers())
        await other.router.provide([KEY])
        holder = str(other.router.local.peer_id)

        async def found() -> bool:
            return await providers(one.router, KEY, 0.5) == {holder}

        await eventually(found)


async def test_a_stranger_who_does_not_wait_to_be_let_in_gets_no_record_and_no_answer() -> None:
    """A hostile peer says it is of the region only after it has sent records for everything."""
    async with node(region="a") as victim:
        hostile = Host(
            Identity.generate(),
            ListenAddress("127.0.0.1", 0),
            agent_version="x",
            metrics=Metrics(),
            extra_protocols=protocols_of("b", ""),
        )
        sent = asyncio.Event()

        async def late_identify(stream: Stream) -> None:
            await sent.wait()
            await hostile._exchange.answer(stream)

        hostile.set_handler(identify.PROTOCOL, late_identify)
        provide = Message(MessageType.ADD_PROVIDER, content_key(KEY), (), (hostile.local,))
        async with hostile:
            connection = await hostile.connect(victim.address)
            stream = await connection.open_stream("/test/kad/1.0.0")
            await stream.write_message(provide.encode())
            await stream.write_message(Message(MessageType.FIND_NODE, content_key(KEY)).encode())
            pings = await connection.open_stream(ping.PROTOCOL)
            for _ in range(50):  # a careless victim would answer the other stream between two of these
                await pings.write(bytes(ping.BYTES))
                await pings.read_exactly(ping.BYTES)
            assert stream.held_bytes == 0, "no answer before identify"
            assert sample(victim.metrics, "speil_provider_records") == 0
            sent.set()
            answer: bytes | None = None
            with suppress(Libp2pError):
                answer = await stream.read_message(1 << 16)
            assert answer is None
        await eventually(lambda: victim.rejected(Layer.IDENTIFY))
        assert not victim.router.peers()
        assert await providers(victim.router, KEY) == set()
        assert sample(victim.metrics, "speil_provider_records") == 0
        assert sample(victim.metrics, "speil_dht_messages_total", direction="in") == 0


async def serves(headers: dict[str, str], writer: asyncio.StreamWriter) -> None:
    """As a Spegel does, whoever asks."""
    writer.write(head() + DATA)


# --- HTTP -----------------------------------------------------------------------------------------------------


async def fetch(one: Mirror, path: str = PATH, **headers: str) -> tuple[int, int]:
    """Status and body bytes of a client's request."""
    async with (
        aiohttp.ClientSession() as session,
        session.get(
            f"{one.url}{path}?ns=reg.test", headers={k.replace("_", "-"): v for k, v in headers.items()}
        ) as got,
    ):
        assert "WWW-Authenticate" not in got.headers
        return got.status, len(await got.read())


def kept_out(one: Mirror, layer: Layer) -> float:
    return one.sample("speil_cross_region_rejected_total", layer=layer.value)


async def test_a_peer_of_another_region_gets_an_empty_404_and_we_take_nothing_from_it() -> None:
    a, b = Policy("a", unsaid=False), Policy("b", unsaid=False)
    mesh = MemoryMesh()  # one mesh on purpose: every other layer has failed
    async with mirror(mesh, policy=a) as holder, mirror(mesh, policy=b) as stranger, mirror(mesh, policy=a) as fellow:
        await holder.hold(IMAGE, NAME)
        assert (await fetch(stranger))[0] == 404
        assert kept_out(holder, Layer.HTTP) >= 1
        assert await fetch(fellow) == (200, len(DATA))
        # the other side of it: a Spegel holds it, and answers anybody
    mesh = MemoryMesh()
    async with scripted_peer(mesh, serves), mirror(mesh, policy=a) as asker:
        assert (await fetch(asker))[0] == 404
        assert kept_out(asker, Layer.HTTP) >= 1
        assert asker.sample("speil_served_bytes_total") == 0


async def test_the_label_keeps_out_by_the_http_door_alone_and_both_sides_of_it() -> None:
    eu, us, plain = (Policy("a", unsaid=False, label=label) for label in ("eu", "us", ""))
    mesh = MemoryMesh()
    async with (
        mirror(mesh, policy=eu) as holder,
        mirror(mesh, policy=us) as stranger,
        mirror(mesh, policy=eu) as fellow,
        mirror(mesh, policy=plain) as neighbour,
    ):
        await holder.hold(IMAGE, NAME)
        assert (await fetch(stranger))[0] == 404
        assert kept_out(holder, Layer.HTTP) >= 1
        before = kept_out(holder, Layer.HTTP)
        assert await fetch(fellow) == (200, len(DATA))
        assert await fetch(neighbour) == (200, len(DATA))
        peer = {"X_Spegel_Mirrored": "true", "X_Speil_Region": "a"}
        assert await fetch(holder, **peer, X_Speil_Topology_Region="us") == (404, 0)
        assert await fetch(holder, X_Speil_Topology_Region="us") == (404, 0)
        assert kept_out(holder, Layer.HTTP) == before + 2
        assert await fetch(holder, **peer) == (200, len(DATA)), "a node of before, which tells no label"

    async def answers(headers: dict[str, str], writer: asyncio.StreamWriter) -> None:
        writer.write(head(X_Speil_Region="a", X_Speil_Topology_Region="us") + DATA)

    mesh = MemoryMesh()
    async with scripted_peer(mesh, answers), mirror(mesh, policy=eu) as asker:
        assert (await fetch(asker))[0] == 404
        assert kept_out(asker, Layer.HTTP) >= 1
        assert asker.sample("speil_served_bytes_total") == 0


@pytest.mark.parametrize(
    "headers",
    [{"X_Spegel_Mirrored": "true"}, {"X_Spegel_Mirrored": "TRUE", "X_Speil_Region": "b"}, {"X_Speil_Region": "b"}],
)
async def test_requests_with_and_without_our_headers_get_nothing_across_the_border(headers: dict[str, str]) -> None:
    async with mirror(MemoryMesh(), policy=Policy("a", unsaid=False)) as holder:
        await holder.hold(IMAGE, NAME)
        assert await fetch(holder, **headers) == (404, 0)
        assert kept_out(holder, Layer.HTTP) == 1


async def test_networks_keep_requests_out_and_peers_outside_are_not_asked() -> None:
    mesh = MemoryMesh()
    far = Policy("a", False, (ip_network("10.9.0.0/16"),))
    async with mirror(mesh, policy=Policy("a", False)) as holder, mirror(mesh, policy=far) as asker:
        await holder.hold(IMAGE, NAME)
        assert (await fetch(asker))[0] == 404
        assert kept_out(asker, Layer.NETWORK) >= 1
        assert await fetch(asker, X_Spegel_Mirrored="true", X_Speil_Region="a") == (404, 0)
        assert kept_out(asker, Layer.NETWORK) >= 2


@pytest.fixture
def secret(tmp_path: Path) -> SecretFile:
    file = tmp_path / "secret"
    file.write_text(OLD)
    return SecretFile(file, "a")


async def test_with_a_secret_peers_and_containerd_get_through_and_others_do_not(secret: SecretFile) -> None:
    policy, mesh = Policy("a", unsaid=False), MemoryMesh()
    async with mirror(mesh, policy=policy, secret=secret) as holder, mirror(mesh, policy=policy, secret=secret) as one:
        await holder.hold(IMAGE, NAME)
        good = sign_node(secret.secret.node_keys[0], "node-7")
        assert await fetch(one, X_Speil_Node_Token=good) == (200, len(DATA))
        assert one.sample("speil_served_bytes_total", source="peer") == len(DATA)
        forged = sign_node(b"a guess", "node-7")
        for shown in ({}, {"X_Speil_Node_Token": forged}, {"X_Speil_Node_Token": ""}):
            assert await fetch(holder, **shown) == (404, 0), "a neighbour pod"
            assert await fetch(holder, "/v2/", **shown) == (404, 0)
        assert kept_out(holder, Layer.NODE_TOKEN) == 6
        peer = {"X_Spegel_Mirrored": "true", "X_Speil_Region": "a"}
        request = Request("GET", f"{PATH}?ns=reg.test", str(holder.router.local.peer_id))
        for token in ("", "1.2.3", sign_request(b"a guess", request, issued=0, nonce="ab" * 8), good):
            assert await fetch(holder, **peer, X_Speil_Token=token) == (404, 0)
        assert await fetch(holder, **peer, X_Speil_Node_Token=good) == (404, 0), "a node token makes no peer"
        assert kept_out(holder, Layer.TOKEN) == 5


async def test_a_token_that_was_overheard_is_worth_nothing(secret: SecretFile) -> None:
    policy, mesh = Policy("a", unsaid=False), MemoryMesh()
    async with mirror(mesh, policy=policy, secret=secret) as holder, mirror(mesh, policy=policy, secret=secret) as one:
        await holder.hold(IMAGE, NAME)
        request = Request("GET", f"{PATH}?ns=reg.test", str(holder.router.local.peer_id))
        token = sign_request(secret.secret.peer_keys[0], request, issued=int(time.time()), nonce="0" * 16)
        peer = {"X_Spegel_Mirrored": "true", "X_Speil_Region": "a", "X_Speil_Token": token}
        assert await fetch(holder, **peer) == (200, len(DATA))
        assert await fetch(holder, **peer) == (404, 0), "twice"
        assert await fetch(holder, f"/v2/lab/app/blobs/{OTHER}", **peer) == (404, 0), "other content"
        assert await fetch(one, **peer) == (404, 0), "another node"


async def test_answers_name_their_region_and_a_mesh_without_regions_says_nothing() -> None:
    for policy, told in ((Policy("a", False), "a"), (Policy(), None)):
        async with mirror(MemoryMesh(), policy=policy) as one:
            await one.hold(IMAGE, NAME)
            async with aiohttp.ClientSession() as session, session.get(f"{one.url}{PATH}?ns=reg.test") as got:
                assert got.status == 200
                assert got.headers.get(REGION_HEADER) == told
                assert TOKEN_HEADER not in got.headers
                assert NODE_TOKEN_HEADER not in got.headers


# --- the secret's file, the record ------------------------------------------------------------------------------


def test_a_secret_file_is_read_anew_and_a_bad_one_changes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "secret"
    with pytest.raises(SecretError, match="can't be read"):
        SecretFile(path, "r")
    path.write_text("short")
    with pytest.raises(SecretError, match="line 1 has 5 characters"):
        SecretFile(path, "r")
    path.write_bytes(b"\xff" * 40)
    with pytest.raises(SecretError, match="not text"):
        SecretFile(path, "r")
    path.write_text(OLD)
    file = SecretFile(path, "r")
    old = file.secret
    path.write_text(f"{NEW}\n{OLD}\n")
    assert file.secret.peer_keys[1:] == old.peer_keys
    rotated = file.secret
    path.write_text("")
    assert file.secret == rotated
    path.unlink()
    assert file.secret == rotated
    # as the kubelet does it: a symlink is switched to a new directory
    (tmp_path / "new").mkdir()
    (tmp_path / "new" / "secret").write_text(NEW)
    path.symlink_to(tmp_path / "new" / "secret")
    assert file.secret.peer_keys == rotated.peer_keys[:1]
    os.utime(path)


def test_a_label_that_differs_is_told_in_one_line_that_says_what_to_write(
    lines: Callable[[], list[dict[str, Any]]],
) -> None:
    record = BorderRecord("a", Metrics())
    for layer in (Layer.IDENTIFY, Layer.DHT_PROTOCOL, Layer.HTTP):
        for _ in range(3):
            record.other_label(layer, "10.0.0.7", "us" * 1000, "eu")
    told = [line for line in lines() if line["msg"] == "kept out of the region"]
    assert [line["layer"] for line in told] == ["identify", "dht_protocol", "http"]
    for line in told:
        assert "topology.kubernetes.io/region is usus" in line["why"]
        assert line["why"].endswith("this node's eu")
        assert len(line["why"]) < 200
        assert "--leader-election-namespace" in line["what_to_do"]
        assert "set --region a on all" in line["what_to_do"]


def test_what_the_record_remembers_is_bounded() -> None:
    record = BorderRecord("r", Metrics())
    record._lines.due = lambda key: 0  # type: ignore[method-assign]  # otherwise only ten lines would be written
    for number in range(LOGGED_MAX * 2):
        record.rejected(Layer.HTTP, f"10.0.{number >> 8}.{number & 255}", "it asked")
    assert len(record._logged) == LOGGED_MAX
