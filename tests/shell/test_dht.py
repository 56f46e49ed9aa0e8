"""Fifty nodes on the in-memory network: with deaths in mid-lookup, losses, and a split."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import replace
from functools import partial
from pathlib import Path
from random import Random

import pytest

from speil.kad import cost_budget
from speil.kad.key import place, position
from speil.kad.known_peers import PER_ADDRESS_MAX
from speil.kad.message import Message, MessageType
from speil.kad.provider_records import PROVIDERS_PER_KEY_MAX
from speil.kad.routing_table import PEERS_PER_ADDRESS_MAX, K, Origin
from speil.libp2p.error import Libp2pError
from speil.libp2p.host import Host
from speil.multiformats.content_key import content_key
from speil.multiformats.peer_id import PeerId
from speil.multiformats.peer_info import PeerInfo
from speil.observe.metrics import Metrics
from speil.routing.bootstrap.driver import Bootstrap
from speil.routing.bootstrap.static import StaticBootstrapper
from speil.routing.dht import PROVIDERS_TAKEN_MAX, DhtRouter
from speil.routing.lookups import now
from speil.routing.network import NetworkError
from speil.routing.peerstore import Peerstore
from speil.routing.search import FOUND_MAX
from speil.testing.eventually import eventually
from speil.testing.network import MemoryNetwork, MemoryWire
from speil.testing.virtual_time import run_virtual
from tests.conformance.test_routers import memory_dht
from tests.shell.mesh import address, dht_node, new_host, providers

NODES = 50
KEYS = [f"sha256:{number:064x}" for number in range(20)]


async def found(router: DhtRouter, key: str, holder: DhtRouter) -> bool:
    return str(holder.local.peer_id) in await providers(router, key)


async def test_fifty_nodes_find_every_key_from_everywhere() -> None:
    async with memory_dht(MemoryWire(seed=3), NODES) as routers:
        holder = routers[7]
        await holder.provide(KEYS)
        for key, router in zip(KEYS, routers[10:], strict=False):
            await eventually(partial(found, router, key, holder), what=f"{key} is found")


async def test_records_lie_with_the_nodes_closest_to_their_keys() -> None:
    async with memory_dht(MemoryWire(seed=8), NODES) as routers:
        holder = routers[-1]  # the newest: it has the fewest peers
        await holder.provide(KEYS)
        for key in KEYS:
            multihash = content_key(key)
            target = position(multihash)
            closest = sorted(routers, key=lambda one, t=target: position(one.local.peer_id.multihash) ^ t)[:K]  # type: ignore[misc]

            async def enough(multihash: bytes = multihash, closest: list[DhtRouter] = closest) -> bool:
                asked = [await _records_at(one, multihash) for one in closest]
                return sum(holder.local.peer_id in found for found in asked) >= K // 2

            await eventually(enough, what=f"{key} lies with those closest to it")


async def _records_at(router: DhtRouter, key: bytes) -> set[PeerId]:
    question = Message(MessageType.GET_PROVIDERS, key)
    answer = router._answer(PeerInfo(router.local.peer_id), question)
    assert answer is not None
    return {peer.peer_id for peer in answer.provider_peers}


async def test_nodes_that_die_in_mid_lookup_do_not_stop_it() -> None:
    wire = MemoryWire(seed=4, latency_seconds=0.01)
    async with memory_dht(wire, NODES) as routers:
        holder, asker = routers[20], routers[40]
        await holder.provide(KEYS[:5])
        for key in KEYS[:5]:
            await eventually(partial(found, asker, key, holder), what="the records are out")

        async with asyncio.TaskGroup() as group:
            lookups = [group.create_task(providers(routers[number], KEYS[number % 5])) for number in (30, 31, 32, 33)]
            await eventually(lambda: wire.messages > 0, what="the lookups run")
            for router in routers[1:18]:
                wire.kill(router.local.peer_id)
        for lookup in lookups:
            assert str(holder.local.peer_id) in lookup.result()
        # and the dead leave the tables of those who ask them
        await eventually(lambda: found(asker, KEYS[0], holder), what="still found with a third of the nodes dead")


async def _known_locally(routers: list[DhtRouter], key: str) -> DhtRouter:
    """A node, not the holder, that has the record itself; every node does in a small mesh."""
    await routers[1].provide([key])
    asker = routers[2]
    await eventually(lambda: routers[1].local in asker._records.live(content_key(key), now()), what="it is announced")
    return asker


def test_a_provider_that_is_known_here_is_named_before_any_message_goes_out() -> None:
    async def scenario() -> None:
        wire = MemoryWire(seed=3)
        async with memory_dht(wire, 5) as routers:
            asker, sent = await _known_locally(routers, KEYS[0]), list[int]()
            await asyncio.sleep(60)  # the mesh is quiet
            before = wire.messages
            assert asker.known_providers(KEYS[0]) == [routers[1].local]
            await asyncio.sleep(5)
            assert wire.messages == before, "it asks nobody"
            async for peer in asker.find_providers(KEYS[0], timeout_seconds=2):
                assert peer.peer_id == routers[1].local.peer_id
                sent.append(wire.messages - before)
            assert sent == [0]
            assert wire.messages > before, "others are looked for all the same"

    run_virtual(scenario())


async def test_losses_are_survived() -> None:
    wire = MemoryWire(seed=5)
    async with memory_dht(wire, 30) as routers:
        wire.loss = 0.1
        await routers[3].provide(KEYS[:3])
        for key in KEYS[:3]:
            await eventually(
                partial(found, routers[25], key, routers[3]), timeout_seconds=30, what="found in spite of losses"
            )


async def test_peers_that_all_failed_are_found_again_though_no_connection_was_lost() -> None:
    wire = MemoryWire(seed=8)
    async with memory_dht(wire, 3) as routers:
        await routers[1].provide([KEYS[0]])
        await eventually(lambda: found(routers[0], KEYS[0], routers[1]), what="found")
        wire.loss = 1.0

        async def alone() -> bool:
            await providers(routers[0], f"unknown {wire.messages}", 1)  # asks everybody, and nobody answers
            return not routers[0].peers()

        await eventually(alone, what="the table has run dry")
        wire.loss = 0.0
        await eventually(lambda: len(routers[0].peers()) == 2, timeout_seconds=30, what="both are back")


@pytest.mark.parametrize(
    ("polite", "level", "message"),
    [
        (True, "INFO", "last peer left, bootstrapping again"),
        (False, "WARNING", "routing table is empty, bootstrapping again"),
    ],
    ids=["stopped", "lost"],
)
async def test_an_update_of_a_region_of_two_nodes_is_no_warning(
    polite: bool, level: str, message: str, caplog: pytest.LogCaptureFixture
) -> None:
    wire = MemoryWire(seed=8)
    caplog.set_level("INFO")
    async with memory_dht(wire, 2) as routers:
        await routers[1].provide([KEYS[0]])
        await eventually(lambda: found(routers[0], KEYS[0], routers[1]), what="found")
        wire.kill(routers[1].local.peer_id, polite=polite)
        await eventually(lambda: not routers[0].peers(), what="the table is empty")
        levels = {record.message: record.levelname for record in caplog.records if "bootstrapping" in record.message}
    assert levels == {message: level}


@pytest.mark.parametrize("is_missed", [True, False])
async def test_a_node_that_was_restarted_is_told_everything_anew(is_missed: bool) -> None:
    wire = MemoryWire(seed=9)
    heard: list[MessageType] = []
    async with memory_dht(wire, 2) as routers:
        await routers[0].provide(KEYS[:3])

        def answer(peer: PeerInfo, message: Message) -> Message | None:
            heard.append(message.type)
            return message if message.type is MessageType.PING else None

        restarted = wire.new_node()
        restarted.attach(answer, lambda peer, is_new: None, lambda peer, polite: None)
        ping = Message(MessageType.PING)
        await restarted.request(routers[0].local, ping)
        await eventually(lambda: MessageType.ADD_PROVIDER in heard, what="it gets an announcement")
        heard.clear()
        restarted.lose(routers[0].local.peer_id)
        if is_missed:
            wire.nodes[routers[0].local.peer_id].lose(restarted.local.peer_id)
        await restarted.request(routers[0].local, ping)
        await eventually(lambda: MessageType.ADD_PROVIDER in heard, what="it gets another announcement")


async def test_a_split_mesh_finds_its_own_and_after_healing_everything() -> None:
    wire = MemoryWire(seed=6)
    async with memory_dht(wire, 20) as routers:
        for router in routers[10:]:
            wire.side[router.local.peer_id] = 1
        await routers[1].provide(["left"])
        await routers[11].provide(["right"])
        await eventually(lambda: found(routers[2], "left", routers[1]), what="the left finds its own")
        await eventually(lambda: found(routers[12], "right", routers[11]), what="the right finds its own")
        assert await providers(routers[2], "right", 1) == set()
        wire.side.clear()
        await eventually(lambda: found(routers[12], "left", routers[1]), timeout_seconds=30, what="healed")


async def test_strangers_records_for_others_and_floods_are_bounded() -> None:
    wire = MemoryWire(seed=7)
    async with memory_dht(wire, 2) as routers:
        stranger = wire.new_node()
        stranger.attach(lambda peer, message: None, lambda peer, is_new: None, lambda peer, polite: None)
        victim = PeerInfo(routers[1].local.peer_id, routers[1].local.addresses)
        key = content_key("sha256:forged")
        await stranger.send_all(routers[0].local, [Message(MessageType.ADD_PROVIDER, key, provider_peers=(victim,))])
        answer = await stranger.request(routers[0].local, Message(MessageType.GET_PROVIDERS, key))
        assert answer.provider_peers == (), "a peer announces itself alone"
        own = Message(MessageType.ADD_PROVIDER, key, provider_peers=(stranger.local,))
        await stranger.send_all(routers[0].local, [own])
        answer = await stranger.request(routers[0].local, Message(MessageType.GET_PROVIDERS, key))
        assert answer.provider_peers == (stranger.local,)


def silent(wire: MemoryWire, host: str) -> MemoryNetwork:
    """A node that says nothing by itself, at a place of its own choice."""
    node = wire.new_node()
    node.host = host
    node.attach(lambda peer, message: None, lambda peer, is_new: None, lambda peer, polite: None)
    return node


async def test_identities_of_one_network_do_not_push_the_honest_provider_of_a_key_out() -> None:
    wire, key = MemoryWire(seed=11), content_key("sha256:popular")
    async with memory_dht(wire, 1) as routers:
        honest = silent(wire, "172.20.0.1")
        await honest.send_all(routers[0].local, [_own_record(honest, key)])
        for number in range(100):  # each claims an address of its own
            stranger = silent(wire, f"172.30.0.{number % 10}")
            await stranger.send_all(routers[0].local, [_own_record(stranger, key)])
        kept = routers[0]._records.live(key, asyncio.get_running_loop().time())
        assert honest.local in kept
        assert len(kept) == PROVIDERS_PER_KEY_MAX


def _own_record(node: MemoryNetwork, key: bytes) -> Message:
    return Message(MessageType.ADD_PROVIDER, key, provider_peers=(node.local,))


async def test_sixty_identities_of_one_address_take_a_few_places_here_and_in_what_is_kept(tmp_path: Path) -> None:
    wire = MemoryWire(seed=12)
    peerstore = Peerstore(tmp_path)
    network = wire.new_node()
    router = DhtRouter(
        network, Bootstrap(StaticBootstrapper(()), peerstore, Metrics(), Random(1)), Metrics(), Random(2)
    )
    async with asyncio.TaskGroup() as group:
        task = group.create_task(router.run())
        honest = [silent(wire, f"172.20.{number}.1") for number in range(5)]
        for node in (*honest, *(silent(wire, "172.30.0.1") for _ in range(60))):
            with contextlib.suppress(NetworkError):
                await node.request(router.local, Message(MessageType.PING))
        known = {peer.peer_id for peer in router.peers()}
        assert {node.local.peer_id for node in honest} <= known
        assert len(known) <= len(honest) + PEERS_PER_ADDRESS_MAX
        task.cancel()
    saved = [address.peer_id for address in peerstore.load()]
    assert {node.local.peer_id for node in honest} <= set(saved)
    assert len(saved) <= len(honest) + PER_ADDRESS_MAX


async def test_one_answer_can_not_fill_a_search_with_invented_providers() -> None:
    wire = MemoryWire(seed=13)
    async with memory_dht(wire, 1) as routers:
        liars = [silent(wire, f"172.30.{number}.1") for number in range(10)]
        invented = 0

        def lie(peer: PeerInfo, message: Message) -> Message | None:
            nonlocal invented
            invented += 100
            providers = tuple(
                PeerInfo(PeerId.of_public_key(number.to_bytes(36, "big")), peer.addresses)
                for number in range(invented, invented + 100)
            )
            return Message(message.type, message.key, provider_peers=providers)

        for liar in liars:
            liar.attach(lie, lambda peer, is_new: None, lambda peer, polite: None)
            await liar.request(routers[0].local, Message(MessageType.PING))
        found = await providers(routers[0], "sha256:wanted")
        assert 0 < len(found) <= min(FOUND_MAX, PROVIDERS_TAKEN_MAX * len(liars))


async def test_what_the_bootstrap_names_is_a_member_and_what_only_came_by_is_not() -> None:
    wire = MemoryWire(seed=14)
    named, other = silent(wire, "172.20.0.1"), silent(wire, "172.20.1.1")
    bootstrap = Bootstrap(StaticBootstrapper(named.local.addresses), Peerstore(None), Metrics(), Random(1))
    router = DhtRouter(wire.new_node(), bootstrap, Metrics(), Random(2))
    async with asyncio.TaskGroup() as group:
        task = group.create_task(router.run())
        await eventually(lambda: router._origin_of(named.local.peer_id).is_member, what="the named one is a member")
        await other.request(router.local, Message(MessageType.PING))
        bootstrap.wake()
        await eventually(lambda: len(router.peers()) == 2, what="both are there")
        assert router._origin_of(other.local.peer_id) == Origin("172.20.1.1")
        task.cancel()


async def test_a_peer_that_asks_too_much_is_slowed_then_reset_and_others_are_answered(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(cost_budget, "MESSAGE_SECONDS", 0.05)
    metrics, ping = Metrics(), Message(MessageType.PING).encode()
    async with dht_node(metrics=metrics) as router, new_host() as greedy, new_host() as modest:

        async def ask(host: Host) -> bool:
            try:
                async with await host.open_stream(router.local, "/spegel/kad/1.0.0") as stream:
                    await stream.write_message(ping)
                    return await stream.read_message(1024) == ping
            except Libp2pError:
                return False

        async with asyncio.TaskGroup() as group:
            asked = [group.create_task(ask(greedy)) for _ in range(50)]
            await eventually(
                lambda: _value(metrics, "speil_dht_refused_total", reason="peer") > 0, what="it is refused"
            )
            assert await ask(modest), "others are answered meanwhile"
        answers = [one.result() for one in asked]
        assert answers.count(True) >= 20, "what it had saved up is answered"
        assert answers.count(False) >= 1
        assert _value(metrics, "speil_dht_slowed_seconds_total") > 0


def _value(metrics: Metrics, name: str, **labels: str) -> float:
    return metrics.registry.get_sample_value(name, {"region": "", "zone": "", **labels}) or 0.0


async def test_a_buffered_crowd_of_messages_leaves_turns_to_everything_else() -> None:
    async with dht_node() as router, new_host() as host:
        stream = await host.open_stream(router.local, "/spegel/kad/1.0.0")
        answered = 0

        async def read() -> None:
            nonlocal answered
            while await stream.read_message(1024) is not None:
                answered += 1

        async with asyncio.TaskGroup() as group:
            reader = group.create_task(read())
            await stream.write((b"\x02" + Message(MessageType.PING).encode()) * 3_000)  # all at once
            most, last = 0, 0
            while answered < 1_000:
                await asyncio.sleep(0)
                most, last = max(most, answered - last), answered
            assert most <= 200, "messages came between two turns of another task"
            reader.cancel()
        stream.reset()


async def test_over_libp2p_many_keys_are_one_message_and_answers_tell_zones() -> None:
    metrics, keys = Metrics(), [f"sha256:{number:064x}" for number in range(500)]
    async with (
        dht_node(metrics=metrics, zone="a") as holder,
        dht_node(address(holder.local), zone="b") as keeper,
        dht_node(address(holder.local), zone="a") as asker,
    ):
        for router in (holder, keeper, asker):
            await eventually(lambda router=router: len(router.peers()) == 2, what="the mesh is complete")  # type: ignore[misc]
        await holder.provide(keys)
        now = asyncio.get_running_loop().time
        for router in (keeper, asker):
            await eventually(
                lambda router=router: all(  # type: ignore[misc]
                    holder.local in router._records.live(content_key(key), now()) for key in keys
                ),
                what="the records are there",
            )
        sent = {"direction": "out", "type": "ADD_PROVIDER", "region": "", "zone": ""}
        assert metrics.registry.get_sample_value("speil_dht_messages_total", sent) == 2
        question = Message(MessageType.GET_PROVIDERS, content_key(keys[7]))
        answer = await asker._network.request(keeper.local, question)
        assert [peer.zone for peer in answer.provider_peers] == ["a"]
        places = (place(content_key(keys[7])), place(content_key("nobody has it")))
        counts = await asker._network.request(keeper.local, replace(question, places=places, horizon_seconds=600))
        assert counts.counts == ((1, 1), (0, 0))
