"""Umpires on the DHT: what an Ask costs, who is named to whom, and peers that lie, flood, die, or know no claims."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from functools import partial
from itertools import count, islice
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from speil.claims import limits
from speil.claims.codec import MESSAGE_BYTES_MAX, decode, encode
from speil.claims.message import (
    DEAD_MAX,
    Alone,
    Ask,
    AskStatus,
    ClaimMessage,
    Defer,
    Ending,
    Fetch,
    Follow,
    Holders,
    Phase,
    Reason,
    Release,
    Row,
    Status,
    Tell,
    Why,
)
from speil.kad import wire_format as wire
from speil.kad.key import position
from speil.kad.message import Message, MessageType
from speil.kad.routing_table import K
from speil.libp2p.stream import Stream
from speil.multiformats import varint
from speil.multiformats.content_key import content_key
from speil.multiformats.multiaddr import Multiaddr
from speil.multiformats.peer_id import PeerId
from speil.multiformats.peer_info import PeerInfo
from speil.observe.metrics import Metrics
from speil.routing import gone_peers, umpire_server
from speil.routing.dht import DhtRouter
from speil.routing.gone_peers import GonePeers
from speil.routing.libp2p_network import Libp2pNetwork
from speil.routing.network import NetworkError
from speil.testing.claim_network_conformance import KEY, MISS, NAME, Statuses, by_distance
from speil.testing.eventually import eventually, stands_still
from speil.testing.network import MemoryNetwork, MemoryWire
from speil.testing.samples import sample
from speil.testing.virtual_time import run_virtual
from tests.conformance.test_routers import memory_dht
from tests.core.test_kad import peer
from tests.shell.mesh import address, dht_node
from tests.shell.test_dht import silent


@dataclass
class Mesh:
    """DHT nodes that know each other, the one closest to KEY first."""

    wire: MemoryWire
    routers: Sequence[DhtRouter]

    def stranger(self, host: str = "", *, answer: ClaimMessage | None = None) -> MemoryNetwork:
        """A node that does what a test says; `answer` is what it answers to any GET_PROVIDERS."""
        node = silent(self.wire, host or f"172.20.{len(self.wire.nodes)}.1")
        node.enable_claims()
        node._handler = lambda _, message: Message(message.type, message.key, claim=encode(answer) if answer else b"")
        return node

    @property
    def away(self) -> Ask:
        """A question that the asked node has to answer itself: all others are said to be dead."""
        return Ask(dead=tuple(self.wire.nodes)[:DEAD_MAX])

    async def meet(self, node: MemoryNetwork) -> None:
        """All routers get to know a stranger."""
        for router in self.routers:
            await node.request(router.local, Message(MessageType.PING))


@asynccontextmanager
async def mesh(size: int, *zones: str, seed: int = 1, labels: Sequence[str] = ()) -> AsyncIterator[Mesh]:
    wire = MemoryWire(seed=seed)
    async with memory_dht(wire, size, *zones, labels=labels, status=Statuses().of) as routers:
        for router in routers:
            await eventually(partial(_has_met, router, _others(router, routers)), what="they have met")
        order = [claims.local.peer_id for claims in by_distance([router.claims for router in routers])]
        yield Mesh(wire, sorted(routers, key=lambda router: order.index(router.local.peer_id)))


def _has_met(router: DhtRouter, others: int) -> bool:
    return len(router.peers()) >= others


def _others(router: DhtRouter, routers: Sequence[DhtRouter]) -> int:
    """How many others a router can meet."""
    label = _label(router)
    return sum(other is not router and (not label or _label(other) in ("", label)) for other in routers)


def _label(router: DhtRouter) -> str:
    assert isinstance(router._network, MemoryNetwork)
    return router._network.label


def claimed(router: DhtRouter, key: bytes = KEY) -> dict[PeerId, Phase]:
    """What a node's umpire knows of a key."""
    claim = router.claims.server.umpire.claim(key)
    return {peer_id: node.row.phase for peer_id, node in claim.nodes.items()} if claim else {}


async def say(node: MemoryNetwork, router: DhtRouter, message: ClaimMessage, key: bytes = KEY) -> None:
    """Send a claim message that has no answer."""
    await node.send(router.local, Message(MessageType.ADD_PROVIDER, key, claim=encode(message)))


async def ask(node: MemoryNetwork, router: DhtRouter, claim: bytes, key: bytes = KEY) -> Message:
    """A GET_PROVIDERS with a claim."""
    return await node.request(router.local, Message(MessageType.GET_PROVIDERS, key, claim=claim))


# --- what it costs ------------------------------------------------------------------------------------------


async def test_an_ask_is_one_request_on_a_stream_that_is_kept() -> None:
    metrics = Metrics()
    status = Statuses().of
    async with dht_node(status=status) as one, dht_node(address(one.local), metrics=metrics, status=status) as other:
        await eventually(lambda: one.peers() and other.peers(), what="they have met")
        away = Ask(dead=(other.local.peer_id,))
        await other.claims.ask(one.claims.local, KEY, away)
        await stands_still(lambda: int(sample(metrics, "speil_dht_messages_total")), what="the mesh has settled")
        kept = idle_streams(other, one)
        before = sample(metrics, "speil_dht_messages_total", direction="out", type="GET_PROVIDERS")
        for number in range(20):
            await other.claims.ask(one.claims.local, content_key(f"content {number}"), away)
        await other.claims.release(one.claims.local, KEY, Release(Ending.CANCELLED))
        assert sample(metrics, "speil_dht_messages_total", direction="out", type="GET_PROVIDERS") - before == 20
        assert kept
        assert idle_streams(other, one) == kept


def idle_streams(router: DhtRouter, to: DhtRouter) -> set[Stream]:
    """The streams that are kept for the next request."""
    network = router._network
    assert isinstance(network, Libp2pNetwork)
    return {stream for stream, _ in network._idle.get(to.local.peer_id, [])}


async def test_the_answer_to_a_claim_names_no_peers_beside_it_and_other_questions_are_answered_as_before() -> None:
    async with mesh(5) as one:
        stranger = one.stranger()
        await one.meet(stranger)
        assert (await ask(stranger, one.routers[0], encode(MISS))).closer_peers == ()
        assert len((await ask(stranger, one.routers[0], b"")).closer_peers) == 4


# --- peers without claims -----------------------------------------------------------------------------------


async def test_a_node_without_claims_is_never_named_or_asked_and_answers_the_rest() -> None:
    wire = MemoryWire(seed=2)
    async with memory_dht(wire, 2, status=Statuses().of) as routers, memory_dht(wire, 1) as (old,):
        await old._network.dial(routers[0].local.addresses[0])
        await routers[1]._network.request(old.local, Message(MessageType.PING))
        await eventually(lambda: old.local.peer_id in {peer.peer_id for peer in routers[0].peers()}, what="met")
        for key in (content_key(f"content {number}") for number in range(20)):
            assert old.local.peer_id not in {peer.peer_id for peer in routers[0].claims.closest(key)}
            assert not isinstance(await routers[0].claims.ask(routers[0].claims.local, key, MISS), Alone)
        with pytest.raises(NetworkError, match="no valid claim"):
            await routers[0].claims.ask(old.local, KEY, MISS)
        answer = await routers[0]._network.request(
            old.local, Message(MessageType.GET_PROVIDERS, KEY, claim=encode(MISS))
        )
        assert answer.closer_peers
        assert old.claims.closest(KEY) == []
        # and it is not let in where it asks without having said that it understands the answer
        said = await old._network.request(routers[0].local, Message(MessageType.GET_PROVIDERS, KEY, claim=encode(MISS)))
        assert said.claim == b""
        assert said.closer_peers


# --- who is named -------------------------------------------------------------------------------------------


async def test_own_content_that_is_announced_makes_this_node_a_holder() -> None:
    async with mesh(3) as one:
        umpire, other, _ = one.routers
        assert await umpire.claims.ask(umpire.claims.local, KEY, MISS) == Fetch()
        await umpire.provide([NAME])
        answer = await other.claims.ask(umpire.claims.local, KEY, MISS)
        assert isinstance(answer, Holders)
        assert [holder.peer_id for holder in answer.peers] == [umpire.local.peer_id]


async def test_what_many_places_announce_in_one_message_completes_their_claims() -> None:
    async with mesh(2) as one:
        umpire, other = one.routers
        names = [f"content {number}" for number in range(20)]
        keys = [content_key(name) for name in names]
        for key in keys:
            await other.claims.ask(umpire.claims.local, key, Ask(dead=(other.local.peer_id,)))
        await other.provide(names)
        for key in keys:
            await eventually(
                lambda key=key: claimed(umpire, key)[other.local.peer_id] is Phase.COMPLETE,  # type: ignore[misc]
                what="it is complete",
            )


async def test_a_dead_peer_is_named_no_more_as_closer_nor_as_a_source() -> None:
    async with mesh(5) as one:
        closest, next_closest, fetcher, follower, asker = one.routers
        gone = Ask(dead=(closest.local.peer_id,))
        assert await fetcher.claims.ask(next_closest.claims.local, KEY, gone) == Fetch()
        followed = await follower.claims.ask(next_closest.claims.local, KEY, gone)
        assert isinstance(followed, Follow)
        one.wire.kill(closest.local.peer_id)
        one.wire.kill(fetcher.local.peer_id)
        # at once: the connections broke, and nothing was tried yet
        answer = await asker.claims.ask(next_closest.claims.local, KEY, MISS)
        assert answer == Fetch(), "neither the dead node that is closer, nor the dead fetcher, nor who follows it"
        placed = await follower.claims.ask(
            next_closest.claims.local, KEY, Ask(Reason.GONE, source=fetcher.local.peer_id)
        )
        assert isinstance(placed, Follow)
        assert placed.source.peer_id == asker.local.peer_id
        assert closest.local.peer_id not in {peer.peer_id for peer in asker.claims.closest(KEY)}


def test_a_peer_that_did_not_answer_is_left_out_for_a_while_and_one_that_is_gone_until_it_comes() -> None:
    gone, slow, lost = GonePeers(), peer(1).peer_id, peer(2).peer_id
    gone.failed(slow, 0.0)
    gone.lost(lost)
    assert set(gone.at(1.0)) == {slow, lost}
    assert set(gone.at(gone_peers.SLOW_SECONDS)) == {lost}
    gone.failed(lost, 20.0)
    assert set(gone.at(100.0)) == {lost}
    gone.back(lost)
    assert not gone.at(100.0)
    for number in range(gone_peers.PEERS_MAX + 10):
        gone.lost(PeerId.of_public_key(number.to_bytes(36, "big")))
    assert len(gone.at(0.0)) == gone_peers.PEERS_MAX


async def test_a_failed_ask_leaves_the_umpire_out_and_an_answer_brings_it_back() -> None:
    async with mesh(3) as one:
        closest, other, _ = one.routers
        one.wire.loss = 1.0
        with pytest.raises(NetworkError):
            await other.claims.ask(closest.claims.local, KEY, MISS)
        assert closest.local.peer_id not in {peer.peer_id for peer in other.claims.closest(KEY)}
        one.wire.loss = 0.0
        await other.claims.ask(closest.claims.local, KEY, MISS)
        assert other.claims.closest(KEY)[0].peer_id == closest.local.peer_id


async def test_the_closest_that_a_lookup_found_are_used_where_the_table_does_not_have_them() -> None:
    async with mesh(3) as one:
        closest, other, _ = one.routers
        async for _ in other.find_providers(NAME, timeout_seconds=2):
            pass
        other._table.remove(closest.local.peer_id)
        assert other.claims.closest(KEY)[0].peer_id == closest.local.peer_id


async def test_peers_of_one_label_are_not_named_to_another() -> None:
    async with mesh(4, labels=("", "eu", "us", "eu")) as one:
        plain = next(router for router in one.routers if not _label(router))
        us = next(router for router in one.routers if _label(router) == "us")
        first, second = (router for router in one.routers if _label(router) == "eu")
        everyone = [router.claims for router in one.routers]
        key = next(key for key in map(content_key, map(str, count())) if by_distance(everyone, key)[0] is plain.claims)
        assert await us.claims.ask(plain.claims.local, key, MISS) == Fetch()
        assert await first.claims.ask(plain.claims.local, key, MISS) == Fetch(), "it can't follow the other label"
        followed = await second.claims.ask(plain.claims.local, key, MISS)
        assert isinstance(followed, Follow)
        assert followed.source.peer_id == first.local.peer_id
        await eventually(lambda: claimed(us, key) == {us.local.peer_id: Phase.FETCHING}, what="it is told of itself")
        ours = {first.local.peer_id: Phase.FETCHING, second.local.peer_id: Phase.FOLLOWING}
        await eventually(
            lambda: ours in (claimed(first, key), claimed(second, key)), what="the others are told of both"
        )
        assert claimed(us, key) == {us.local.peer_id: Phase.FETCHING}


# --- liars --------------------------------------------------------------------------------------------------


def nested(depth: int) -> bytes:
    """Fields in fields."""
    data = b"\x08\x09"
    for _ in range(depth):
        data = varint.encode(2 << 3 | wire.BYTES) + varint.encode(len(data)) + data
    return b"\x08\x09" + data


GARBAGE = [
    b"\x00",
    b"\xff" * 100,
    b"\x08\x63",
    bytes(MESSAGE_BYTES_MAX),
    b"\x08\x01" * (MESSAGE_BYTES_MAX // 2),
    nested(5_000),
    b"\x08\x09" + b"\x12\x00" * 5_000,
    encode(Fetch()),
    encode(Status(Phase.FETCHING)),
]


@pytest.mark.parametrize("claim", GARBAGE, ids=range(len(GARBAGE)))
async def test_garbage_in_the_field_is_a_message_without_a_claim(claim: bytes) -> None:
    async with mesh(3) as one:
        stranger, victim = one.stranger(), one.routers[0]
        await one.meet(stranger)
        answer = await ask(stranger, victim, claim)
        assert answer.claim == b""
        assert len(answer.closer_peers) == 2, "the rest is answered"
        await stranger.send(victim.local, Message(MessageType.ADD_PROVIDER, KEY, claim=claim))
        assert claimed(victim) == {}
        assert await one.routers[1].claims.ask(victim.claims.local, KEY, one.away) == Fetch()


@given(st.lists(st.tuples(st.booleans(), st.binary(max_size=200)), max_size=10))
def test_no_bytes_in_the_field_stop_a_node(messages: list[tuple[bool, bytes]]) -> None:
    async def run() -> None:
        async with mesh(2) as one:
            stranger, victim = one.stranger(), one.routers[0]
            await one.meet(stranger)
            for is_question, claim in messages:
                kind = MessageType.GET_PROVIDERS if is_question else MessageType.ADD_PROVIDER
                await stranger.send(victim.local, Message(kind, KEY, claim=claim))
            key = content_key("other content")
            assert await one.routers[1].claims.ask(victim.claims.local, key, one.away) == Fetch()

    run_virtual(run())


@pytest.mark.parametrize(
    "answer",
    [
        Status(Phase.FETCHING),
        AskStatus(),
        Ask(),
        Tell(()),
        Follow(PeerInfo(peer(1).peer_id)),
        Defer(PeerInfo(peer(1).peer_id)),
        Holders((PeerInfo(peer(1).peer_id),)),
        None,
    ],
    ids=str,
)
async def test_an_answer_that_is_none_or_names_nobody_of_use_is_an_error(answer: ClaimMessage | None) -> None:
    async with mesh(2) as one:
        liar = one.stranger(answer=answer)
        await one.meet(liar)
        with pytest.raises(NetworkError, match="no valid claim"):
            await one.routers[0].claims.ask(liar.local, KEY, MISS)
        if not isinstance(answer, Status):
            with pytest.raises(NetworkError, match="no valid status"):
                await one.routers[0].claims.ask_status(liar.local, KEY)


async def test_an_answer_that_names_the_asker_itself_is_only_good_for_asking_itself() -> None:
    async with mesh(2) as one:
        asker = one.routers[0]
        for answer in (Follow(asker.local), Holders((asker.local,))):
            liar = one.stranger(answer=answer)
            await one.meet(liar)
            with pytest.raises(NetworkError, match="no valid claim"):
                await asker.claims.ask(liar.local, KEY, MISS)
        liar = one.stranger(answer=Defer(asker.local))
        await one.meet(liar)
        assert await asker.claims.ask(liar.local, KEY, MISS) == Defer(asker.claims.local)


ELSEWHERE = ("169.254.169.254", "224.0.0.1", "0.0.0.0", "100.100.100.200")


async def test_over_libp2p_named_addresses_pass_the_rules_for_dialling() -> None:
    status = Statuses().of
    async with dht_node(status=status) as one, dht_node(address(one.local), status=status) as other:
        await eventually(lambda: one.peers() and other.peers(), what="they have met")
        peers, namer = one.claims._peers, other.local.peer_id
        bad = tuple(Multiaddr.of_tcp(host, 5001) for host in ELSEWHERE)
        good = Multiaddr.of_tcp("10.1.2.3", 5001)
        assert peers.checked(namer, Follow(PeerInfo(peer(1).peer_id, bad))) is None
        assert peers.checked(namer, Follow(PeerInfo(peer(1).peer_id, (*bad, good)))) == Follow(
            PeerInfo(peer(1).peer_id, (good,))
        )
        assert peers.checked(namer, Defer(PeerInfo(peer(1).peer_id, (Multiaddr.of_tcp("10.1.2.3", 22),)))) is None
        rows = Tell((Row(PeerInfo(peer(1).peer_id, bad), Phase.FETCHING, 2), Row(other.local, Phase.FETCHING, 2)))
        told = peers.checked(namer, rows)
        assert isinstance(told, Tell)
        assert [row.peer.peer_id for row in told.rows] == [other.local.peer_id]
        # what this node knows of a peer itself counts more than what is said of it
        lie = replace(other.local, addresses=(good,))
        assert peers.checked(namer, Follow(lie)) == Follow(other.local)


async def test_only_nodes_near_the_key_are_believed_about_its_claim() -> None:
    async with mesh(1) as one:
        (victim,) = one.routers
        rng = Random(3)
        target = position(KEY)
        strangers = sorted(
            (one.stranger(f"172.{rng.randrange(20, 250)}.{number}.1") for number in range(4 * K)),
            key=lambda node: position(node.local.peer_id.multihash) ^ target,
        )
        tell = Tell((Row(peer(1), Phase.FETCHING, 2),))
        for node in strangers:
            await one.meet(node)
        await say(strangers[-1], victim, tell)
        assert claimed(victim) == {}
        await say(strangers[0], victim, tell)
        assert claimed(victim) == {peer(1).peer_id: Phase.FETCHING}


async def test_loops_in_what_is_told_end() -> None:
    async with mesh(2) as one:
        victim = one.routers[0]
        liar = one.stranger()
        await one.meet(liar)
        ring = [peer(number) for number in range(1, 41)]
        for start in range(0, len(ring), 10):  # each follows the next one, the last the first
            rows = [
                Row(ring[index], Phase.FOLLOWING, 2, ring[(index + 1) % len(ring)].peer_id)
                for index in range(start, start + 10)
            ]
            await say(liar, victim, Tell(tuple(rows)))
            await say(liar, victim, Tell(tuple(reversed(rows))))
        assert await one.routers[1].claims.ask(victim.claims.local, KEY, one.away) == Fetch()


async def test_a_flood_from_many_identities_of_one_network_leaves_room_for_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(limits, "NODES_PER_SHARE_MAX", 256)
    async with mesh(2) as one:
        victim, other = one.routers
        strangers = [one.stranger(f"172.30.1.{number}") for number in range(1, 7)]
        for node in strangers:
            await one.meet(node)
        ids = [victim.local.peer_id, other.local.peer_id, *(node.local.peer_id for node in strangers)]
        keys = (content_key(f"flood {number}") for number in count())
        near = (key for key in keys if min(ids, key=lambda one: position(one.multihash) ^ position(key)) == ids[0])
        refused = 0
        for node in strangers:
            for key in islice(near, 64):
                refused += decode((await ask(node, victim, encode(MISS), key)).claim) == Alone(Why.LIMIT)
        assert victim.claims.server.umpire.node_count == 256
        assert refused == 6 * 64 - 256
        assert victim.claims._server._series.refused.labels("limit")._value.get() == refused
        answer = await other.claims.ask(victim.claims.local, next(near), MISS)
        assert answer == Fetch(), "another network is served as before"


async def test_a_flood_of_questions_does_not_become_a_flood_of_messages() -> None:
    async with mesh(4) as one:
        victim = one.routers[0]
        told = 0

        def note(source: PeerId, _: PeerId, message: Message) -> None:
            nonlocal told
            told += source == victim.local.peer_id and message.type is MessageType.ADD_PROVIDER and bool(message.claim)

        stranger = one.stranger()
        await one.meet(stranger)
        one.wire.on_carried = note
        loop = asyncio.get_running_loop()
        begun = loop.time()
        away = encode(Ask(dead=tuple(router.local.peer_id for router in one.routers)))
        for number in range(400):
            await ask(stranger, victim, away, content_key(f"flood {number}"))
        server = victim.claims._server
        await eventually(lambda: server._series.refused.labels("rate")._value.get() > 0, what="a limit is reached")
        seconds = loop.time() - begun
        assert told <= umpire_server.TELL_BURST + umpire_server.TELLS_PER_SECOND * (seconds + 1)


# --- what operators see -------------------------------------------------------------------------------------


async def test_state_and_metrics_show_who_fetches_and_who_follows() -> None:
    async with mesh(4) as one:
        umpire, first, second, third = one.routers
        for router in (first, second, third):
            await router.claims.ask(umpire.claims.local, KEY, MISS)
        await first.claims.ask(second.claims.local, KEY, MISS)
        state = umpire.claims.state()
        assert state["claims_held"] == 1
        (listed,) = state["claims"]
        assert listed["key"] == KEY[2:10].hex()
        assert listed["fetchers"] == str(first.local.peer_id)
        assert (listed["followers"], listed["complete"]) == (2, 0)
        assert f"{second.local.peer_id.short} from {first.local.peer_id.short}" in listed["first_followers"]
        series = umpire.claims._server._series
        counts = {kind: series.answers.labels(kind)._value.get() for kind in ("fetch", "follow", "defer")}
        assert counts == {"fetch": 1, "follow": 2, "defer": 0}
        assert series.held._value.get() == 1
        assert second.claims._server._series.answers.labels("defer")._value.get() == 1
        for number in range(umpire_server.CLAIMS_LISTED_MAX + 10):
            key = content_key(f"more {number}")
            await umpire.claims.ask(umpire.claims.local, key, Ask(dead=tuple(one.local.peer_id for one in one.routers)))
        assert len(umpire.claims.state()["claims"]) == umpire_server.CLAIMS_LISTED_MAX
