"""Routing table, known peers and lookups: no network and no liar takes more than its places."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable
from functools import cache
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from speil.kad.answer_trust import FAILED_MAX, NETWORKS_MAX, TRIED_AT_ONCE_MAX, TRIED_DISTRUSTED_MAX, AnswerTrust
from speil.kad.key import common_prefix_length, position
from speil.kad.known_peers import PER_ADDRESS_MAX, PER_SUBNET_MAX, KnownPeers
from speil.kad.lookup import (
    ADDRESSES_HEARD_MAX,
    ALPHA,
    HEARD_FROM_NETWORK_MAX,
    PEERS_ASKED_MAX,
    QUERY_SECONDS_MAX,
    Lookup,
)
from speil.kad.network_group import OwnNetwork, address_of, subnet_of
from speil.kad.routing_table import (
    ADDRESS_IN_BUCKET_MAX,
    OWN_ADDRESS_IN_BUCKET_MAX,
    PEERS_PER_ADDRESS_MAX,
    PEERS_PER_SUBNET_MAX,
    SUBNET_IN_BUCKET_MAX,
    K,
    Origin,
    RoutingTable,
)
from speil.multiformats.content_key import content_key
from speil.multiformats.multiaddr import Multiaddr
from speil.multiformats.peer_id import PeerId
from speil.multiformats.peer_info import PeerInfo
from tests.properties import examples

LOCAL = "10.1.0.1"


def identity(name: object, claims: str = "192.0.2.9") -> PeerInfo:
    peer_id = PeerId.of_public_key(hashlib.sha256(repr(name).encode()).digest())
    return PeerInfo(peer_id, (Multiaddr.of_tcp(claims, 5001),))


class Seen:
    """Where peers were seen to come from."""

    def __init__(self) -> None:
        self.hosts: dict[PeerId, Origin] = {}

    def __call__(self, peer_id: PeerId) -> Origin:
        return self.hosts.get(peer_id, Origin())

    def at(self, host: str, name: object, *, is_member: bool = False) -> PeerInfo:
        one = identity(name)
        self.hosts[one.peer_id] = Origin(host, is_member)
        return one


def table_and_seen(own: str = LOCAL) -> tuple[RoutingTable, Seen]:
    seen = Seen()
    return RoutingTable(identity("local").peer_id, OwnNetwork([own]), seen), seen


def buckets(table: RoutingTable, seen: Seen, group: Callable[[str], str]) -> list[Counter[str]]:
    """How many peers of each network each bucket holds."""
    local = position(identity("local").peer_id.multihash)
    found: dict[int, Counter[str]] = {}
    for one in table:
        length = common_prefix_length(position(one.peer_id.multihash), local)
        found.setdefault(length, Counter())[group(seen(one.peer_id).host)] += 1
    return list(found.values())


# --- the table -----------------------------------------------------------------------------------------------


@given(
    st.lists(st.tuples(st.integers(0, 5), st.integers(1, 4), st.integers(0, 300), st.booleans()), max_size=300),
    st.sampled_from(["10.66", "10.1"]),
)
@settings(max_examples=examples(50), deadline=None)
def test_no_network_has_more_than_its_places(steps: list[tuple[int, int, int, bool]], network: str) -> None:
    table, seen = table_and_seen()
    for now, (subnet, address, number, fails) in enumerate(steps):
        one = seen.at(f"{network}.{subnet + 10}.{address}", number)
        if fails:
            table.failed(one.peer_id)
        else:
            assert table.add(one, now) == (one.peer_id in table)
    by_address, by_subnet = buckets(table, seen, address_of), buckets(table, seen, subnet_of)
    # a peer that was seen elsewhere since keeps the place it came with
    if len({number for _, _, number, _ in steps}) == len(steps):
        assert all(count <= ADDRESS_IN_BUCKET_MAX for counts in by_address for count in counts.values())
        assert all(count <= PEERS_PER_ADDRESS_MAX for count in sum(by_address, Counter[str]()).values())
        if network == "10.66":
            assert all(count <= SUBNET_IN_BUCKET_MAX for counts in by_subnet for count in counts.values())
            assert all(count <= PEERS_PER_SUBNET_MAX for count in sum(by_subnet, Counter[str]()).values())
    assert all(sum(counts.values()) <= K for counts in by_address)


@pytest.mark.parametrize("host", ["10.66.0.1", "10.1.9.1"])
def test_sixty_identities_of_one_address_take_a_few_places(host: str) -> None:
    table, seen = table_and_seen()
    for number in range(60):
        table.add(seen.at(host, number), 0)
    honest = [seen.at(f"10.1.{number}.7", ("honest", number)) for number in range(20)]
    assert all(table.add(one, 1) for one in honest)
    assert len(table) <= PEERS_PER_ADDRESS_MAX + len(honest)


def test_a_claimed_address_counts_for_nothing() -> None:
    table, seen = table_and_seen()
    for number in range(60):
        one = seen.at("10.66.0.1", number)
        table.add(PeerInfo(one.peer_id, (Multiaddr.of_tcp(f"10.2.{number}.1", 5001),)), 0)
    assert len(table) <= PEERS_PER_ADDRESS_MAX


def test_a_stranger_of_a_network_with_fewer_places_takes_one_of_the_fullest() -> None:
    table, seen = table_and_seen()
    for subnet in range(3):
        for number in range(400):
            table.add(seen.at(f"10.66.{subnet}.{number % 250 + 1}", (subnet, number)), 0)
    assert max(sum(counts.values()) for counts in buckets(table, seen, subnet_of)) == K, "a bucket is full of theirs"
    late = [seen.at(f"10.67.{number}.1", ("late", number)) for number in range(8)]
    assert all(table.add(one, 1) for one in late)


def test_ones_own_network_fills_the_buckets_and_strangers_do_not_push_it_out() -> None:
    table, seen = table_and_seen()
    own = [seen.at(f"10.1.0.{number + 2}", ("own", number)) for number in range(200)]
    kept = {one.peer_id for one in own if table.add(one, 0)}
    assert max(sum(counts.values()) for counts in buckets(table, seen, subnet_of)) == K
    for number in range(500):
        table.add(seen.at(f"10.66.{number % 250}.1", number), 1)
    assert all(peer_id in table for peer_id in kept)


def test_a_member_always_finds_a_place_where_strangers_have_some() -> None:
    table, seen = table_and_seen()
    for number in range(500):
        table.add(seen.at(f"10.66.{number % 250}.{number}"[:11], number), 0)
    members = [seen.at("10.66.0.1", ("member", number), is_member=True) for number in range(10)]
    assert all(table.add(one, 1) for one in members)
    for number in range(500):
        table.add(seen.at(f"10.67.{number % 250}.1", ("more", number)), 2)
    assert all(one.peer_id in table for one in members)


def test_nodes_on_this_very_machine_are_a_mesh_too_and_leave_places_for_others() -> None:
    table, seen = table_and_seen("127.0.0.1")
    for number in range(100):
        table.add(seen.at("127.0.0.1", number), 0)
    assert max(sum(counts.values()) for counts in buckets(table, seen, subnet_of)) == OWN_ADDRESS_IN_BUCKET_MAX


# --- known peers ---------------------------------------------------------------------------------------------


@given(
    st.lists(st.tuples(st.integers(0, 9), st.integers(1, 5), st.integers(0, 200), st.booleans()), max_size=200),
    st.integers(1, 50),
)
@settings(max_examples=examples(50), deadline=None)
def test_known_peers_are_of_many_networks_and_near_ones_stay(
    steps: list[tuple[int, int, int, bool]], count_max: int
) -> None:
    known, hosts, near = KnownPeers(count_max), dict[PeerId, str](), dict[PeerId, None]()
    for subnet, address, number, is_near in steps:
        one, host = identity((subnet, address, number, is_near)), f"10.{66 if is_near else 67}.{subnet}.{address}"
        hosts[one.peer_id] = host
        known.add(one, host, is_near=is_near)
        if is_near:
            near.pop(one.peer_id, None)
            near[one.peer_id] = None
    peers = [one.peer_id for one in known]
    assert len(peers) <= count_max
    assert all(count <= PER_ADDRESS_MAX for count in Counter(address_of(hosts[one]) for one in peers).values())
    strangers = [one for one in peers if one not in near]
    assert all(count <= PER_SUBNET_MAX for count in Counter(subnet_of(hosts[one]) for one in strangers).values())
    if len(near) > 0 and strangers:
        addresses = Counter(hosts[one] for one in near)
        bounded = sum(min(count, PER_ADDRESS_MAX) for count in addresses.values())
        assert len(peers) - len(strangers) == bounded, "none near went for a stranger"


def test_sixty_identities_of_one_address_take_a_few_of_the_known_peers() -> None:
    known = KnownPeers(50)
    honest = [identity(("honest", number)) for number in range(30)]
    for number, one in enumerate(honest):
        known.add(one, f"10.1.{number}.7", is_near=False)
    for number in range(60):
        known.add(identity(number), "10.66.0.1", is_near=False)
    assert set(honest) <= set(known)
    assert len(list(known)) == len(honest) + PER_ADDRESS_MAX


# --- lookups -------------------------------------------------------------------------------------------------


def mesh(count: int) -> list[PeerInfo]:
    return [identity(("mesh", number), f"10.1.{number}.7") for number in range(count)]


def drive(
    lookup: Lookup, answer: Callable[[PeerInfo], list[PeerInfo] | None], seconds_max: float
) -> tuple[list[PeerInfo], float]:
    """Ask until it is done or the time is up: who was asked, and when it ended. Whoever answers does so at once."""
    now, asked = 0.0, list[PeerInfo]()
    while not lookup.done and now < seconds_max:
        chosen = lookup.ask(now)
        asked += chosen
        answered = [(one, said) for one in chosen if (said := answer(one)) is not None]
        for one, said in answered:
            lookup.answered(one.peer_id, said)
        if not answered and not lookup.done:
            deadline = lookup.next_deadline()
            assert deadline is not None
            now = deadline
            lookup.expire(now)
    return asked, now


@cache
def ground(target: int) -> list[PeerInfo]:
    """Invented peers that are nearer to a place than honest ones are."""
    pool = [identity(("ground", number), f"10.2.{number >> 8}.{number & 255}") for number in range(1_000)]
    return sorted(pool, key=lambda one: position(one.peer_id.multihash) ^ target)


@given(st.integers(0, 2**32), st.integers(1, 3))
@settings(max_examples=examples(15), deadline=None)
def test_liars_that_name_nearer_peers_do_not_keep_the_honest_from_being_asked(seed: int, liar_count: int) -> None:
    rng, key = Random(seed), content_key("x")
    target = position(key)
    honest = mesh(60)
    liars = [identity(("liar", number, seed), f"10.66.{number}.1") for number in range(liar_count)]
    everybody = sorted([*honest, *liars], key=lambda one: position(one.peer_id.multihash) ^ target)
    lies = {one.peer_id: ground(target)[number * K : (number + 1) * K] for number, one in enumerate(liars)}
    real = {one.peer_id for one in everybody}

    def answer(one: PeerInfo) -> list[PeerInfo] | None:
        if one.peer_id in lies:
            return lies[one.peer_id]
        return everybody[:K] if one.peer_id in real else None

    lookup = Lookup(key, identity("local").peer_id, [*rng.sample(honest, 5), *liars])
    asked, _ = drive(lookup, answer, QUERY_SECONDS_MAX * 0.5)
    nearest = [one.peer_id for one in everybody[:K] if one.peer_id not in lies]
    reached = {one.peer_id for one in asked}
    assert sum(peer_id in reached for peer_id in nearest) >= K // 4, "before the first lie is found out"
    asked += drive(lookup, answer, 1_000)[0]
    assert set(nearest) <= {one.peer_id for one in lookup.result(60)}
    wrong = [one for one in asked if one.peer_id not in real]
    assert len(wrong) <= liar_count * K
    assert len(asked) <= PEERS_ASKED_MAX


def test_one_liar_costs_a_lookup_of_a_few_seconds_a_few_contacts() -> None:
    key, honest, trust = content_key("x"), mesh(30), AnswerTrust()
    liar = identity("liar", "10.66.0.1")
    lies = iter([identity(("lie", number)) for number in range(2_000)])

    def answer(one: PeerInfo) -> list[PeerInfo] | None:
        if one.peer_id == liar.peer_id:
            return [next(lies) for _ in range(200)]
        return honest[:K] if one in honest else None

    wrong = 0
    for _ in range(10):
        lookup = Lookup(key, identity("local").peer_id, [*honest[:5], liar], trust=trust)
        asked, _ = drive(lookup, answer, 5.0)
        wrong += sum(one not in honest and one != liar for one in asked)
    assert wrong <= 2 * TRIED_AT_ONCE_MAX + 3 * 10 * TRIED_DISTRUSTED_MAX


def test_a_lookup_contacts_so_many_and_no_more_whoever_answers() -> None:
    key, count = content_key("x"), 0

    def answer(one: PeerInfo) -> list[PeerInfo]:
        nonlocal count
        count += 1  # all are real, and name others that are
        return [identity((count, number), f"10.{count}.{number}.1") for number in range(K)]

    lookup = Lookup(key, identity("local").peer_id, mesh(5))
    asked, _ = drive(lookup, answer, 1_000)
    assert lookup.done
    assert len(asked) <= PEERS_ASKED_MAX


def test_an_answer_is_taken_in_as_far_as_an_honest_one_goes() -> None:
    seed = identity("seed")
    lookup = Lookup(content_key("x"), identity("local").peer_id, [seed])
    lookup.ask(0)
    addresses = tuple(Multiaddr.of_tcp(f"10.2.0.{number}", 5001) for number in range(16))
    lookup.answered(seed.peer_id, [PeerInfo(identity(number).peer_id, addresses) for number in range(100)])
    heard = [one for one in lookup.closest() if one != seed]
    assert len(lookup._candidates) == 1 + K
    assert all(len(one.addresses) == ADDRESSES_HEARD_MAX for one in heard)
    for number in range(20):
        lookup.answered(seed.peer_id, [identity((number, one)) for one in range(K)])
    assert len(lookup._candidates) == 1 + HEARD_FROM_NETWORK_MAX


def test_the_first_answer_a_newcomer_gets_is_enough_to_go_on() -> None:
    honest = mesh(200)
    target = position(content_key("x"))
    closest = sorted(honest, key=lambda one: position(one.peer_id.multihash) ^ target)[:K]
    lookup = Lookup(content_key("x"), identity("local").peer_id, honest[:1])
    asked, _ = drive(lookup, lambda _: closest, 1_000)
    assert lookup.closest() == closest
    assert len(asked) <= K + 1


def test_trust_comes_back_when_peers_answer_again() -> None:
    trust = AnswerTrust()
    for _ in range(FAILED_MAX):
        assert trust.tried_at_once("a") == TRIED_AT_ONCE_MAX
        trust.failed("a")
    assert trust.tried_at_once("a") == TRIED_DISTRUSTED_MAX
    assert trust.tried_at_once("b") == TRIED_AT_ONCE_MAX
    for _ in range(1_000):
        trust.failed("a")
    for _ in range(64):
        trust.answered("a")
    assert trust.tried_at_once("a") == TRIED_AT_ONCE_MAX
    for number in range(2 * NETWORKS_MAX):
        trust.failed(str(number))
    assert len(trust._counts) <= NETWORKS_MAX


def test_the_peers_of_one_network_vouch_for_each_other_no_more_than_one_does() -> None:
    trust = AnswerTrust(lambda _: "one network")
    liars = [identity(("liar", number)) for number in range(5)]
    lookup = Lookup(content_key("x"), identity("local").peer_id, liars, trust=trust)
    for one in lookup.ask(0):
        lookup.answered(one.peer_id, [identity(("lie", number)) for number in range(K)])
    assert len(lookup.ask(0)) == TRIED_AT_ONCE_MAX < ALPHA
