"""speil and go-libp2p (with go-libp2p-kad-dht, as Spegel runs them), both directions."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from speil.claims.codec import encode
from speil.claims.message import Ask, Ending, Fetch, Release
from speil.kad.message import Message, MessageType
from speil.libp2p._pb import keys_pb2
from speil.libp2p.connection_table import Identified, PeerEvent
from speil.libp2p.identity import FILE_NAME, load_or_create
from speil.libp2p.ping import PROTOCOL as PING_PROTOCOL
from speil.libp2p.stream import Stream
from speil.multiformats.content_key import content_key
from speil.multiformats.multiaddr import Multiaddr
from speil.multiformats.peer_id import PeerId
from speil.observe.metrics import Metrics
from speil.routing.bootstrap.http import HttpBootstrapper
from speil.routing.dht import DhtRouter
from speil.routing.network import NetworkError
from speil.setting import ListenAddress
from speil.testing.claim_network_conformance import Statuses
from speil.testing.eventually import eventually
from tests.interop.peers import PeerProgram, PeerProgramError, peer_program
from tests.requirements import tool_path
from tests.shell.mesh import address, bootstrapped, dht_node, new_host, providers
from tests.shell.nodes import free_ports

pytestmark = [pytest.mark.interop, pytest.mark.requires("interop-peer")]
ECHO = "/speil-test/echo/1.0.0"
DIGEST = "sha256:" + "ab" * 32


@pytest.fixture
async def go_peer() -> AsyncIterator[PeerProgram]:
    async with peer_program(str(tool_path("interop-peer"))) as program:
        yield program


@pytest.fixture
async def second_go_peer() -> AsyncIterator[PeerProgram]:
    async with peer_program(str(tool_path("interop-peer"))) as program:
        yield program


def multiaddr(peer: PeerProgram) -> Multiaddr:
    return Multiaddr.parse(peer.address).with_peer_id(PeerId.parse(peer.id))


async def _echo(stream: Stream) -> None:
    while data := await stream.read():
        await stream.write(data)
    stream.close_write()


async def test_we_connect_to_go_and_identify_it(go_peer: PeerProgram) -> None:
    async with new_host() as host:
        connection = await host.connect(multiaddr(go_peer))
        assert str(connection.peer_id) == go_peer.id
        assert "/spegel/kad/1.0.0" in connection.peer.protocols
        assert Multiaddr.parse(go_peer.address) in connection.peer.info.addresses


async def test_go_connects_to_us_identifies_and_pings_us(go_peer: PeerProgram) -> None:
    async with new_host() as host:
        host.set_handler(ECHO, _echo)
        await go_peer.ask("connect", addr=str(address(host.local)))
        us = str(host.local.peer_id)
        seen = await go_peer.ask("protocols", peer=us)
        assert {ECHO, PING_PROTOCOL} <= set(seen["protocols"])
        assert seen["agent"] == "speil/test"
        assert str(host.local.addresses[0]) in seen["addrs"]
        assert (await go_peer.ask("ping", peer=us))["seconds"] > 0


async def test_megabytes_cross_both_ways_through_windows_of_256_kib(go_peer: PeerProgram) -> None:
    async with new_host() as host:
        host.set_handler(ECHO, _echo)
        await host.connect(multiaddr(go_peer))
        size = 3_000_000
        answer = await go_peer.ask("echo", peer=str(host.local.peer_id), protocol=ECHO, size=size)
        assert answer["size"] == size


async def test_a_protocol_go_does_not_speak_fails_and_the_connection_lives(go_peer: PeerProgram) -> None:
    async with new_host() as host:
        connection = await host.connect(multiaddr(go_peer))
        with pytest.raises(Exception, match="nonsense"):
            await connection.open_stream("/nonsense/1.0.0")
        async with await connection.open_stream(PING_PROTOCOL) as stream:
            await stream.write(bytes(32))
            assert await stream.read_exactly(32) == bytes(32)


async def test_a_go_peer_that_goes_away_is_noticed(go_peer: PeerProgram) -> None:
    events: list[PeerEvent] = []
    async with new_host() as host:
        host.subscribe(events.append)
        connection = await host.connect(multiaddr(go_peer))
        stream = await connection.open_stream(ECHO)
        await go_peer.ask("disconnect", peer=str(host.local.peer_id))
        await eventually(lambda: not host.connections, what="the connection's end is seen")
        with pytest.raises(Exception, match=r"ended|reset|closed"):
            await stream.read()
    assert isinstance(events[0], Identified)


async def test_the_go_node_keeps_ours_in_its_routing_table(go_peer: PeerProgram) -> None:
    async with dht_node(multiaddr(go_peer)) as router:
        us = str(router.local.peer_id)

        async def kept() -> bool:
            return us in (await go_peer.ask("table"))["peers"]

        await eventually(kept, timeout_seconds=20, what="go keeps us")
        await eventually(lambda: go_peer.id in {str(peer.peer_id) for peer in router.peers()}, what="we keep go")
        await go_peer.ask("dht_ping", peer=us)


async def test_go_finds_what_we_provide_and_we_find_what_go_provides(go_peer: PeerProgram) -> None:
    async with dht_node(multiaddr(go_peer)) as router:
        await eventually(lambda: len(router.peers()) == 1, what="we know go")
        await router.provide([DIGEST])

        async def found() -> bool:
            return str(router.local.peer_id) in (await go_peer.ask("find_providers", key=DIGEST))["providers"]

        await eventually(found, timeout_seconds=20, what="go finds our record")

        async def go_knows_us() -> bool:
            return str(router.local.peer_id) in (await go_peer.ask("table"))["peers"]

        await eventually(go_knows_us, timeout_seconds=20, what="go has somebody to tell")
        await go_peer.ask("provide", key="reg.test/app:1")
        await eventually(
            lambda: _finds(router, "reg.test/app:1", go_peer.id), timeout_seconds=20, what="we find go's record"
        )


async def test_go_answers_the_rest_of_a_message_with_a_claim_and_is_never_an_umpire(go_peer: PeerProgram) -> None:
    statuses = Statuses()
    async with (
        dht_node(multiaddr(go_peer), status=statuses.of) as router,
        dht_node(multiaddr(go_peer), status=statuses.of) as other,
    ):
        go = await eventually(
            lambda: next((peer for peer in router.peers() if str(peer.peer_id) == go_peer.id), None), what="we know go"
        )
        await eventually(
            lambda: other.local.peer_id in {peer.peer_id for peer in router.peers()}, what="and each other"
        )
        key = content_key(DIGEST)
        question = Message(MessageType.GET_PROVIDERS, key, claim=encode(Ask()))

        async def names_the_other() -> bool:
            answer = await router._network.request(go, question)
            assert answer.claim == b""
            return other.local.peer_id in {peer.peer_id for peer in answer.closer_peers}

        await eventually(names_the_other, timeout_seconds=20, what="go answers as without the claim")
        with pytest.raises(NetworkError, match="no valid claim"):
            await router.claims.ask(go, key, Ask())
        # messages without a provider are nothing to go, and its connection lives
        await router._network.send(go, Message(MessageType.ADD_PROVIDER, key, claim=encode(Release(Ending.CANCELLED))))
        await router._network.request(go, question)
        for number in range(20):
            assert go.peer_id not in {peer.peer_id for peer in router.claims.closest(content_key(f"content {number}"))}


async def test_go_finds_providers_at_a_node_with_claims(go_peer: PeerProgram) -> None:
    statuses = Statuses()
    async with dht_node(multiaddr(go_peer), status=statuses.of) as router:
        await eventually(lambda: len(router.peers()) == 1, what="we know go")
        key = content_key(DIGEST)
        assert await router.claims.ask(router.claims.local, key, Ask()) == Fetch()
        await router.provide([DIGEST])

        async def found() -> bool:
            return str(router.local.peer_id) in (await go_peer.ask("find_providers", key=DIGEST))["providers"]

        await eventually(found, timeout_seconds=20, what="go finds our record while the claim is kept")
        assert router.claims.held == 1


async def _finds(router: object, key: str, peer_id: str) -> bool:
    return peer_id in await providers(router, key)  # type: ignore[arg-type]


async def test_two_go_nodes_find_each_other_and_records_through_speil_alone(
    go_peer: PeerProgram, second_go_peer: PeerProgram
) -> None:
    async with dht_node() as middle:
        for go in (go_peer, second_go_peer):
            await go.ask("connect", addr=str(address(middle.local)))

            async def keeps(go: PeerProgram = go) -> bool:
                return str(middle.local.peer_id) in (await go.ask("table"))["peers"]

            await eventually(keeps, timeout_seconds=20, what="go keeps speil")
        await eventually(lambda: len(middle.peers()) == 2, what="speil knows both")

        async def peer_found() -> bool:
            return second_go_peer.address in (await go_peer.ask("find_peer", peer=second_go_peer.id))["addrs"]

        await eventually(peer_found, timeout_seconds=20, what="the other is found through speil")
        await second_go_peer.ask("provide", key=DIGEST)

        async def record_found() -> bool:
            return second_go_peer.id in (await go_peer.ask("find_providers", key=DIGEST))["providers"]

        await eventually(record_found, timeout_seconds=20, what="the record is found through speil")


async def test_another_prefix_keeps_go_out_of_our_mesh(go_peer: PeerProgram) -> None:
    async with dht_node(multiaddr(go_peer), prefix="/speil/elsewhere") as router:
        await eventually(lambda: router.ready, what="the node has decided that it is alone")
        assert router.peers() == []
        assert (await go_peer.ask("table"))["peers"] == []
        with pytest.raises(PeerProgramError):
            await go_peer.ask("dht_ping", peer=str(router.local.peer_id))


async def test_go_is_told_key_by_key_what_our_own_are_told_at_once(go_peer: PeerProgram) -> None:
    metrics, keys = Metrics(), [f"sha256:{number:064x}" for number in range(60)]
    async with (
        dht_node(multiaddr(go_peer), metrics=metrics, zone="a") as holder,
        dht_node(address(holder.local), zone="b") as other,
    ):
        await eventually(lambda: len(holder.peers()) == 2, what="the holder knows both")
        await holder.provide(keys)
        await eventually(lambda: _has_all(other, holder, keys), what="our node has all records")
        await eventually(
            lambda: _count(metrics, "announcement_keys_count") == 2,
            timeout_seconds=20,
            what="both got it",
        )
        assert _count(metrics, "dht_messages_total", direction="out", type="ADD_PROVIDER") == 1 + len(keys)
        for key in (keys[0], keys[31], keys[-1]):
            assert str(holder.local.peer_id) in (await go_peer.ask("find_providers", key=key))["providers"]


async def test_go_passes_over_what_is_ours_alone(go_peer: PeerProgram) -> None:
    async with dht_node(multiaddr(go_peer), zone="a") as router, new_host() as elsewhere:
        await eventually(lambda: len(router.peers()) == 1, what="we know go")
        (go,) = router.peers()
        question = Message(MessageType.GET_PROVIDERS, content_key(DIGEST), places=(1, 2), horizon_seconds=60)
        answer = await router._network.request(go, question)
        assert (answer.type, answer.key, answer.counts) == (MessageType.GET_PROVIDERS, question.key, ())
        # our answer, which states zones
        provider = replace(elsewhere.local, zone="b")
        now = asyncio.get_running_loop().time()
        router._records.add(content_key(DIGEST), provider, now)

        async def found() -> bool:
            return str(provider.peer_id) in (await go_peer.ask("find_providers", key=DIGEST))["providers"]

        await eventually(found, timeout_seconds=20, what="go reads an answer that states zones")


def _has_all(router: DhtRouter, holder: DhtRouter, keys: list[str]) -> bool:
    now = asyncio.get_running_loop().time()
    return all(holder.local in router._records.live(content_key(key), now) for key in keys)


def _count(metrics: Metrics, name: str, **labels: str) -> float:
    return metrics.registry.get_sample_value(f"speil_{name}", {"region": "", "zone": "", **labels}) or 0


async def test_a_mesh_of_spegels_is_joined_through_the_base_address_of_one(
    go_peer: PeerProgram, second_go_peer: PeerProgram
) -> None:
    """Spegel 0.5 to 0.7.4 adds /id to --http-bootstrap-peer; one node of the mesh serves it, another is found by it."""
    await second_go_peer.ask("connect", addr=str(multiaddr(go_peer)))
    base, both = (await go_peer.ask("serve_id"))["url"], {go_peer.id, second_go_peer.id}
    for address_given in (base, f"{base}/", f"{base}/id"):
        async with bootstrapped(HttpBootstrapper(address_given, None)) as router:
            us = str(router.local.peer_id)
            await eventually(lambda: router.ready, timeout_seconds=20, what="the node is ready")
            await eventually(
                lambda: {str(peer.peer_id) for peer in router.peers()} == both,
                timeout_seconds=20,
                what="we know the one that served the page, and the other through it",
            )

            async def kept(us: str = us) -> bool:
                return us in (await go_peer.ask("table"))["peers"]

            await eventually(kept, timeout_seconds=20, what="go keeps us")
            await second_go_peer.ask("provide", key=DIGEST)
            await eventually(
                lambda: _finds(router, DIGEST, second_go_peer.id), timeout_seconds=20, what="we find what it provides"
            )


async def test_spegel_bootstraps_from_the_pages_that_we_serve(go_peer: PeerProgram) -> None:
    (port,) = free_ports("127.0.0.1", 1)
    base = f"http://127.0.0.1:{port}"
    async with bootstrapped(HttpBootstrapper("", ListenAddress("127.0.0.1", port))) as router:
        us = str(router.local.peer_id)

        async def served() -> bool:
            try:
                return bool((await go_peer.ask("get_id", url=base))["id"] == us)
            except PeerProgramError:
                return False

        await eventually(served, what="as 0.4 to 0.7 asks")
        assert (await go_peer.ask("get_id_list", url=f"{base}/ids"))["id"] == us, "as its main branch asks"

        async def kept() -> bool:
            return us in (await go_peer.ask("table"))["peers"]

        await eventually(kept, timeout_seconds=20, what="go keeps us")


async def test_a_data_directory_moves_between_spegel_and_us(go_peer: PeerProgram, tmp_path: Path) -> None:
    """The image is swapped, and swapped back: the key stays, and neither refuses it."""
    key = tmp_path / FILE_NAME
    theirs = await go_peer.ask("write_key", path=str(key))
    assert str(load_or_create(tmp_path).peer_id) == theirs["id"]
    assert (await go_peer.ask("read_key", path=str(key)))["id"] == theirs["id"]
    key.unlink()
    ours = load_or_create(tmp_path)
    assert (await go_peer.ask("read_key", path=str(key)))["id"] == str(ours.peer_id)
    # the form of older speils, which Spegel can't read, until we have started once
    raw = ours.key.private_bytes_raw() + ours.key.public_key().public_bytes_raw()
    key.write_bytes(keys_pb2.PrivateKey(type=keys_pb2.ED25519, data=raw).SerializeToString())
    with pytest.raises(PeerProgramError):
        await go_peer.ask("read_key", path=str(key))
    load_or_create(tmp_path)
    assert (await go_peer.ask("read_key", path=str(key)))["id"] == str(ours.peer_id)
