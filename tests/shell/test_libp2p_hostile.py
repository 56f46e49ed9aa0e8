"""Peers that mean harm: bounded memory, a closed connection, a metric, and nothing in the log."""

from __future__ import annotations

import asyncio
import contextlib
import io
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest

from speil.libp2p import listener as listener_module
from speil.libp2p import multistream
from speil.libp2p import upgrader as upgrader_module
from speil.libp2p.error import Libp2pError, PeerMisbehavedError, PeerUnreachableError, RefusedError
from speil.libp2p.host import Host
from speil.libp2p.identity import Identity
from speil.libp2p.inbound_admission import CONNECTIONS_PER_ADDRESS_MAX
from speil.libp2p.stream import Stream
from speil.libp2p.transport import OpenGate
from speil.multiformats.multiaddr import Multiaddr
from speil.multiformats.peer_id import PeerId
from speil.multiformats.peer_info import PeerInfo
from speil.observe import logs
from speil.observe.metrics import Metrics
from speil.setting import ListenAddress
from speil.testing.eventually import eventually
from tests.shell.hostile_peer import Attacker, rejected
from tests.shell.mesh import new_host


@pytest.fixture(autouse=True)
def log() -> io.StringIO:
    """What is logged at INFO and above."""
    stream = io.StringIO()
    logs.configure("INFO", "text", stream)
    return stream


@asynccontextmanager
async def victim() -> AsyncIterator[tuple[Host, Metrics, tuple[str, int]]]:
    """A host, its metrics and where it listens."""
    metrics = Metrics()
    async with new_host(metrics=metrics) as host:
        tcp = host.local.addresses[0].tcp
        assert tcp is not None
        yield host, metrics, tcp


async def is_closed(reader: asyncio.StreamReader) -> bool:
    """Whether the other side ends the connection."""
    try:
        while await reader.read(65536):
            pass
    except ConnectionError:
        pass
    return True


HANDSHAKE = multistream.encode(multistream.HEADER, "/noise")


@pytest.mark.parametrize(
    ("sent", "reason"),
    [
        (b"\x00" * 64, "bad_multistream"),
        (b"GET / HTTP/1.1\r\n\r\n" * 10, "bad_multistream"),
        (b"\xff" * 64, "bad_multistream"),
        (multistream.encode(multistream.HEADER) + multistream.encode("/x") * 17, "bad_multistream"),
        (HANDSHAKE + b"\xff\xff" + b"x" * 5000, "bad_noise"),
        (HANDSHAKE + b"\x00\x05short", "bad_noise"),
        (HANDSHAKE + b"\x00\x20" + b"\x00" * 32, "bad_noise"),
        (HANDSHAKE + b"\x00\x20" + b"\x09" * 32 + b"\x00\x60" + b"x" * 96, "bad_noise"),
    ],
)
async def test_garbage_at_each_phase_closes_and_counts(sent: bytes, reason: str, log: io.StringIO) -> None:
    async with victim() as (_, metrics, tcp):
        reader, writer = await asyncio.open_connection(*tcp)
        writer.write(sent)
        assert await asyncio.wait_for(is_closed(reader), 30)
        await eventually(lambda: rejected(metrics, reason) == 1, what=f"counted as {reason}")
        writer.close()
    assert log.getvalue() == ""


async def test_a_cut_handshake_costs_nothing(log: io.StringIO) -> None:
    async with victim() as (host, _, tcp):
        for cut in range(0, len(HANDSHAKE), 5):
            _, writer = await asyncio.open_connection(*tcp)
            writer.write(HANDSHAKE[:cut])
            writer.close()
        await eventually(lambda: host.inbound_count == 0, what="all are forgotten")
    assert log.getvalue() == ""


async def test_a_slow_handshake_is_cut_off(monkeypatch: pytest.MonkeyPatch, log: io.StringIO) -> None:
    monkeypatch.setattr(listener_module, "HANDSHAKE_SECONDS_MAX", 0.2)
    async with victim() as (_, metrics, tcp):
        reader, writer = await asyncio.open_connection(*tcp)
        writer.write(HANDSHAKE[:1])
        assert await asyncio.wait_for(is_closed(reader), 30)
        assert rejected(metrics, "slow_handshake") == 1
        writer.close()
    assert log.getvalue() == ""


async def test_a_thousand_connections_are_bounded_and_honest_peers_get_in_again(
    monkeypatch: pytest.MonkeyPatch, log: io.StringIO
) -> None:
    async with victim() as (host, metrics, tcp):
        sockets = []
        for _ in range(1000):
            one = socket.socket()
            one.setblocking(False)
            await asyncio.get_running_loop().sock_connect(one, tcp)
            sockets.append(one)
        most = CONNECTIONS_PER_ADDRESS_MAX
        await eventually(
            lambda: rejected(metrics, "too_many_from_address") == 1000 - most, what="those above the bound are closed"
        )
        assert host.inbound_count == most
        for one in sockets:
            one.close()
        await eventually(lambda: host.inbound_count == 0, what="all are forgotten")
        async with new_host() as honest:
            await honest.connect(host.local)
    assert log.getvalue() == ""


async def _never_read(stream: Stream) -> None:
    await asyncio.Event().wait()


def exceed_window(attacker: Attacker) -> None:
    attacker.yamux.open(multistream.encode(multistream.HEADER, "/stuck/1"))
    attacker.flush()
    for _ in range(5):
        attacker.channel.send(b"\0\0\0\0\0\0\0\1\0\1\0\0" + bytes(65536))


def oversized_frame(attacker: Attacker) -> None:
    attacker.channel.send(b"\0\0\0\1\0\0\0\1\xff\xff\xff\xff")


def unknown_frame(attacker: Attacker) -> None:
    attacker.channel.send(b"\0\x09\0\0\0\0\0\0\0\0\0\0")


def even_stream(attacker: Attacker) -> None:
    attacker.channel.send(b"\0\0\0\1\0\0\0\x02\0\0\0\0" * 2)


def broken_noise(attacker: Attacker) -> None:
    attacker.channel._raw.write(b"\x00\x20" + bytes(32))


@pytest.mark.parametrize(
    ("attack", "reason"),
    [
        (exceed_window, "window_exceeded"),
        (oversized_frame, "window_exceeded"),
        (unknown_frame, "bad_yamux"),
        (even_stream, "bad_yamux"),
        (broken_noise, "bad_noise"),
    ],
)
async def test_attacks_behind_the_handshake_close_and_count(
    attack: Callable[[Attacker], None], reason: str, log: io.StringIO
) -> None:
    async with victim() as (host, metrics, _):
        host.set_handler("/stuck/1", _never_read)
        attacker = Attacker(polite=True)
        await attacker.meet(host)
        attack(attacker)
        await eventually(attacker.closed.is_set, what="it is cut off")
        await eventually(lambda: rejected(metrics, reason) == 1, what=f"counted as {reason}")
        await eventually(lambda: not host.connections, what="it is forgotten")
    assert log.getvalue() == ""


async def test_a_flood_of_pings_by_a_peer_that_never_reads_is_cut_off(
    monkeypatch: pytest.MonkeyPatch, log: io.StringIO
) -> None:
    monkeypatch.setattr(upgrader_module, "FRAMES_BURST", 1e9)  # or the flood would take its time
    async with victim() as (host, _, _):
        attacker = Attacker(polite=True)
        await attacker.meet(host)
        attacker.channel._raw.pause(True)
        ping = b"\0\2\0\1\0\0\0\0\0\0\0\1" * 5000

        async def flood() -> None:
            with contextlib.suppress(Libp2pError):
                while True:
                    attacker.channel.send(ping)
                    await attacker.channel.drain()
                    await asyncio.sleep(0)

        async with asyncio.TaskGroup() as group:
            flooding = group.create_task(flood())
            await eventually(lambda: not host.connections, timeout_seconds=60, what="it is cut off")
            flooding.cancel()
        attacker.leave()
    assert log.getvalue() == ""


async def test_a_stream_nobody_reads_stops_its_writer_and_not_the_memory() -> None:
    written = 0

    async def fill(stream: Stream) -> None:
        nonlocal written
        while True:
            await stream.write(bytes(65536))
            written += 65536

    async with victim() as (host, _, _), new_host() as peer:
        host.set_handler("/fill/1", fill)
        stream = await peer.open_stream(host.local, "/fill/1")
        await eventually(lambda: written >= 196_608, what="the window is full")
        for _ in range(50):
            await asyncio.sleep(0)
        assert written <= 262_144
        assert await stream.read_exactly(500_000) == bytes(500_000)
        stream.reset()


async def test_a_peer_under_another_name_is_refused() -> None:
    async with victim() as (host, _, _), new_host() as peer:
        somebody = PeerInfo(Identity.generate().peer_id, host.local.addresses)
        with pytest.raises(PeerMisbehavedError) as caught:
            await peer.connect(somebody)
        assert caught.value.reason == "wrong_peer_id"
        with pytest.raises(PeerUnreachableError):
            await peer.connect(PeerInfo(peer.local.peer_id, peer.local.addresses))


async def test_nobody_at_the_address_is_an_error_that_says_so() -> None:
    async with new_host() as peer:
        with pytest.raises(PeerUnreachableError, match=r"/ip4/127\.0\.0\.1/tcp/1"):
            await peer.connect(Multiaddr.parse("/ip4/127.0.0.1/tcp/1"))


async def test_a_gate_that_refuses_is_asked_at_each_door() -> None:
    class Gate(OpenGate):
        def __init__(self, door: str) -> None:
            self.door = door

        def intercept_dial(self, address: Multiaddr) -> str | None:
            return "rule" if self.door == "dial" else None

        def intercept_accept(self, remote: Multiaddr) -> str | None:
            return "rule" if self.door == "accept" else None

        def intercept_secured(self, peer_id: PeerId, *, inbound: bool) -> str | None:
            return "rule" if self.door == "secured" else None

        def intercept_identified(self, peer_id: PeerId, protocols: frozenset[str], agent_version: str) -> str | None:
            return "rule" if self.door == "identified" else None

    for door in ("dial", "accept", "secured", "identified"):
        metrics = Metrics()
        guarded = Host(
            Identity.generate(), ListenAddress("127.0.0.1", 0), agent_version="x", metrics=metrics, gate=Gate(door)
        )
        async with guarded, new_host() as other:
            if door == "dial":
                with pytest.raises(RefusedError):
                    await guarded.connect(other.local)
            else:
                with contextlib.suppress(Libp2pError):
                    await other.connect(guarded.local)
            await eventually(lambda: rejected(metrics, "rule") == 1, what=f"refused at {door}")  # noqa: B023
            assert not guarded.connections
            await eventually(lambda: not other.connections, what="the other side sees its end")


async def test_cancelling_a_dial_at_any_moment_leaves_nothing_open() -> None:
    async with victim() as (host, _, _), new_host() as peer:
        for steps in range(40):
            async with asyncio.TaskGroup() as group:
                dial = group.create_task(peer.connect(host.local))
                for _ in range(steps):
                    await asyncio.sleep(0)
                dial.cancel()
            for connection in peer.connections:
                connection.abort()
            await eventually(lambda: not host.connections and host.inbound_count == 0, what="both sides are clean")
        await peer.connect(host.local)


async def test_a_peer_that_comes_again_is_spoken_to_on_its_new_connection() -> None:
    identity = Identity.generate()

    def incarnation() -> Host:
        return Host(identity, ListenAddress("127.0.0.1", 0), agent_version="speil/test", metrics=Metrics())

    async def answer(stream: Stream) -> None:
        await stream.write_message(b"the new one")

    async with new_host() as host, incarnation() as before, incarnation() as after:
        after.set_handler("/who/1.0.0", answer)
        for one in (before, after):  # the first peer lost its power, so no FIN came
            await one.connect(host.local)
        await eventually(lambda: len(host.connections) == 2, what="both are connected")
        stream = await host.open_stream(after.local, "/who/1.0.0")
        assert await stream.read_message(100) == b"the new one"
