"""Claim messages on the wire: what is read of them, what they cost, and that nodes without claims ignore them."""

from __future__ import annotations

import contextlib
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from speil.claims.codec import (
    ADDRESSES_MAX,
    FIELDS_MAX,
    MESSAGE_BYTES_MAX,
    PLACES_MAX,
    ClaimMessageError,
    decode,
    encode,
)
from speil.claims.message import (
    AVOIDED_MAX,
    DEAD_MAX,
    HOLDERS_MAX,
    PATH_MAX,
    ROWS_MAX,
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
from speil.kad import wire_format
from speil.kad._pb import dht_pb2
from speil.kad.message import CLAIM_BYTES_MAX, REQUEST_BYTES_MAX, Message, MessageType
from speil.kad.wire_format import fields
from speil.multiformats import varint
from speil.multiformats.multiaddr import Multiaddr
from speil.multiformats.peer_info import PeerInfo
from tests.core.test_kad import peer

peers = st.integers(1, 99).map(peer)
numbers = st.integers(0, (1 << 62) - 1)
ids = peers.map(lambda one: one.peer_id)
messages: st.SearchStrategy[ClaimMessage] = st.one_of(
    st.builds(
        Ask,
        st.sampled_from(Reason),
        st.none() | ids,
        numbers,
        numbers,
        numbers,
        st.lists(ids, max_size=AVOIDED_MAX).map(tuple),
        st.lists(ids, max_size=DEAD_MAX).map(tuple),
    ),
    st.just(Fetch()),
    st.builds(Follow, peers),
    st.lists(peers, min_size=1, max_size=HOLDERS_MAX, unique=True).map(lambda some: Holders(tuple(some))),
    st.builds(Defer, peers),
    st.builds(Alone, st.sampled_from(Why)),
    st.just(AskStatus()),
    st.builds(
        Status,
        st.sampled_from(Phase),
        numbers,
        st.lists(st.integers(0, 2**64 - 1), max_size=PATH_MAX).map(tuple),
    ),
    st.lists(
        st.builds(Row, peers, st.sampled_from(Phase), st.integers(0, PLACES_MAX), st.none() | ids), max_size=ROWS_MAX
    ).map(lambda some: Tell(tuple(some))),
    st.builds(Release, st.sampled_from(Ending)),
)


def peers_named(message: ClaimMessage) -> int:
    """How many peers with addresses a message names."""
    match message:
        case Follow() | Defer():
            return 1
        case Holders(peers):
            return len(peers)
        case Tell(rows):
            return len(rows)
        case _:
            return 0


def raw(number: int, data: bytes) -> bytes:
    """A field of bytes."""
    return varint.encode(number << 3 | 2) + varint.encode(len(data)) + data


@given(messages)
def test_a_message_is_read_as_it_was_written(message: ClaimMessage) -> None:
    data = encode(message)
    assert decode(data) == message
    assert len(data) <= MESSAGE_BYTES_MAX


@given(st.binary(max_size=300) | messages.map(encode).flatmap(lambda data: st.binary(max_size=9).map(data.__add__)))
def test_any_bytes_are_a_message_or_a_named_error(data: bytes) -> None:
    try:
        message = decode(data)
    except ClaimMessageError:
        return
    assert decode(encode(message)) == message


@given(messages, st.data())
def test_a_changed_byte_is_a_message_or_a_named_error(message: ClaimMessage, data: st.DataObject) -> None:
    changed = bytearray(encode(message))
    at = data.draw(st.integers(0, len(changed) - 1))
    changed[at] = data.draw(st.integers(0, 255))
    with contextlib.suppress(ClaimMessageError):
        assert peers_named(decode(bytes(changed))) <= ROWS_MAX


ONE = raw(1, peer(1).peer_id.multihash)
FOLLOW = b"\x08\x03"
HOSTILE = {
    "rows": lambda: encode(Tell(())) + raw(2, raw(1, ONE)) * 300,
    "fields of a peer": lambda: FOLLOW + raw(2, ONE + b"\x78\x01" * 7000),
    "unknown fields": lambda: encode(Fetch()) + b"\x78\x01" * 8000,
    "addresses": lambda: FOLLOW + raw(2, ONE + raw(2, b"") * 7000),
    "a long path": lambda: encode(Status(Phase.FOLLOWING)) + raw(4, bytes(8 * 1000)),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_message_costs_no_more_than_a_named_number_of_looks(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    looks = 0

    def count(data: bytes, start: int, end: int):  # type: ignore[no-untyped-def]
        nonlocal looks
        for found in fields(data, start, end):
            looks += 1
            yield found

    monkeypatch.setattr(wire_format, "fields", count)
    try:
        message = decode(HOSTILE[name]())
    except ClaimMessageError:
        pass
    else:
        assert peers_named(message) <= ROWS_MAX
    assert looks <= FIELDS_MAX + 1


def test_a_message_that_is_larger_than_any_is_not_looked_at() -> None:
    with pytest.raises(ClaimMessageError, match="bytes"):
        decode(bytes(MESSAGE_BYTES_MAX + 1))


def test_the_largest_messages_of_our_own_nodes_fit_into_the_bounds() -> None:
    addresses = tuple(Multiaddr.of_tcp(f"2001:db8:ffff:ffff:ffff:ffff:ffff:{number:x}", 65535) for number in range(9))
    boaster = PeerInfo(peer(1).peer_id, addresses, "z" * 63)
    tell = Tell(tuple(Row(boaster, Phase.FOLLOWING, 2, peer(2).peer_id) for _ in range(ROWS_MAX)))
    for message in (tell, Holders((boaster,) * HOLDERS_MAX), Status(Phase.FOLLOWING, 1 << 50, (2**64 - 1,) * PATH_MAX)):
        assert len(encode(message)) <= MESSAGE_BYTES_MAX
        assert len(Message(MessageType.ADD_PROVIDER, bytes(34), claim=encode(message)).encode()) <= REQUEST_BYTES_MAX
    told = decode(encode(tell))
    assert isinstance(told, Tell)
    assert len(told.rows) == ROWS_MAX
    assert all(len(row.peer.addresses) == ADDRESSES_MAX and row.peer.zone == "z" * 63 for row in told.rows)


def test_a_kind_that_is_not_known_is_an_error_and_an_unknown_field_is_not() -> None:
    with pytest.raises(ClaimMessageError):
        decode(b"\x08\x63")
    with pytest.raises(ClaimMessageError):
        decode(b"")
    assert decode(encode(Fetch()) + raw(99, b"later")) == Fetch()


def test_the_limit_of_the_dht_message_is_that_of_the_codec() -> None:
    assert CLAIM_BYTES_MAX == MESSAGE_BYTES_MAX


@given(messages, st.sampled_from(MessageType))
def test_a_claim_is_carried_beside_the_rest_of_the_dht_message(message: ClaimMessage, kind: MessageType) -> None:
    plain = Message(kind, b"\x12\x20" + bytes(32), (peer(3),), (peer(4),))
    with_claim = replace(plain, claim=encode(message))
    assert Message.decode(with_claim.encode()) == with_claim
    assert decode(Message.decode(with_claim.encode()).claim) == message
    parsed = dht_pb2.Message.FromString(with_claim.encode())  # protobuf's parser, as in go-libp2p
    assert (parsed.type, parsed.key, len(parsed.provider_peers)) == (kind.value, plain.key, 1)
    assert with_claim.encode().startswith(plain.encode())  # what a node without claims reads
