"""The Kademlia core: table, lookup, records, schedule, messages."""

from __future__ import annotations

import contextlib
import hashlib
from collections import Counter
from dataclasses import replace
from itertools import pairwise
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from speil.kad._pb import dht_pb2
from speil.kad.coverage import (
    ASKED,
    ENOUGH,
    ENOUGH_FOR_NEW,
    ENOUGH_IN_ZONE,
    HORIZON_SECONDS,
    is_covered,
    whom_to_ask,
)
from speil.kad.key import BITS, Key, common_prefix_length, place, position
from speil.kad.lookup import BETA, PEERS_HEARD_MAX, QUERY_SECONDS_MAX, Lookup
from speil.kad.message import (
    KEY_BYTES_MAX,
    PEERS_MAX,
    PLACES_MAX,
    Message,
    MessageError,
    MessageType,
    announcements,
)
from speil.kad.network_group import OwnNetwork
from speil.kad.provide_schedule import (
    ANNOUNCE_SECONDS_MAX,
    LOOK_SECONDS_MAX,
    REPROVIDE_SECONDS,
    RETRY_SECONDS,
    ProvideSchedule,
)
from speil.kad.provider_records import (
    EXPIRE_KEYS_MAX,
    PROVIDERS_ANSWERED_MAX,
    PROVIDERS_PER_KEY_MAX,
    VALIDITY_SECONDS,
    ProviderRecords,
)
from speil.kad.routing_table import PEERS_PER_ADDRESS_MAX, K, RoutingTable
from speil.multiformats.content_key import content_key
from speil.multiformats.multiaddr import Multiaddr
from speil.multiformats.peer_id import PeerId
from speil.multiformats.peer_info import PeerInfo
from speil.testing.announce_world import deep_size
from tests.properties import examples


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
@settings(max_examples=examples(50))
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
    table = RoutingTable(local.peer_id, OwnNetwork(local.hosts))
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


def run_lookup(world: World, seeds: int, rng: Random, converge: int = K) -> tuple[Lookup, int]:
    """Drive a lookup, answers in random order, the dead by their deadline; it and the simulated seconds."""
    key, now, asked = content_key("x"), 0.0, set[PeerId]()
    lookup = Lookup(key, peer(0).peer_id, world.peers[:seeds], converge)
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
@settings(max_examples=examples(60))
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


@given(st.integers(0, 2**32), st.integers(1, 120))
@settings(max_examples=examples(30))
def test_a_few_answers_tell_who_the_closest_are(seed: int, count: int) -> None:
    rng = Random(seed)
    world = World(count, rng, dead=0, liars=0)
    lookup, _ = run_lookup(world, min(count, 5), rng, converge=BETA)
    target = position(content_key("x"))
    assert lookup.closest() == sorted(world.peers, key=lambda one: far(one, target))[:K]
    assert lookup.answered_count <= min(count, 5 + 2 * BETA)


@given(st.integers(0, 2**32))
@settings(max_examples=examples(20))
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
@settings(max_examples=examples(50))
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


def test_records_go_when_they_run_out_a_part_at_a_time() -> None:
    records = ProviderRecords()
    for number in range(EXPIRE_KEYS_MAX + 10):
        records.add(number.to_bytes(4, "big"), peer(1), now=0)
    records.add(b"later", peer(2), now=5)
    assert records.expire_some(VALIDITY_SECONDS), "there is more to look at"
    assert EXPIRE_KEYS_MAX // 2 <= len(records) < EXPIRE_KEYS_MAX, "a key and a record to drop are a look each"
    records.expire(VALIDITY_SECONDS)
    assert len(records) == 1
    assert (records.provider(peer(1).peer_id), records.provider(peer(2).peer_id)) == (None, peer(2))


def test_records_are_small() -> None:
    records, rng = ProviderRecords(), Random(1)
    for number in range(300):
        records.add_places(range(0, 10_000 * 2**40, 2**40), peer(number), now=0) if number < 2 else None
        records.add_places((rng.randrange(10_000) * 2**40 for _ in range(200)), peer(number), now=0)
    assert records.key_count == 10_000
    assert deep_size(records) < 10_000 * 150 + len(records) * 16 + 300 * 3_000
    words = records._shares.words
    assert deep_size(records) < 8 * words * 1.25, "what peers pay is what their records take"


def test_an_answer_is_mixed_from_all_zones_and_half_from_the_askers() -> None:
    records = ProviderRecords()
    for number in range(60):
        zone = ("a", "b", "c")[number % 3] if number < 45 else "a"
        records.add(b"k", replace(peer(number), zone=zone), now=0)

    def zones(asker: str) -> Counter[str]:
        found = records.providers(b"k", 1, Random(3), asker)
        assert len({one.peer_id for one in found}) == len(found) == PROVIDERS_ANSWERED_MAX
        return Counter(one.zone for one in found)

    assert zones("b") == {"b": 10, "a": 5, "c": 5}
    assert sorted(zones("").values()) == [6, 7, 7]
    assert sorted(zones("elsewhere").values()) == [6, 7, 7]
    few = ProviderRecords()
    for number in range(30):
        few.add(b"k", replace(peer(number), zone="a" if number else "b"), now=0)
    for asker in ("a", "b", ""):
        found = few.providers(b"k", 1, Random(3), asker)
        assert len(found) == PROVIDERS_ANSWERED_MAX, "what one zone lacks others fill"
        assert "b" in {one.zone for one in found}, "no zone is left out"


def test_providers_that_were_found_away_neither_count_nor_are_named_until_they_are_back() -> None:
    records, key = ProviderRecords(), b"k"
    for number in (1, 2):
        records.add(key, replace(peer(number), zone="a"), now=0)
    nobody = peer(0).peer_id
    assert records.count(place(key), 10, "a", nobody) == (2, 2)
    assert records.count(place(key), 10, "b", peer(1).peer_id) == (1, 0), "the asker does not count"
    assert records.count(place(key), VALIDITY_SECONDS, "a", nobody) == (0, 0), "they don't last so long"
    records.mark_away(peer(1).peer_id)
    assert records.providers(key, 1, Random(1)) == [peer(2)]
    assert records.count(place(key), 10, "a", nobody) == (1, 1)
    records.mark_away(peer(2).peer_id)
    assert len(records.providers(key, 1, Random(1))) == 2, "better than nobody"
    records.mark_back(peer(1).peer_id)
    assert records.providers(key, 1, Random(1)) == [peer(1)]


# --- schedule ------------------------------------------------------------------------------------------------


def test_new_keys_come_up_at_once_and_once() -> None:
    schedule = ProvideSchedule(Random(1))
    assert len(schedule.add(["a", "b"], now=0)) == 2
    assert schedule.add(["b"], now=0) == []
    taken = schedule.take_new()
    assert sorted(key.name for key in taken) == ["a", "b"]
    assert taken == sorted(taken, key=lambda key: key.position)
    assert all(map(schedule.is_new, taken))
    assert schedule.take_new() == []
    schedule.announced(taken, now=0)
    assert not any(map(schedule.is_new, taken))
    assert schedule.first_due(0) is None


def test_the_delay_of_a_batch_is_the_time_since_its_first_key_was_due() -> None:
    schedule = ProvideSchedule(Random(1))
    schedule.add(["a"], now=10)
    schedule.add(["b"], now=12)
    taken = schedule.take_new()
    assert schedule.delay(taken, now=13) == 3
    schedule.failed(taken, now=13)
    key = schedule.first_due(13 + RETRY_SECONDS)
    assert key
    taken = schedule.take_neighbours(key, 0, now=13 + RETRY_SECONDS)
    assert schedule.delay(taken, now=15 + RETRY_SECONDS) == 2
    schedule.announced(taken, now=15 + RETRY_SECONDS)
    early = schedule.take_neighbours(taken[0], 0, now=0)
    assert schedule.delay(early, now=0) == 0, "a key that is announced before its time is not late"
    schedule.remove(["a", "b"])
    assert schedule.delay(early, now=0) == 0


@given(
    st.sets(st.text(min_size=1, max_size=3), min_size=1, max_size=40),
    st.lists(st.sampled_from(["announced", "skipped", "failed"]), min_size=1, max_size=60),
    st.integers(0, 6),
    st.integers(0, 2**32),
)
def test_no_key_waits_longer_than_its_outcome_allows(
    names: set[str], outcomes: list[str], bits: int, seed: int
) -> None:
    longest = {"announced": ANNOUNCE_SECONDS_MAX, "skipped": LOOK_SECONDS_MAX, "failed": RETRY_SECONDS}
    schedule, now = ProvideSchedule(Random(seed)), 0.0
    schedule.add(names, now)
    schedule.announced(schedule.take_new(), now)
    until = dict.fromkeys(names, ANNOUNCE_SECONDS_MAX)
    for outcome in outcomes:
        deadline = schedule.next_deadline()
        assert deadline is not None
        now = max(now, deadline)
        if (key := schedule.first_due(now)) is None:
            continue  # the deadline was of a key that came up early, with its neighbours
        batch = schedule.take_neighbours(key, bits, now)
        assert key in batch
        assert all(common_prefix_length(one.position, key.position) >= bits for one in batch)
        assert all(until[one.name] >= now for one in batch)
        getattr(schedule, outcome)(batch, now)
        until.update((one.name, now + longest[outcome]) for one in batch)
    assert all(time >= now for time in until.values()), "nobody was left behind"


def test_keys_are_spread_over_the_sweep_and_neighbours_stay_together() -> None:
    schedule, batches = ProvideSchedule(Random(7)), list[tuple[float, int]]()
    schedule.add((str(number) for number in range(1000)), now=0)
    schedule.announced(schedule.take_new(), now=0)
    now = 0.0
    while now < 5 * REPROVIDE_SECONDS:
        if key := schedule.first_due(now):
            batch = schedule.take_neighbours(key, 4, now)
            batches.append((now, len(batch)))
            schedule.announced(batch, now)
        else:
            now = max(now, schedule.next_deadline() or now)
    last = [(time, count) for time, count in batches if time > 4 * REPROVIDE_SECONDS]
    assert sum(count for _, count in last) == 1000, "each comes up once in the interval"
    assert len(last) <= 20, "sixteenths of the key space come up as such"
    times = [time for time, _ in last]
    assert max(later - earlier for earlier, later in pairwise(times)) <= REPROVIDE_SECONDS * 0.6


def test_what_is_withdrawn_does_not_come_up_again() -> None:
    schedule = ProvideSchedule(Random(1))
    schedule.add(["a", "b", "c"], now=0)
    schedule.remove(["a"])
    taken = schedule.take_new()
    assert sorted(key.name for key in taken) == ["b", "c"]
    schedule.remove(["c"])
    schedule.failed(taken, now=0)
    key = schedule.first_due(100)
    assert key is not None
    schedule.remove(["b"])  # while its neighbours were looked for
    assert schedule.take_neighbours(key, 0, 100) == []
    assert (schedule.first_due(1000), len(schedule)) == (None, 0)


# --- coverage ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("counts", "has_zone", "is_new", "covered"),
    [
        ([], False, False, False),
        ([(99, 99)], False, False, False),  # one voice is none
        ([(ENOUGH, 0)] * 2, False, False, True),
        ([(ENOUGH, 0)] * 3, True, False, False),  # nobody in our zone
        ([(ENOUGH, ENOUGH_IN_ZONE)] * 3, True, False, True),
        ([(99, 99), (99, 99), (ENOUGH - 1, 99)], True, False, False),  # the least counts
        ([(ENOUGH, ENOUGH_IN_ZONE)] * 3, True, True, False),  # a rollout needs more
        ([(ENOUGH_FOR_NEW, ENOUGH_IN_ZONE)] * 3, True, True, True),
    ],
)
def test_when_a_key_is_covered(counts: list[tuple[int, int]], has_zone: bool, is_new: bool, covered: bool) -> None:
    assert is_covered(counts, has_zone=has_zone, is_new=is_new) is covered


def test_enough_records_outlive_the_next_look_by_the_times_alone() -> None:
    assert LOOK_SECONDS_MAX < HORIZON_SECONDS < VALIDITY_SECONDS
    assert ANNOUNCE_SECONDS_MAX < VALIDITY_SECONDS


@given(st.lists(st.sets(st.integers(0, 30)), max_size=12), st.integers(0, 2**32))
def test_each_key_is_asked_about_as_often_as_wanted_and_only_where_it_lies(kept: list[set[int]], seed: int) -> None:
    names = [Key.of(str(number)) for number in range(31)]
    keys_of = {peer(number).peer_id: [names[one] for one in sorted(numbers)] for number, numbers in enumerate(kept)}
    questions = whom_to_ask(keys_of, Random(seed))
    assert all(set(keys) <= set(keys_of[peer_id]) for peer_id, keys in questions.items())
    for key in names:
        places = sum(key in keys for keys in keys_of.values())
        assert sum(key in keys for keys in questions.values()) == min(places, ASKED)


def test_peers_that_keep_all_keys_need_no_more_questions_than_wanted() -> None:
    keys = [Key.of(str(number)) for number in range(100)]
    assert len(whom_to_ask({peer(number).peer_id: keys for number in range(20)}, Random(1))) == ASKED


# --- messages ------------------------------------------------------------------------------------------------


@given(st.sampled_from(MessageType), st.binary(max_size=KEY_BYTES_MAX), st.sets(st.integers(1, 50), max_size=5))
def test_a_message_survives_the_wire(kind: MessageType, key: bytes, numbers: set[int]) -> None:
    peers = tuple(peer(number) for number in numbers)
    message = Message(kind, key, peers, peers)
    assert Message.decode(message.encode()) == message


@given(st.binary(max_size=200))
def test_no_bytes_break_the_decoder(data: bytes) -> None:
    with contextlib.suppress(MessageError):
        Message.decode(data)


@given(st.lists(st.integers(0, 2**64 - 1), max_size=5), st.integers(0, 2000), st.sampled_from(["", "zone-1"]))
def test_our_own_fields_survive_the_wire(places: list[int], horizon: int, zone: str) -> None:
    counts = tuple((number, number // 2) for number in range(len(places)))
    provider = replace(peer(1), zone=zone)
    message = Message(MessageType.GET_PROVIDERS, b"k", (), (provider,), tuple(places), horizon, counts)
    decoded = Message.decode(message.encode())
    assert decoded == message
    assert decoded.provider_peers[0].zone == zone


def test_counts_that_do_not_fit_a_byte_are_cut() -> None:
    message = Message(MessageType.GET_PROVIDERS, counts=((1000, 256), (3, 0)))
    assert Message.decode(message.encode()).counts == ((255, 255), (3, 0))


def test_announcements_one_by_one_and_packed_name_the_same_keys() -> None:
    keys = [Key.of(str(number)) for number in range(PLACES_MAX + 5)]
    single = announcements(peer(1), keys, packed=False)
    assert [message.key for message in single] == [key.multihash for key in keys]
    packed = announcements(peer(1), keys, packed=True)
    assert len(packed) == 2
    named = [one for message in packed for one in (place(message.key), *message.places)]
    assert named == [key.place for key in keys]
    assert all(Message.decode(message.encode()) == message for message in packed)


def test_hostile_messages_are_cut_down_or_refused() -> None:
    with pytest.raises(MessageError, match="key"):
        Message.decode(Message(MessageType.PING, bytes(KEY_BYTES_MAX + 1)).encode())
    many = Message(MessageType.FIND_NODE, b"k", tuple(peer(number) for number in range(500)))
    assert len(Message.decode(many.encode()).closer_peers) == PEERS_MAX
    with pytest.raises(MessageError, match="places"):
        Message.decode(Message(MessageType.ADD_PROVIDER, b"k", places=(1,) * (PLACES_MAX + 1)).encode())
    boaster = replace(peer(1), zone="z" * 64)
    assert Message.decode(Message(MessageType.PING, provider_peers=(boaster,)).encode()).provider_peers[0].zone == ""
    odd = dht_pb2.Message(type=dht_pb2.Message.FIND_NODE)
    odd.closer_peers.add(id=b"nonsense", addrs=[b"x"])
    odd.closer_peers.add(id=peer(1).peer_id.multihash, addrs=[b"\xff\xff", peer(1).addresses[0].encode()])
    assert Message.decode(odd.SerializeToString()).closer_peers == (peer(1),)
