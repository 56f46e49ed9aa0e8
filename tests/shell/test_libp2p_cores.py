"""Noise, yamux and multistream as machines: the same result however the bytes are cut."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from speil.libp2p import multistream, signed_record
from speil.libp2p.error import PeerMisbehavedError, ProtocolNotSupportedError
from speil.libp2p.identity import Identity, IdentityError, load_or_create
from speil.libp2p.noise import Handshake, Session
from speil.libp2p.public_key import verify
from speil.libp2p.yamux import (
    FRAME_PAYLOAD_BYTES_MAX,
    STREAMS_INBOUND_MAX,
    WINDOW_BYTES,
    DataReceived,
    GoAway,
    PongReceived,
    StreamFinished,
    StreamOpened,
    StreamReset,
    WindowGrown,
    Yamux,
)
from speil.multiformats.multiaddr import Multiaddr
from tests.properties import examples
from tests.shell.mesh import new_host

CUTS = st.lists(st.integers(1, 40), min_size=1, max_size=30)
ALICE, BOB = Identity.generate(), Identity.generate()


def pieces(data: bytes, cuts: list[int]) -> list[bytes]:
    """`data` cut at will."""
    out, number = [], 0
    while data:
        size = cuts[number % len(cuts)]
        out.append(data[:size])
        data, number = data[size:], number + 1
    return out


def shake_hands() -> tuple[Session, Session]:
    """Two ends of a secured channel."""
    dialer, listener = Handshake(ALICE, ("/yamux/1.0.0",)), Handshake(BOB, ("/yamux/1.0.0",))
    listener.read_message_1(dialer.write_message_1())
    assert dialer.read_message_2(listener.write_message_2()).peer_id == BOB.peer_id
    remote = listener.read_message_3(dialer.write_message_3())
    assert (remote.peer_id, remote.muxers) == (ALICE.peer_id, ("/yamux/1.0.0",))
    return Session(*dialer.split(initiator=True)), Session(*listener.split(initiator=False))


@given(st.lists(st.binary(max_size=70_000), max_size=4), CUTS)
@settings(max_examples=examples(30))
def test_noise_gives_back_what_went_in_however_it_is_cut(messages: list[bytes], cuts: list[int]) -> None:
    one, other = shake_hands()
    sealed = b"".join(one.seal(message) for message in messages)
    cuts = [cut * 500 for cut in cuts]
    assert b"".join(other.open(piece) for piece in pieces(sealed, cuts)) == b"".join(messages)


def test_noise_refuses_what_was_changed() -> None:
    one, other = shake_hands()
    sealed = bytearray(one.seal(b"hello"))
    sealed[-1] ^= 1
    with pytest.raises(PeerMisbehavedError):
        other.open(bytes(sealed))


def test_a_handshake_signed_by_somebody_else_is_refused() -> None:
    class Impostor:
        public_key, peer_id, sign = BOB.public_key, BOB.peer_id, ALICE.sign

    dialer = Handshake(ALICE, ())
    listener = Handshake(Impostor(), ())  # type: ignore[arg-type]  # that is the attack
    listener.read_message_1(dialer.write_message_1())
    with pytest.raises(PeerMisbehavedError) as caught:
        dialer.read_message_2(listener.write_message_2())
    assert caught.value.reason == "bad_signature"


@given(st.binary(max_size=200))
def test_no_bytes_break_a_handshake(data: bytes) -> None:
    handshake = Handshake(ALICE, ())
    handshake.write_message_1()
    with pytest.raises(PeerMisbehavedError):
        handshake.read_message_2(data)


@given(st.binary(max_size=50), st.binary(max_size=80), st.binary(max_size=20))
def test_no_bytes_pass_for_a_signature(key: bytes, signature: bytes, data: bytes) -> None:
    with pytest.raises(PeerMisbehavedError):
        verify(key, signature, data)


# --- yamux ---------------------------------------------------------------------------------------------------


@given(st.lists(st.binary(min_size=1, max_size=300), max_size=10), CUTS)
def test_yamux_gives_back_what_went_in_however_it_is_cut(messages: list[bytes], cuts: list[int]) -> None:
    dialer, listener = Yamux(dialer=True), Yamux(dialer=False)
    stream = dialer.open(b"first")
    for message in messages:
        dialer.send(stream, message)
    dialer.ping(7)
    dialer.finish(stream)
    events = [event for piece in pieces(dialer.take_output(), cuts) for event in listener.receive(piece)]
    assert events[0] == StreamOpened(stream)
    assert b"".join(e.data for e in events if isinstance(e, DataReceived)) == b"first" + b"".join(messages)
    assert events[-1] == StreamFinished(stream)
    listener.finish(stream)
    answers = dialer.receive(listener.take_output())
    assert PongReceived(7) in answers
    assert StreamFinished(stream) in answers
    assert (dialer.stream_count, listener.stream_count) == (0, 0)


@given(st.binary(max_size=200))
def test_no_bytes_break_yamux(data: bytes) -> None:
    session = Yamux(dialer=True)
    with contextlib.suppress(PeerMisbehavedError):
        session.receive(data)


def test_a_window_is_kept_by_the_sender_and_enforced_by_the_receiver() -> None:
    dialer, listener = Yamux(dialer=True), Yamux(dialer=False)
    stream = dialer.open()
    for _ in range(WINDOW_BYTES // FRAME_PAYLOAD_BYTES_MAX):
        dialer.send(stream, bytes(FRAME_PAYLOAD_BYTES_MAX))
    assert dialer.send_window(stream) == 0
    listener.receive(dialer.take_output())
    listener.credit(stream, WINDOW_BYTES // 2)
    assert WindowGrown(stream) in dialer.receive(listener.take_output())
    assert dialer.send_window(stream) == WINDOW_BYTES // 2
    cheat = Yamux(dialer=True)
    cheat.open()
    victim = Yamux(dialer=False)
    victim.receive(cheat.take_output())
    for _ in range(WINDOW_BYTES // FRAME_PAYLOAD_BYTES_MAX):
        cheat.send(1, bytes(FRAME_PAYLOAD_BYTES_MAX))
    cheat.receive(b"\0\1\0\0\0\0\0\1\0\1\0\0")  # pretends to have been given more window
    cheat.send(1, b"x")
    with pytest.raises(PeerMisbehavedError) as caught:
        victim.receive(cheat.take_output())
    assert caught.value.reason == "window_exceeded"


def test_streams_above_the_bound_are_reset() -> None:
    dialer, listener = Yamux(dialer=True), Yamux(dialer=False)
    for _ in range(STREAMS_INBOUND_MAX + 5):
        dialer.open()
    opened = [e for e in listener.receive(dialer.take_output()) if isinstance(e, StreamOpened)]
    assert len(opened) == STREAMS_INBOUND_MAX
    resets = [e for e in dialer.receive(listener.take_output()) if isinstance(e, StreamReset)]
    assert len(resets) == 5


def test_data_for_streams_that_are_gone_is_dropped_and_go_away_is_told() -> None:
    dialer, listener = Yamux(dialer=True), Yamux(dialer=False)
    stream = dialer.open()
    listener.receive(dialer.take_output())
    listener.reset(stream)
    dialer.send(stream, b"late")
    assert listener.receive(dialer.take_output()) == []
    dialer.go_away(1)
    assert listener.receive(dialer.take_output()) == [GoAway(1)]


@pytest.mark.parametrize(
    "frame", [b"\1" + bytes(11), b"\0\7" + bytes(10), b"\0\0\0\1\0\0\0\2\0\0\0\0", b"\0\0\0\1\0\0\0\0\0\0\0\0"]
)
def test_bad_frames_end_the_session(frame: bytes) -> None:
    with pytest.raises(PeerMisbehavedError):
        Yamux(dialer=True).receive(frame if frame[3:4] != b"\1" else frame[:7] + b"\1" + frame[8:])


# --- multistream, records, identity --------------------------------------------------------------------------


class Pipe:
    """One end of a byte pipe."""

    def __init__(self) -> None:
        self.reader = asyncio.StreamReader()
        self.other: Pipe

    async def read_exactly(self, size: int) -> bytes:
        return await self.reader.readexactly(size)

    async def write(self, data: bytes) -> None:
        self.other.reader.feed_data(data)


def pipe() -> tuple[Pipe, Pipe]:
    one, other = Pipe(), Pipe()
    one.other, other.other = other, one
    return one, other


async def test_a_protocol_both_know_is_agreed_on() -> None:
    one, other = pipe()
    async with asyncio.TaskGroup() as group:
        group.create_task(multistream.propose(one, "/b/1"))
        accepted = group.create_task(multistream.accept(other, ("/a/1", "/b/1")))
    assert accepted.result() == "/b/1"


async def test_a_protocol_the_listener_lacks_is_refused() -> None:
    one, other = pipe()
    async with asyncio.TaskGroup() as group:
        accepting = group.create_task(multistream.accept(other, ("/a/1",)))
        with pytest.raises(ProtocolNotSupportedError):
            await multistream.propose(one, "/nope/1")
        accepting.cancel()


@pytest.mark.parametrize(
    "data", [b"\x00", b"\xff\xff\xff\x7f", b"\x05abcde", b"\x80" * 12, multistream.encode("/wrong")]
)
async def test_bad_negotiations_are_refused(data: bytes) -> None:
    one, other = pipe()
    await one.write(data)
    with pytest.raises(PeerMisbehavedError):
        await multistream.accept(other, ("/a/1",))


def test_a_signed_record_is_its_owners_alone() -> None:
    addresses = (Multiaddr.parse("/ip4/10.0.0.1/tcp/5001"),)
    envelope = signed_record.seal(ALICE, addresses, 1)
    assert signed_record.open_record(envelope, ALICE.peer_id) == [addresses[0].encode()]
    with pytest.raises(PeerMisbehavedError):
        signed_record.open_record(envelope, BOB.peer_id)
    with pytest.raises(PeerMisbehavedError):
        signed_record.open_record(envelope[:-1] + bytes([envelope[-1] ^ 1]), ALICE.peer_id)


def test_an_identity_is_kept_and_a_damaged_one_is_not_replaced(tmp_path: Path) -> None:
    first = load_or_create(tmp_path / "data")
    assert load_or_create(tmp_path / "data").peer_id == first.peer_id
    file = tmp_path / "data" / "private.key"
    assert file.stat().st_mode & 0o777 == 0o600
    file.write_bytes(b"broken")
    with pytest.raises(IdentityError, match=r"private\.key"):
        load_or_create(tmp_path / "data")
    assert file.read_bytes() == b"broken"


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
async def test_a_host_says_where_it_listens_and_is_reached_there(host: str) -> None:
    async with new_host(host) as one, new_host(host) as other:
        (address,) = one.local.addresses
        assert address.tcp is not None
        assert address.tcp[0] == host
        connection = await other.connect(address)
        assert connection.peer_id == one.local.peer_id


async def test_a_host_on_all_addresses_tells_those_of_its_interfaces() -> None:
    async with new_host("") as host:
        told = [address.ip for address in host.local.addresses]
        assert told
        assert not any(ip is None or ip.is_unspecified for ip in told)


def test_a_full_disk_keeps_no_node_from_starting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: Path, data: bytes) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("speil.libp2p.identity._write", full)
    assert load_or_create(tmp_path).peer_id != load_or_create(tmp_path).peer_id
    assert not list(tmp_path.iterdir())
