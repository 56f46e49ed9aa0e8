"""DHT messages from peers: what is read of them, and that no bytes cost more than their share."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from speil.kad import message as codec
from speil.kad._pb import dht_pb2
from speil.kad.key import Key
from speil.kad.message import (
    ADDRESS_FIELDS,
    ADDRESSES_MAX,
    CLAIM_BYTES_MAX,
    FIELDS_MAX,
    KEY_BYTES_MAX,
    MESSAGE_BYTES_MAX,
    PEER_FIELDS_MAX,
    PEERS_MAX,
    PLACES_ASKED_MAX,
    PLACES_MAX,
    REQUEST_BYTES_MAX,
    Message,
    MessageError,
    MessageType,
    announcements,
)
from speil.kad.wire_format import WireError, fields
from speil.multiformats import varint
from speil.multiformats.multiaddr import Multiaddr
from speil.multiformats.peer_info import PeerInfo
from tests.core.test_kad import peer

DECODE_SECONDS_MAX = 1.0  # twenty milliseconds on an idle machine; a loaded one has fifty times as long


class Looks:
    """Counts what a decoder looks at."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.fields = self.addresses = 0
        real_address = codec._address

        def count_fields(data: bytes, start: int, end: int):  # type: ignore[no-untyped-def]
            for found in fields(data, start, end):
                self.fields += 1
                yield found

        def count_address(data: bytes) -> Multiaddr | None:
            self.addresses += 1
            return real_address(data)

        monkeypatch.setattr(codec, "fields", count_fields)
        monkeypatch.setattr(codec, "_address", count_address)


def raw(number: int, data: bytes) -> bytes:
    """A field of bytes."""
    return varint.encode(number << 3 | 2) + varint.encode(len(data)) + data


def one_peer(*addresses: bytes) -> bytes:
    return raw(1, peer(1).peer_id.multihash) + b"".join(raw(2, address) for address in addresses)


def distinct_peers(count: int, addresses: int) -> bytes:
    parts = []
    for number in range(count):
        said = b"".join(raw(2, Multiaddr.of_tcp(f"2001:db8::{one}", 5001).encode()) for one in range(addresses))
        parts.append(raw(8, raw(1, peer(number).peer_id.multihash) + said))
    return b"".join(parts)


HEAD = bytes([8, MessageType.FIND_NODE])
HOSTILE: dict[str, Callable[[], bytes]] = {
    "empty peers": lambda: HEAD + b"\x42\x00" * 2_000_000,
    "empty providers": lambda: HEAD + b"\x4a\x00" * 2_000_000,
    "bad addresses of one peer": lambda: HEAD + raw(8, one_peer(*[b"\xff"] * 1_000_000)),
    "empty addresses of one peer": lambda: HEAD + raw(8, one_peer(*[b""] * 2_000_000)),
    "copies of a peer": lambda: HEAD + raw(9, one_peer(peer(1).addresses[0].encode())) * 50_000,
    "bad addresses of many peers": lambda: HEAD + raw(8, one_peer(*[b"\xff"] * 5)) * 60_000,
    "long addresses": lambda: HEAD + raw(8, one_peer(*[b"\x35\xff\x01" + b"a" * 255] * 16)) * 500,
    "many addresses of many peers": lambda: HEAD + distinct_peers(400, 20),
    "unknown fields": lambda: HEAD + b"\x78\x01" * 2_000_000,
    "the type again and again": lambda: HEAD * 2_000_000,
    "unknown fields of a peer": lambda: HEAD + raw(8, one_peer() + b"\x78\x01" * 2_000_000),
    "places one by one": lambda: HEAD + (varint.encode(5001 << 3 | 1) + bytes(8)) * 300_000,
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_message_costs_no_more_than_a_named_number_of_looks(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    data = HOSTILE[name]()
    assert len(data) <= MESSAGE_BYTES_MAX
    codec._kept_peer.cache_clear()
    looks = Looks(monkeypatch)
    started = time.process_time()
    message = Message.decode(data)
    assert time.process_time() - started < DECODE_SECONDS_MAX
    assert looks.fields <= FIELDS_MAX + PEER_FIELDS_MAX + 1
    assert looks.addresses <= FIELDS_MAX // ADDRESS_FIELDS + PEER_FIELDS_MAX
    assert len(message.closer_peers) <= PEERS_MAX
    assert len(message.provider_peers) <= PEERS_MAX
    assert all(len(one.addresses) <= ADDRESSES_MAX for one in (*message.closer_peers, *message.provider_peers))


def test_a_message_that_is_larger_than_any_is_not_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    looks = Looks(monkeypatch)
    with pytest.raises(MessageError, match="bytes"):
        Message.decode(bytes(MESSAGE_BYTES_MAX + 1))
    assert looks.fields == 0


def test_a_peer_that_is_kept_counts_as_often_as_it_is_named() -> None:
    """It may come from other messages: how many are read must not depend on what is kept."""
    data = HEAD + distinct_peers(PEERS_MAX, 3)
    codec._kept_peer.cache_clear()
    first = Message.decode(data)
    assert 0 < len(first.closer_peers) < PEERS_MAX
    assert Message.decode(data) == first
    assert codec._kept_peer.cache_info().hits == len(first.closer_peers)


def test_a_peer_that_is_named_again_counts_once() -> None:
    one = peer(1)
    message = Message(MessageType.ADD_PROVIDER, b"k", provider_peers=(one,) * PEERS_MAX)
    assert Message.decode(message.encode()).provider_peers == (one,)


def test_bad_addresses_do_not_hide_the_good_ones_among_the_first() -> None:
    good = peer(1).addresses[0]
    data = HEAD + raw(8, one_peer(b"\xff", b"", good.encode(), b"\x04\x01"))
    assert Message.decode(data).closer_peers == (PeerInfo(peer(1).peer_id, (good,)),)


def test_what_our_own_nodes_send_fits_into_the_bounds() -> None:
    boaster = PeerInfo(
        peer(1).peer_id, tuple(Multiaddr.of_tcp(f"2001:db8::{number}", 5001) for number in range(ADDRESSES_MAX))
    )
    keys = [Key.of(str(number)) for number in range(PLACES_MAX + 1)]
    for message in announcements(boaster, keys, packed=True):
        assert len(message.encode()) <= REQUEST_BYTES_MAX
        assert Message.decode(message.encode()) == message
    peers = tuple(peer(number) for number in range(40))
    answer = Message(MessageType.GET_PROVIDERS, b"k" * 34, peers[:20], peers[20:])
    assert Message.decode(answer.encode()) == answer
    hosts = tuple(replace(peer(number), addresses=boaster.addresses[:4]) for number in range(40))
    answer = Message(MessageType.GET_PROVIDERS, b"k" * 34, hosts[:20], hosts[20:])
    assert Message.decode(answer.encode()) == answer


def test_an_answer_that_names_a_thousand_providers_is_read_as_far_as_the_bounds() -> None:
    many = Message(MessageType.GET_PROVIDERS, b"k", (), tuple(peer(number) for number in range(1_000)))
    found = Message.decode(many.encode()).provider_peers
    assert len(found) == PEERS_MAX
    assert found == many.provider_peers[:PEERS_MAX]


def test_a_question_names_fewer_places_than_an_announcement() -> None:
    places = tuple(range(PLACES_ASKED_MAX + 1))
    question = Message(MessageType.GET_PROVIDERS, b"k", places=places)
    with pytest.raises(MessageError, match="places"):
        Message.decode(question.encode())
    assert Message.decode(replace(question, places=places[1:]).encode()).places == places[1:]
    announcement = replace(question, type=MessageType.ADD_PROVIDER)
    assert Message.decode(announcement.encode()).places == places


def test_whatever_order_the_fields_have_a_question_is_bounded() -> None:
    places = raw(5001, bytes(8 * (PLACES_ASKED_MAX + 1)))
    with pytest.raises(MessageError, match="places"):
        Message.decode(places + bytes([8, MessageType.GET_PROVIDERS]))
    with pytest.raises(MessageError, match="places"):
        Message.decode(raw(5001, bytes(8 * PLACES_MAX)) + raw(5001, bytes(8)))


def test_a_claim_has_a_limit_and_must_be_bytes() -> None:
    kind = bytes([8, MessageType.GET_PROVIDERS])
    assert Message.decode(kind + raw(5004, bytes(CLAIM_BYTES_MAX))).claim == bytes(CLAIM_BYTES_MAX)
    with pytest.raises(MessageError, match="a claim of 16385 bytes"):
        Message.decode(kind + raw(5004, bytes(CLAIM_BYTES_MAX + 1)))
    assert Message.decode(kind + raw(5004, b"one") + raw(5004, b"two")).claim == b"two"  # as protobuf reads it
    number_instead = varint.encode(5004 << 3) + b"\x07"
    assert Message.decode(kind + number_instead).claim == b""


@given(
    st.sampled_from(MessageType),
    st.binary(max_size=KEY_BYTES_MAX),
    st.sets(st.integers(1, 60), max_size=20),
    st.lists(st.integers(0, 2**64 - 1), max_size=20),
    st.integers(0, 2**32 - 1),
    st.binary(max_size=20),
    st.binary(max_size=20),
)
def test_what_protobuf_writes_is_read(
    kind: MessageType, key: bytes, numbers: set[int], places: list[int], horizon: int, counts: bytes, claim: bytes
) -> None:
    written = dht_pb2.Message(
        type=kind.value,  # type: ignore[arg-type]
        key=key,
        places=places,
        horizon_seconds=horizon,
        counts=counts,
        claim=claim,
        cluster_level_raw=-7,
    )
    for number in numbers:
        one = peer(number)
        written.closer_peers.add(
            id=one.peer_id.multihash, addrs=[one.addresses[0].encode()], connection=dht_pb2.Message.CANNOT_CONNECT
        )
    read = Message.decode(written.SerializeToString())
    pairs = tuple(zip(counts[::2], counts[1::2], strict=False))
    assert read == Message(
        kind, key, tuple(peer(number) for number in numbers), (), tuple(places), horizon, pairs, claim
    )


@given(st.binary(max_size=300))
def test_bytes_are_read_to_their_end_or_refused(data: bytes) -> None:
    with contextlib.suppress(WireError):
        end = 0
        for _, kind, start, stop in fields(data, 0, len(data)):
            assert kind == 0 or end <= start <= stop <= len(data)
            end = stop if kind else end


@pytest.mark.parametrize(
    "data",
    [
        b"\x08",  # no value
        b"\x12\x05ab",  # cut off
        b"\x0b\x0c",  # groups are not used
        b"\x00\x01",  # no number
        b"\x08" + b"\xff" * 11,  # a number without an end
        b"\x08\x06",  # a type that there is not
        b"\x12\xff\xff\xff\xff\xff\xff\xff\xff\x7f",  # a length beyond all
        raw(5001, bytes(7)),  # not whole places
    ],
)
def test_what_is_no_message_is_an_error(data: bytes) -> None:
    with pytest.raises(MessageError):
        Message.decode(data)
