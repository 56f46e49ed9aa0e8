"""Provider records under attack: records are limited by the network that they come from, and honest ones stay."""

from __future__ import annotations

import hashlib
import struct
from random import Random
from unittest.mock import patch

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from speil.kad import provider_records
from speil.kad.key import place
from speil.kad.network_group import OwnNetwork, address_of, subnet_of
from speil.kad.provider_records import (
    EVICTED_AT_ONCE_MAX,
    KEY_WORDS,
    KEYS_PER_PEER_MAX,
    OWN,
    PROVIDER_WORDS,
    PROVIDERS_PER_KEY_MAX,
    RECORD_WORDS,
    STORE_WORDS_MAX,
    VALIDITY_SECONDS,
    ProviderRecords,
)
from speil.multiformats.multiaddr import Multiaddr
from speil.multiformats.peer_id import PeerId
from speil.multiformats.peer_info import PeerInfo
from tests.properties import examples

ADDRESS = (Multiaddr.of_tcp("192.0.2.9", 5001),)  # what all claim: it counts for nothing


def identity(*names: object) -> PeerInfo:
    return PeerInfo(PeerId.of_public_key(hashlib.sha256(repr(names).encode()).digest()), ADDRESS)


def keeps(records: ProviderRecords, one: PeerInfo, places: range | list[int]) -> int:
    """How many of the places still have a record of this peer."""
    number = records._numbers.get(one.peer_id, -1)
    found = (struct.iter_unpack("<II", records._slots.get(place, b"")) for place in places)
    return sum(any(number == other for other, _ in pairs) for pairs in found)


def check_books(records: ProviderRecords) -> None:
    """What shares say is what is there."""
    entries = {place: list(struct.iter_unpack("<II", slots)) for place, slots in records._slots.items()}
    assert len(records) == sum(map(len, entries.values()))
    words: dict[int, int] = dict.fromkeys(records._providers, PROVIDER_WORDS)
    for pairs in entries.values():
        assert len({number for number, _ in pairs}) == len(pairs) <= PROVIDERS_PER_KEY_MAX
        words[pairs[0][0]] += KEY_WORDS
        for number, _ in pairs:
            words[number] += RECORD_WORDS
    assert {number: one.share.words for number, one in records._providers.items()} == words
    own = sum(words[number] for number, one in records._providers.items() if one.is_own)
    assert records._shares.words == sum(words.values()) - own
    for one in records._providers.values():
        assert one.share.name in one.share.above(2).children
    assert {peer.peer_id for zone in records._zones.values() for peer in map(records_peer(records), zone)} == set(
        records._numbers
    )


def records_peer(records: ProviderRecords):  # type: ignore[no-untyped-def]
    return lambda number: records._providers[number].peer


# an attacker's message: subnet, address, identity, first place, places, seconds since the last
attacks = st.lists(
    st.tuples(
        st.integers(0, 5), st.integers(0, 3), st.integers(0, 120), st.integers(0, 400), st.integers(1, 300),
        st.integers(0, 30),
    ),
    max_size=80,
)  # fmt: skip


@given(attacks, st.integers(0, 40), st.integers(1, 40))
@settings(max_examples=examples(60), deadline=None)
def test_an_honest_provider_loses_nothing_while_its_share_is_not_exceeded(
    steps: list[tuple[int, int, int, int, int, int]], first: int, count: int
) -> None:
    honest = [(identity("honest", number), f"10.1.{number}.7", range(first, first + count)) for number in range(2)]
    with patch.object(provider_records, "STORE_WORDS_MAX", 20_000):
        records, now = ProviderRecords(), 0.0
        for one, host, places in honest:
            assert records.add_places(places, one, now, host=host) == count
        for subnet, address, number, start, size, pause in steps:
            now = min(now + pause, VALIDITY_SECONDS - 2)
            host = f"10.66.{subnet}.{address}"
            records.add_places(range(start, start + size), identity(subnet, address, number), now, host=host)
            assert records._shares.words <= 20_000 + KEY_WORDS
        check_books(records)
        for one, _, places in honest:
            assert keeps(records, one, places) == count
        records.expire(now)
        check_books(records)
        for one, host, places in honest:
            assert records.add_places(places, one, now, host=host) == count, "and it renews"


@given(attacks)
@settings(max_examples=examples(30), deadline=None)
def test_an_honest_newcomer_finds_room_whatever_came_before(steps: list[tuple[int, int, int, int, int, int]]) -> None:
    with patch.object(provider_records, "STORE_WORDS_MAX", 20_000):
        records = ProviderRecords()
        for subnet, address, number, start, size, _ in steps:
            host = f"10.66.{subnet}.{address}"
            records.add_places(range(start, start + size), identity(subnet, address, number), 0, host=host)
        one, places = identity("honest"), range(5_000, 5_080)  # 1,700 words, of a seventh: 2,857
        assert records.add_places(places, one, 0, host="10.1.0.7") == len(places)
        check_books(records)


def test_a_few_identities_do_not_fill_the_store() -> None:
    records, rng = ProviderRecords(), Random(1)
    for number in range(30):
        for _ in range(10):
            places = [rng.getrandbits(64) for _ in range(KEYS_PER_PEER_MAX // 10)]
            records.add_places(places, identity(number % 15), 0, host="10.66.0.1")
    assert records._shares.words > STORE_WORDS_MAX * 0.9, "it is full of theirs"
    for number in range(20):
        places = [rng.getrandbits(64) for _ in range(2_400)]
        one = identity("honest", number)
        assert records.add_places(places, one, 0, host=f"10.1.{number}.7") == 2_400
        assert keeps(records, one, places) == 2_400
    assert records._shares.words <= STORE_WORDS_MAX + KEY_WORDS


@pytest.mark.parametrize("addresses", [1, 200])
def test_identities_of_one_subnet_do_not_push_the_honest_provider_of_a_key_out(addresses: int) -> None:
    records, key = ProviderRecords(), b"k"
    honest = identity("honest")
    records.add(key, honest, 0, host="10.1.0.7")
    for number in range(1_000):
        records.add(key, identity(number), 1 + number / 10, host=f"10.66.0.{number % addresses + 1}")
    assert honest in records.live(key, 200)
    newcomer = identity("late")
    assert records.add(key, newcomer, 200, host="10.1.1.7")
    assert {honest.peer_id, newcomer.peer_id} <= {one.peer_id for one in records.live(key, 200)}
    check_books(records)


def test_identities_of_one_address_do_not_push_out_others_of_the_same_subnet() -> None:
    records, key = ProviderRecords(), b"k"
    honest = [identity("honest", number) for number in range(10)]
    for number, one in enumerate(honest):
        records.add(key, one, 0, host=f"10.1.0.{number + 1}")
    for number in range(1_000):
        records.add(key, identity(number), 1, host="10.1.0.66")
    assert {one.peer_id for one in honest} <= {one.peer_id for one in records.live(key, 2)}


def test_many_subnets_do_not_push_ones_own_network_out_of_a_key() -> None:
    records, key = ProviderRecords(OwnNetwork(["10.1.200.1"])), b"k"
    for number in range(PROVIDERS_PER_KEY_MAX):
        records.add(key, identity("own", number), 0, host=f"10.1.{number}.7")
    for number in range(250):
        assert not records.add(key, identity(number), 1, host=f"10.66.{number}.1")
    assert records.add(key, identity("own", "late"), 1, host="10.1.199.7"), "among themselves the oldest gives way"


@pytest.mark.parametrize("favour", ["own network", "member", "stranger"])
def test_ones_own_network_and_members_keep_more_than_strangers(favour: str) -> None:
    own = OwnNetwork(["10.1.200.1"]) if favour == "own network" else None
    with patch.object(provider_records, "STORE_WORDS_MAX", 40_000):
        records = ProviderRecords(own)
        one, places = identity("honest"), range(500)  # 9,256 words
        records.add_places(places, one, 0, host="10.1.0.7", is_member=favour == "member")
        for number in range(15):  # each as much as there is room for
            records.add_places(
                range(1_000 * (number + 1), 1_000 * (number + 2)), identity(number), 0, host=f"10.66.{number}.1"
            )
        kept = keeps(records, one, places)
    assert kept == 500 if favour != "stranger" else kept < 250


def test_what_a_node_keeps_of_its_own_is_never_taken_for_others() -> None:
    own = identity("own")
    with patch.object(provider_records, "STORE_WORDS_MAX", 20_000):
        records = ProviderRecords()
        for number in range(20):
            records.add_places(
                range(1_000 * number, 1_000 * number + 900), identity(number), 0, host=f"10.66.{number}.1"
            )
        assert records.add_places(range(5_000), own, 0, host=OWN) == 5_000
        for number in range(20):
            records.add_places(
                range(1_000 * number, 1_000 * number + 900), identity(number), 0, host=f"10.66.{number}.1"
            )
        assert keeps(records, own, range(5_000)) == 5_000
        check_books(records)


def test_a_region_of_ten_thousand_nodes_loses_nothing() -> None:
    records, rng = ProviderRecords(OwnNetwork(["10.0.0.1"])), Random(1)
    kept = 0
    for number in range(10_000):  # 2,400 keys on each, twenty keepers of a key
        places = [rng.randrange(17_000) for _ in range(2_400 * 20 // 10_000 + 1)]
        host = f"10.{number >> 8}.{number & 255}.7"
        kept += records.add_places(places, identity(number), 0, host=host)
    assert kept == 50_000
    assert records._shares.words < STORE_WORDS_MAX


def test_a_message_looks_at_so_many_records_of_others_and_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    looks = 0
    real = ProviderRecords._drop_newest

    def drop(self: ProviderRecords, number: int) -> None:
        nonlocal looks
        looks += 1
        real(self, number)

    monkeypatch.setattr(ProviderRecords, "_drop_newest", drop)
    monkeypatch.setattr(provider_records, "STORE_WORDS_MAX", 200_000)
    records = ProviderRecords()
    for number in range(40):
        records.add_places(range(number << 20, (number << 20) + 20_000), identity(number), 0, host="10.66.0.1")
    looks = 0
    records.add_places(range(1 << 40, (1 << 40) + 4_097), identity("honest"), 0, host="10.1.0.7")
    assert 0 < looks <= EVICTED_AT_ONCE_MAX
    full = range(64)
    for number in range(64):
        records.add_places(full, identity("full", number), 0, host=f"10.67.{number}.1")
    real_who, asked = ProviderRecords._find_evictable, 0

    def who(self: ProviderRecords, slots: bytes, newcomer: provider_records._Provider) -> int:
        nonlocal asked
        asked += 1
        return real_who(self, slots, newcomer)

    monkeypatch.setattr(ProviderRecords, "_find_evictable", who)
    records.add_places(list(full) * 64, identity("another"), 1, host="10.68.0.1")
    assert asked <= EVICTED_AT_ONCE_MAX // 16


def test_places_that_come_and_go_are_not_remembered_for_ever() -> None:
    records, one = ProviderRecords(), identity(1)

    def remembered() -> int:
        return len(records._providers[records._numbers[one.peer_id]].places)

    for turn in range(50):
        records.expire(turn * 100)
        records.add_places(range(turn * 200, turn * 200 + 200), one, turn * 100, host="10.1.0.7")
        assert remembered() <= 2 * len(records) + 64
        check_books(records)
    for _ in range(5_000):  # and the same place again and again
        records.remove_place(7, one.peer_id)
        records.add_places([7], one, 5_000, host="10.1.0.7")
    assert remembered() <= 2 * len(records) + 64
    check_books(records)


@pytest.mark.parametrize(
    ("host", "subnet", "address"),
    [
        ("10.1.2.3", "10.1.2.0/24", "10.1.2.3/32"),
        ("::ffff:10.1.2.3", "10.1.2.0/24", "10.1.2.3/32"),
        ("2001:db8:1:2:3::4", "2001:db8:1::/48", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/48", "fe80::/64"),
        ("node.example", "node.example", "node.example"),
        ("", "", ""),
    ],
)
def test_networks_of_addresses(host: str, subnet: str, address: str) -> None:
    assert (subnet_of(host), address_of(host)) == (subnet, address)


def test_a_place_of_a_key_is_what_is_kept() -> None:
    records, one = ProviderRecords(), identity(1)
    records.add(b"k", one, 0, host="10.1.0.7")
    assert keeps(records, one, [place(b"k")]) == 1
