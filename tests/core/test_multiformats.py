"""Varints, base58, peer ids, multiaddrs."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from speil.multiformats import base58, varint
from speil.multiformats.content_key import content_key
from speil.multiformats.error import FormatError
from speil.multiformats.multiaddr import Multiaddr
from speil.multiformats.peer_id import PeerId

PEER = "12D3KooWRBy97UB99e3J6hiPesre1MZeuNQvfan4gBziswrRJsNK"


@given(st.integers(0, 2**63 - 1), st.binary(max_size=5))
def test_a_varint_survives_and_what_follows_is_left(value: int, rest: bytes) -> None:
    encoded = varint.encode(value)
    assert varint.decode(encoded + rest) == (value, len(encoded))
    assert all(varint.decode(encoded[:cut]) is None for cut in range(len(encoded)))


@pytest.mark.parametrize("data", [b"\x80\x00", b"\xff" * 9 + b"\x01", b"\x81\x80\x00"])
def test_long_and_padded_varints_are_refused(data: bytes) -> None:
    with pytest.raises(FormatError):
        varint.decode(data)


@given(st.binary(max_size=60))
def test_base58_survives(data: bytes) -> None:
    assert base58.decode(base58.encode(data)) == data


@given(st.binary(max_size=100))
def test_a_peer_id_survives_text_and_its_key_is_in_it_when_short(key: bytes) -> None:
    if not key:
        return
    peer_id = PeerId.of_public_key(key)
    assert PeerId.parse(str(peer_id)) == peer_id
    assert peer_id.inline_public_key == (key if len(key) <= 42 else None)


@pytest.mark.parametrize("text", ["", "0OIl", "1", "Qm", PEER[:-1], PEER + "1"])
def test_what_is_no_peer_id_is_refused(text: str) -> None:
    with pytest.raises(FormatError):
        PeerId.parse(text)


@pytest.mark.parametrize(
    ("text", "tcp"),
    [
        ("/ip4/10.0.0.7/tcp/5001", ("10.0.0.7", 5001)),
        (f"/ip4/10.0.0.7/tcp/5001/p2p/{PEER}", ("10.0.0.7", 5001)),
        ("/ip6/fd00::7/tcp/5001", ("fd00::7", 5001)),
        ("/dns4/node.test/tcp/80", ("node.test", 80)),
        ("/ip4/10.0.0.7/udp/5001/quic-v1", None),
        ("/ip4/10.0.0.7/tcp/80/ws", None),
    ],
)
def test_multiaddrs_survive_both_forms(text: str, tcp: tuple[str, int] | None) -> None:
    address = Multiaddr.parse(text)
    assert str(address) == text
    assert Multiaddr.decode(address.encode()) == address
    assert address.tcp == tcp


@pytest.mark.parametrize(
    "text",
    [
        "",
        "/",
        "ip4/1.2.3.4",
        "/ip4",
        "/ip4/1.2.3",
        "/ip4/::1",
        "/tcp/x",
        "/tcp/70000",
        "/nope/1",
        "/p2p/xyz",
        "/ip4//tcp/1",
    ],
)
def test_what_is_no_multiaddr_is_refused(text: str) -> None:
    with pytest.raises(FormatError):
        Multiaddr.parse(text)


@given(st.binary(max_size=64))
def test_no_bytes_break_the_decoder(data: bytes) -> None:
    with contextlib.suppress(FormatError):
        assert Multiaddr.decode(Multiaddr.decode(data).encode()) == Multiaddr.decode(data)


def test_the_key_of_a_name_is_its_sha256_multihash() -> None:
    assert content_key("a").hex() == "1220ca978112ca1bbdcafac231b39a23dc4da786eff8147c4e72b9807785afee48bb"
