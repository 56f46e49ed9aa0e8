"""The Kademlia core: table, lookup, records, schedule, messages."""

from __future__ import annotations

import contextlib
import hashlib
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from speil.kad._pb import dht_pb2
from speil.kad.key import BITS, common_prefix_length, position
from speil.kad.lookup import PEERS_HEARD_MAX, QUERY_SECONDS_MAX, Lookup
from speil.kad.message import KEY_BYTES_MAX, PEERS_MAX, Message, MessageError, MessageType
from speil.kad.provide_schedule import REPROVIDE_SECONDS, ProvideSchedule
from speil.kad.provider_records import PROVIDERS_ANSWERED_MAX, PROVIDERS_PER_KEY_MAX, VALIDITY_SECONDS, ProviderRecords
from speil.kad.routing_table import PEERS_PER_ADDRESS_MAX, K, RoutingTable
from speil.multiformats.content_key import content_key
from speil.multiformats.multiaddr import Multiaddr
from speil.multiformats.peer_id import PeerId
from speil.multiformats.peer_info import PeerInfo


def peer(number: int, host: str | None = None) -> PeerInfo:
    """A made-up peer, the same for the same number."""
    peer_id = PeerId.of_public_key(hashlib.sha256(number.to_bytes(4, "big")).digest())
    address = host or f"10.{number >> 16 & 255}.{number >> 8 & 255}.{number & 255}"
    return PeerInfo(peer_id, (Multiaddr.of_tcp(address, 5001),))


def far(one: PeerInfo, target: int) -> int:
    return position(one.peer_id.multihash) ^ target


# --- keys and routing table ----------------------------------------------------------------------------------


@given(st.integers(0, 2**BITS - 1), st.integers(0, 2**BITS - 1))
def test_a_common_prefix_is_common(first: int, second: int) -> None:
    length = common_prefix_length(first, second)
    assert first >> (BITS - length) == second >> (BITS - length)
    if length < BITS:
        assert first >> (BITS - length - 1) != second >> (BITS - length - 1)


@given(st.lists(st.tuples(st.integers(0, 400), st.sampled_from(["add", "fail", "remove"])), max_size=300))
@settings(max_examples=50)
def test_the_table_never_outgrows_its_buckets_and_never_holds_itself(steps: list[tuple[int, str]]) -> None:
    local = peer(0).peer_id
    table = RoutingTable(local)
    for now, (number, action) in enumerate(steps):
        one = peer(number)
        if action == "add":
            assert table.add(one, now) == (one.peer_id in table)
        elif action == "fail":
            table.failed(one.peer_id)
        else:
            table.remove(one.peer_id)
            assert one.peer_id not in table
        assert local not in table
    counts: dict[int, int] = {}
    for one in table:
        length = common_prefix_length(position(one.peer_id.multihash), position(local.multihash))
        counts[length] = counts.get(length, 0) + 1
    assert all(count <= K for count in counts.values())
    assert sum(counts.values()) == len(table)


@given(st.sets(st.integers(1, 200), min_size=1, max_size=60), st.binary(min_size=1, max_size=10))
def test_closest_is_closest(numbers: set[int], key: bytes) -> None:
    table, target = RoutingTable(peer(0).peer_id), position(key)
    for number in numbers:
        table.add(peer(number), 0)
    found = table.closest(target, 5)
    assert [far(one, target) for one in found] == sorted(far(one, target) for one in table)[:5]


def test_a_full_bucket_keeps_those_who_answer_and_replaces_one_that_failed() -> None:
    local = peer(0)
    same_bucket = [
        peer(number)
        for number in range(1, 400)
        if common_prefix_length(position(peer(number).peer_id.multihash), position(local.peer_id.multihash)) == 0
    ][: K + 1]
    table = RoutingTable(local.peer_id)
    for one in same_bucket[:K]:
        assert table.add(one, 0)
    assert not table.add(same_bucket[K], 1), "old and living stays"
    table.failed(same_bucket[3].peer_id)
    assert table.add(same_bucket[K], 2)
    assert same_bucket[3].peer_id not in table


def test_one_address_can_not_fill_the_table() -> None:
    table = RoutingTable(peer(0).peer_id)
    for number in range(1, 300):
        table.add(peer(number, host="10.9.9.9"), 0)
    assert len(table) <= PEERS_PER_ADDRESS_MAX


# --- lookup --------------------------------------------------------------------------------------------------


class World:
    """Peers with full knowledge of their neighbourhood, some of which are dead or lie."""

    def __init__(self, count: int, rng: Random, dead: float, liars: float) -> None:
        self.peers = [peer(number) for number in range(1, count + 1)]
        self.dead = {one.peer_id for one in self.peers if rng.random() < dead}
        self.liars = {one.peer_id for one in self.peers if rng.random() < liars}
        self._rng = rng

    def answer(self, asked: PeerInfo, target: int) -> list[PeerInfo] | None:
        if asked.peer_id in self.dead:
            return None
        if asked.peer_id in self.liars:
            return [peer(self._rng.randrange(10_000, 2**24)) for _ in range(K)]
        return sorted(self.peers, key=lambda one: far(one, target))[:K]


def run_lookup(world: World, seeds: int, rng: Random) -> tuple[Lookup, int]:
    """Drive a lookup, answers in random order, the dead by their deadline; it and the simulated seconds."""
    key, now, asked = content_key("x"), 0.0, set[PeerId]()
    lookup = Lookup(key, peer(0).peer_id, world.peers[:seeds])
    waiting: list[PeerInfo] = []
    while not lookup.done:
        for one in lookup.ask(now):
            assert one.peer_id not in asked, "nobody is asked twice"
            asked.add(one.peer_id)
            waiting.append(one)
        rng.shuffle(waiting)
        alive = [one for one in waiting if world.answer(one, 0) is not None and one.peer_id not in world.dead]
        if alive:
            one = alive[0]
            waiting.remove(one)
            lookup.answered(one.peer_id, world.answer(one, position(key)) or ())
        else:
            deadline = lookup.next_deadline()
            assert deadline is not None
            now = deadline
            lookup.expire(now)
            waiting = []
    return lookup, int(now)


@given(st.integers(0, 2**32), st.integers(1, 120), st.sampled_from([0.0, 0.2, 0.5]))
@settings(max_examples=60)
def test_a_lookup_ends_and_finds_the_closest_that_live(seed: int, count: int, dead: float) -> None:
    rng = Random(seed)
    world = World(count, rng, dead, liars=0)
    lookup, seconds = run_lookup(world, min(count, 5), rng)
    target = position(content_key("x"))
    result = lookup.result()
    assert result == sorted(result, key=lambda one: far(one, target))
    assert not {one.peer_id for one in result} & world.dead
    closest = sorted(world.peers, key=lambda one: far(one, target))[:K]
    if any(one.peer_id not in world.dead for one in world.peers[:5]):
        living = [one for one in closest if one.peer_id not in world.dead]
        assert result[: len(living)] == living, "of the k closest all that live are found"
    else:
        assert result == []
    assert seconds <= QUERY_SECONDS_MAX * count


@given(st.integers(0, 2**32))
@settings(max_examples=20)
def test_liars_can_not_make_a_lookup_endless(seed: int) -> None:
    rng = Random(seed)
    world = World(50, rng, dead=0, liars=0.3)
    # whom liars name does not exist: they never answer
    real = {one.peer_id for one in world.peers}
    key, now = content_key("x"), 0.0
    lookup = Lookup(key, peer(0).peer_id, world.peers[:3])
    asked = 0
    while not lookup.done:
        for one in lookup.ask(now):
            asked += 1
            if one.peer_id in real:
                lookup.answered(one.peer_id, world.answer(one, position(key)) or ())
        if not lookup.done and (deadline := lookup.next_deadline()) is not None:
            now = deadline
            lookup.expire(now)
    assert asked <= PEERS_HEARD_MAX


# --- provider records ----------------------------------------------------------------------------------------


def test_a_record_lives_as_long_as_it_is_valid() -> None:
    records = ProviderRecords()
    records.add(b"k", peer(1), now=0)
    assert records.providers(b"k", VALIDITY_SECONDS - 1, Random(1)) == [peer(1)]
    assert records.providers(b"k", VALIDITY_SECONDS, Random(1)) == []
    records.expire(VALIDITY_SECONDS)
    assert (len(records), records.key_count) == (0, 0)


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(1, 100), st.booleans(), st.integers(0, 3000)), max_size=300))
@settings(max_examples=50)
def test_records_stay_within_their_bounds(steps: list[tuple[int, int, bool, int]]) -> None:
    records, model, now = ProviderRecords(), dict[tuple[bytes, PeerId], float](), 0.0
    for key_number, number, remove, pause in steps:
        now += pause
        key, one = bytes([key_number]), peer(number)
        if remove:
            records.remove(key, one.peer_id)
            model.pop((key, one.peer_id), None)
        elif records.add(key, one, now):
            model[key, one.peer_id] = now + VALIDITY_SECONDS
        records.expire(now)
    for key_number in range(6):
        found = records.providers(bytes([key_number]), now, Random(0))
        assert len(found) <= PROVIDERS_ANSWERED_MAX
        assert all(model[bytes([key_number]), one.peer_id] > now for one in found)
    assert len(records) <= 6 * PROVIDERS_PER_KEY_MAX


def test_the_oldest_record_of_a_popular_key_gives_way() -> None:
    records = ProviderRecords()
    for number in range(PROVIDERS_PER_KEY_MAX + 1):
        assert records.add(b"k", peer(number), now=number)
    records.remove(b"other", peer(0).peer_id)
    assert len(records) == PROVIDERS_PER_KEY_MAX


# --- schedule ------------------------------------------------------------------------------------------------


@given(st.sets(st.text(min_size=1, max_size=3), min_size=1, max_size=40), st.integers(0, 2**32))
def test_every_key_comes_up_once_at_once_and_again_before_its_records_run_out(keys: set[str], seed: int) -> None:
    schedule = ProvideSchedule(Random(seed))
    schedule.add(keys, now=0)
    first = schedule.due(0, 1000)
    assert sorted(first) == sorted(keys)
    assert schedule.due(0, 1000) == []
    schedule.announced(first, now=0)
    times = []
    while (deadline := schedule.next_deadline()) is not None:
        times += [deadline for _ in schedule.due(deadline, 1000)]
    assert len(times) == len(keys)
    assert all(REPROVIDE_SECONDS * 0.9 <= time <= REPROVIDE_SECONDS < VALIDITY_SECONDS for time in times)


def test_what_is_withdrawn_does_not_come_up_again() -> None:
    schedule = ProvideSchedule(Random(1))
    schedule.add(["a", "b"], now=0)
    schedule.remove(["a"])
    assert schedule.due(0, 10) == ["b"]
    schedule.failed(["a", "b"], now=0)
    assert schedule.due(100, 10) == ["b"]


# --- messages ------------------------------------------------------------------------------------------------


@given(st.sampled_from(MessageType), st.binary(max_size=KEY_BYTES_MAX), st.lists(st.integers(1, 50), max_size=5))
def test_a_message_survives_the_wire(kind: MessageType, key: bytes, numbers: list[int]) -> None:
    peers = tuple(peer(number) for number in numbers)
    message = Message(kind, key, peers, peers)
    assert Message.decode(message.encode()) == message


@given(st.binary(max_size=200))
def test_no_bytes_break_the_decoder(data: bytes) -> None:
    with contextlib.suppress(MessageError):
        Message.decode(data)


def test_hostile_messages_are_cut_down_or_refused() -> None:
    with pytest.raises(MessageError, match="key"):
        Message.decode(Message(MessageType.PING, bytes(KEY_BYTES_MAX + 1)).encode())
    many = Message(MessageType.FIND_NODE, b"k", tuple(peer(number) for number in range(500)))
    assert len(Message.decode(many.encode()).closer_peers) == PEERS_MAX
    odd = dht_pb2.Message(type=dht_pb2.Message.FIND_NODE)
    odd.closer_peers.add(id=b"nonsense", addrs=[b"x"])
    odd.closer_peers.add(id=peer(1).peer_id.multihash, addrs=[b"\xff\xff", peer(1).addresses[0].encode()])
    assert Message.decode(odd.SerializeToString()).closer_peers == (peer(1),)
