"""Peers that ask for more than their share: bounded tasks, bytes, turns and places, and everybody else goes on."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from ipaddress import ip_network

import pytest

from speil.border.record import BorderRecord
from speil.kad import cost_budget
from speil.kad.cost_budget import Limit
from speil.kad.message import REQUEST_BYTES_MAX, Message, MessageType
from speil.libp2p import connection_table as table_module
from speil.libp2p import inbound_admission, multistream, ping
from speil.libp2p import serving as serving_module
from speil.libp2p import upgrader as upgrader_module
from speil.libp2p.budget import CONNECTION_BYTES_MAX, FREE_BYTES, SHARE_BYTES_MAX, TOTAL_BYTES_MAX, Account, Budget
from speil.libp2p.channel import EARLY_BYTES_MAX
from speil.libp2p.connection import FRAMES_PER_TURN_MAX, STREAMS_BEFORE_ADMISSION_MAX, STREAMS_BURST
from speil.libp2p.error import Libp2pError, PeerMisbehavedError
from speil.libp2p.host import Host
from speil.libp2p.inbound_admission import (
    CONNECTIONS_BURST,
    HANDSHAKES_MAX,
    STRANGERS_HANDSHAKES_MAX,
    STRANGERS_MAX,
    InboundAdmission,
    Ticket,
)
from speil.libp2p.neighbourhood import Neighbourhood
from speil.libp2p.remote_peer import RemotePeer
from speil.libp2p.stream import Stream
from speil.libp2p.transport import TcpTransport
from speil.libp2p.yamux import STREAMS_INBOUND_MAX, WINDOW_BYTES, DataReceived, StreamOpened, Yamux
from speil.multiformats import varint
from speil.observe.metrics import Metrics
from speil.routing import libp2p_network as network_module
from speil.routing.libp2p_network import ANSWERS_AT_ONCE_MAX, Libp2pNetwork
from speil.testing.eventually import eventually
from speil.testing.samples import sample
from tests.shell.hostile_peer import Attacker, Victim, rejected
from tests.shell.mesh import new_host


async def most_between_turns(count: Callable[[], int], done: Callable[[], bool]) -> int:
    """How much of `count` happened at most between two turns of somebody who only waits for its turn."""
    most, last = 0, count()
    while not done():
        await asyncio.sleep(0)
        now = count()
        most, last = max(most, now - last), now
    return most


# --- streams --------------------------------------------------------------------------------------------------


async def test_streams_opened_before_the_peer_is_let_in_are_few_and_leave_no_tasks() -> None:
    victim = Victim()
    async with victim.host:
        before = len(asyncio.all_tasks())
        attacker = Attacker()
        await attacker.meet(victim.host)
        for _ in range(100_000 // 200):
            for stream_id in await attacker.open(20):
                attacker.yamux.reset(stream_id)
            attacker.flush()
            await asyncio.sleep(0)
            assert len(asyncio.all_tasks()) <= before + STREAMS_BEFORE_ADMISSION_MAX + 10
            if attacker.closed.is_set():
                break
        await asyncio.wait_for(attacker.closed.wait(), 30)
        await eventually(lambda: rejected(victim.metrics, "stream_churn") == 1, what="it is counted")
        await eventually(lambda: len(asyncio.all_tasks()) <= before, what="no task is left")
        assert victim.asked == 0


async def test_a_stream_that_is_reset_while_its_peer_waits_to_be_let_in_ends_its_task() -> None:
    victim = Victim()
    async with victim.host:
        attacker = Attacker()
        await attacker.meet(victim.host)
        opened = await attacker.open(10)
        before = len(asyncio.all_tasks())
        for stream_id in opened:
            attacker.yamux.reset(stream_id)
        attacker.flush()
        await eventually(lambda: len(asyncio.all_tasks()) <= before - 10 or before < 10, what="all ten have ended")
        assert victim.host.shaking_count == 1, "the peer has not been let in, nor cut off"
        attacker.leave()


async def test_a_peer_whose_streams_churn_is_cut_off_and_counted() -> None:
    victim = Victim()
    async with victim.host:
        before = len(asyncio.all_tasks())
        attacker = Attacker(polite=True)
        await attacker.meet(victim.host)
        for _ in range(int(STREAMS_BURST)):
            for stream_id in await attacker.open(20):
                attacker.yamux.reset(stream_id)
            attacker.flush()
            await asyncio.sleep(0)
            assert len(asyncio.all_tasks()) <= before + STREAMS_INBOUND_MAX + 10
            if attacker.closed.is_set():
                break
        await asyncio.wait_for(attacker.closed.wait(), 30)
        await eventually(lambda: rejected(victim.metrics, "stream_churn") == 1, what="it is counted")
        async with new_host() as honest:
            await honest.connect(victim.host.local)


async def test_handlers_of_streams_that_were_reset_count_until_they_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serving_module, "SERVED_AT_ONCE_MAX", 5)
    monkeypatch.setattr(serving_module, "SERVED_FREE", 2)
    running = 0

    async def stuck(stream: Stream) -> None:
        nonlocal running
        running += 1
        await asyncio.Event().wait()

    async with new_host() as host, new_host() as peer:
        host.set_handler("/stuck/1", stuck)
        outcomes = []
        for _ in range(10):
            try:
                (await peer.open_stream(host.local, "/stuck/1")).reset()
                outcomes.append(True)
            except Libp2pError:
                outcomes.append(False)
        assert outcomes == [True] * 5 + [False] * 5
        assert running == 5


async def test_idle_streams_of_many_connections_of_one_address_are_few_and_each_peer_has_some(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(serving_module, "SERVED_OF_SHARE_MAX", 60)
    victim = Victim()
    async with victim.host:
        before = len(asyncio.all_tasks())
        attackers = [Attacker(polite=True) for _ in range(4)]
        for attacker in attackers:
            await attacker.meet(victim.host)
            await attacker.open(200)
        await eventually(lambda: rejected(victim.metrics, "too_many_streams") >= 600, what="the others are reset")
        assert len(asyncio.all_tasks()) <= before + 60 + 8 * len(attackers) + 4 * len(attackers)
        async with new_host() as honest:
            network = Libp2pNetwork(honest, "/t", Metrics(), BorderRecord("", Metrics()))
            network.attach(lambda *_: None, lambda *_: None, lambda *_: None)
            await network.request(victim.host.local, Message(MessageType.PING))
        for attacker in attackers:
            attacker.leave()
        await eventually(lambda: victim.host._streams.serving.count == 0, what="all have ended")


# --- turns ----------------------------------------------------------------------------------------------------


async def test_frames_are_taken_in_turns() -> None:
    victim = Victim()
    async with victim.host:
        attacker = Attacker(polite=True)
        await attacker.meet(victim.host)
        (connection,) = victim.host.connections
        seen = 0
        handle = connection._handle

        def counted(event: object) -> None:
            nonlocal seen
            seen += 1
            handle(event)  # type: ignore[arg-type]

        connection._handle = counted  # type: ignore[method-assign]
        (stream_id,) = await attacker.open(1)
        for _ in range(20_000):
            attacker.channel.send(b"\0\1\0\0" + stream_id.to_bytes(4, "big") + b"\0\0\0\1")  # a window grows by one
        most = await most_between_turns(lambda: seen, lambda: seen >= 20_000)
        assert most <= 2 * FRAMES_PER_TURN_MAX
        attacker.leave()


async def test_frames_of_one_address_have_a_rate(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upgrader_module, "FRAMES_BURST", 1000)
    monkeypatch.setattr(upgrader_module, "FRAMES_PER_SECOND", 1e-9)  # what is above the burst comes never
    victim = Victim()
    async with victim.host:
        attackers = [Attacker(polite=True) for _ in range(2)]
        seen = 0
        for attacker in attackers:
            await attacker.meet(victim.host)
        for connection in victim.host.connections:

            def counted(event: object) -> None:
                nonlocal seen
                seen += 1

            connection._handle = counted  # type: ignore[method-assign]
        for attacker in attackers:
            (stream_id,) = await attacker.open(1)
            for _ in range(3000):
                attacker.channel.send(b"\0\1\0\0" + stream_id.to_bytes(4, "big") + b"\0\0\0\1")
        await eventually(lambda: seen >= 900, what="the burst is taken")
        for _ in range(500):
            await asyncio.sleep(0)
        assert seen <= 1000 + len(attackers) * FRAMES_PER_TURN_MAX
        for attacker in attackers:
            attacker.leave()


def test_bytes_for_streams_that_are_gone_are_as_many_as_were_under_way() -> None:
    dialer, listener = Yamux(dialer=True), Yamux(dialer=False)
    for _ in range(3):
        stream = dialer.open()
        dialer.send(stream, bytes(100))
        listener.receive(dialer.take_output())
        listener.reset(stream)
    for _ in range(3 * (WINDOW_BYTES // 65536)):
        body = bytes(65536 - 100)
        assert listener.receive(b"\0\0\0\0" + stream.to_bytes(4, "big") + len(body).to_bytes(4, "big") + body) == []
    with pytest.raises(PeerMisbehavedError) as caught:
        listener.receive(b"\0\0\0\0" + stream.to_bytes(4, "big") + (1000).to_bytes(4, "big") + bytes(1000))
    assert caught.value.reason == "window_exceeded"


@pytest.mark.parametrize(
    ("message", "reason"),
    [(b"\0", "bad_dht_message"), (b"\1\xff", "bad_dht_message"), (b"\2\x08\x63", "bad_dht_message")],
)
async def test_messages_that_are_none_end_their_stream_at_the_first(message: bytes, reason: str) -> None:
    victim = Victim()
    async with victim.host:
        attacker = Attacker(polite=True)
        await attacker.meet(victim.host)
        await attacker.open(4, message * (250_000 // len(message)))
        await eventually(lambda: rejected(victim.metrics, reason) == 4, what="each is counted once")
        await eventually(lambda: victim.host.held_bytes == 0, what="what came behind it is dropped")
        assert victim.asked == 0
        attacker.leave()


async def test_a_flood_of_small_messages_lets_others_go_first_and_has_a_rate(monkeypatch: pytest.MonkeyPatch) -> None:
    ping_message = Message(MessageType.PING).encode()
    burst_seconds = 300 * cost_budget.price(len(ping_message))
    monkeypatch.setattr(cost_budget, "PEER", Limit("peer", 1e-9, burst_seconds))  # nothing is added to the burst
    victim = Victim()
    async with victim.host:
        attacker = Attacker(polite=True)
        await attacker.meet(victim.host)
        await attacker.open(4, (varint.encode(len(ping_message)) + ping_message) * 60_000)
        most = await most_between_turns(lambda: victim.asked, lambda: victim.asked >= 290)
        assert most <= 4, "one for each stream"

        def refused() -> bool:
            return sample(victim.metrics, "speil_dht_refused_total", reason="peer") == 4

        await eventually(refused, what="its streams are reset")
        assert victim.asked <= 300
        attacker.leave()


async def test_a_flood_of_pings_on_a_stream_lets_others_go_first() -> None:
    async with new_host() as host, new_host() as peer, asyncio.TaskGroup() as group:
        echoed = 0
        stream = await peer.open_stream(host.local, ping.PROTOCOL)

        async def count() -> None:
            nonlocal echoed
            while echoed < 1000:
                echoed += len(await stream.read()) // 32

        serving, served = host._streams.serving, 0
        wait_turn = serving.wait_turn

        async def counted(peer: RemotePeer) -> None:
            nonlocal served
            served += 1
            await wait_turn(peer)

        serving.wait_turn = counted  # type: ignore[method-assign]
        group.create_task(count())
        await stream.write(bytes(32 * 1000))
        assert await most_between_turns(lambda: served, lambda: served >= 1000) <= 2
        await eventually(lambda: echoed == 1000, what="all are answered")
        stream.reset()


async def test_answers_that_a_peer_does_not_take_are_few(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(network_module, "MESSAGE_SECONDS_MAX", 3600.0)
    victim = Victim()
    big = Message(MessageType.FIND_NODE, b"k" * 80)
    running = most = 0

    async def crawl(stream: Stream, data: bytes, asker: str) -> None:
        nonlocal running, most
        running += 1
        most = max(most, running)
        try:
            await asyncio.Event().wait()
        finally:
            running -= 1

    victim.network._answer = crawl  # type: ignore[method-assign]
    async with victim.host:
        attacker = Attacker(polite=True)
        await attacker.meet(victim.host)
        encoded = big.encode()
        await attacker.open(100, varint.encode(len(encoded)) + encoded)
        await eventually(lambda: running == ANSWERS_AT_ONCE_MAX, what="the first are being answered")
        for _ in range(100):
            await asyncio.sleep(0)
        assert most == ANSWERS_AT_ONCE_MAX
        attacker.leave()


# --- bytes ----------------------------------------------------------------------------------------------------


async def test_unfinished_messages_hold_a_bounded_number_of_bytes_and_give_them_back() -> None:
    victim = Victim()
    body = varint.encode(REQUEST_BYTES_MAX) + bytes(REQUEST_BYTES_MAX - 1)
    async with victim.host:
        attackers = [Attacker(polite=True) for _ in range(4)]
        most = 0
        for attacker in attackers:
            await attacker.meet(victim.host)
            await attacker.open(60, body)
            most = max(most, victim.host.held_bytes, sum(_held(victim.host)))
        await eventually(lambda: rejected(victim.metrics, "memory") > 0, what="streams are reset")
        assert most <= SHARE_BYTES_MAX + 4 * (FREE_BYTES + 2 * 65536)
        assert max(_held(victim.host), default=0) <= CONNECTION_BYTES_MAX
        async with new_host() as honest:  # from the same address, whose share is full
            network = Libp2pNetwork(honest, "/t", Metrics(), BorderRecord("", Metrics()))
            network.attach(lambda *_: None, lambda *_: None, lambda *_: None)
            answer = await network.request(victim.host.local, Message(MessageType.PING))
            assert answer.type is MessageType.PING
        for attacker in attackers:
            attacker.leave()
        await eventually(lambda: not victim.host.connections, what="they are gone")
        assert victim.host.held_bytes == 0


def _held(host: Host) -> list[int]:
    return [connection._account.held for connection in host.connections]


async def test_a_message_that_is_not_finished_in_time_ends_its_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(network_module, "MESSAGE_SECONDS_MAX", 0.2)
    victim = Victim()
    async with victim.host:
        attacker = Attacker(polite=True)
        await attacker.meet(victim.host)
        await attacker.open(3, varint.encode(REQUEST_BYTES_MAX) + bytes(REQUEST_BYTES_MAX // 2))
        await eventually(lambda: rejected(victim.metrics, "slow_message") == 3, what="each is counted")
        await eventually(lambda: victim.host.held_bytes == 0, what="nothing is held")
        attacker.leave()


async def test_what_a_handler_leaves_unread_is_dropped() -> None:
    async def ignore(stream: Stream) -> None:
        stream.close_write()

    async with new_host() as host, new_host() as peer:
        host.set_handler("/ignore/1", ignore)
        for _ in range(20):
            stream = await peer.open_stream(host.local, "/ignore/1")
            await stream.write(bytes(200_000))
        (connection,) = host.connections
        await eventually(lambda: connection._account.held <= 65536 * 2, what="nothing is held for nobody")
        assert connection.stream_count <= 20


async def test_a_handshake_that_sends_on_without_an_answer_is_cut_off() -> None:
    victim = Victim()
    async with victim.host:
        raw = await TcpTransport().dial(victim.host.local.addresses[0])
        ended = asyncio.Event()
        raw.attach(lambda data: None, ended.set)
        raw.write(multistream.encode(multistream.HEADER, "/noise") + b"\x10\x01" + bytes(3 * EARLY_BYTES_MAX))
        await asyncio.wait_for(ended.wait(), 30)
        await eventually(lambda: victim.host.inbound_count == 0, what="it is forgotten")


def test_a_frame_is_passed_on_as_it_comes_and_never_kept() -> None:
    dialer, listener = Yamux(dialer=True), Yamux(dialer=False)
    stream = dialer.open()
    dialer.send(stream, bytes(65536))
    output = dialer.take_output()
    assert listener.receive(output[:12]) == [StreamOpened(stream)]
    passed = 0
    for start in range(12, len(output), 1000):
        for event in listener.receive(output[start : start + 1000]):
            assert isinstance(event, DataReceived)
            passed += len(event.data)
        assert listener.pending_bytes <= 12
    assert passed == 65536


def test_bytes_are_counted_by_connection_share_and_all() -> None:
    budget = Budget()
    accounts = [Account(budget, f"10.0.{number}.1") for number in range(20) for _ in range(4)]
    for account in accounts:
        assert account.hold(FREE_BYTES), "a little is free"
        while account.hold(65536):
            pass
        assert account.held <= CONNECTION_BYTES_MAX
    assert TOTAL_BYTES_MAX - 65536 <= budget.held <= TOTAL_BYTES_MAX
    assert max(budget._shares.values()) <= SHARE_BYTES_MAX
    late = Account(budget, "10.9.9.9")
    assert late.hold(FREE_BYTES)
    assert not late.hold(1)
    assert late.hold(1, in_any_case=True), "its own share has room"
    for account in (*accounts, late):
        account.release(account.held // 2)
        account.close()
        account.release(5)  # a reader that comes later
        assert not account.hold(1)
    assert budget.held == 0
    assert not budget._shares


# --- places ---------------------------------------------------------------------------------------------------


async def test_half_open_connections_from_two_addresses_keep_nobody_out() -> None:
    victim = Victim()
    tcp = victim.host
    async with tcp:
        port = victim.host.local.addresses[0].tcp
        assert port is not None
        loop, closed = asyncio.get_running_loop(), list[asyncio.Transport]()

        class Silent(asyncio.Protocol):
            def connection_made(self, transport: asyncio.BaseTransport) -> None:
                assert isinstance(transport, asyncio.Transport)
                closed.append(transport)

        for source in ("127.0.0.2", "127.0.0.3"):
            for _ in range(HANDSHAKES_MAX // 2):
                await loop.create_connection(Silent, *port, local_addr=(source, 0))
        await eventually(lambda: victim.host.shaking_count == HANDSHAKES_MAX, what="all places are taken")
        async with new_host() as honest, new_host() as second:
            for one in (honest, second):
                assert (await one.connect(victim.host.local)).peer_id == victim.host.local.peer_id
        assert rejected(victim.metrics, "slow_handshake") >= 1
        assert victim.host.shaking_count <= HANDSHAKES_MAX
        for transport in closed:
            transport.abort()
        await eventually(lambda: victim.host.inbound_count == 0, what="all are forgotten")


def admission() -> InboundAdmission:
    neighbourhood = Neighbourhood()
    neighbourhood.set_own(["10.1.2.3", "fd00:1::7"])
    return InboundAdmission(neighbourhood)


def arrive(gate: InboundAdmission, host: str) -> tuple[Ticket, Ticket | None]:
    assert gate.refusal(host, 0.0) is None
    return gate.accept(host, 0.0, lambda: None)


def test_strangers_are_counted_by_prefix_and_neighbours_by_address() -> None:
    gate = admission()
    for number in range(inbound_admission.CONNECTIONS_PER_ADDRESS_MAX):
        gate.handshake_ended(arrive(gate, f"192.0.2.{number}")[0])
        gate.handshake_ended(arrive(gate, f"2001:db8::{number:x}")[0])
        gate.handshake_ended(arrive(gate, "10.1.9.9")[0])
    assert gate.refusal("192.0.2.250", 0.0) == gate.refusal("2001:db8::ffff", 0.0) == "too_many_from_address"
    assert gate.refusal("10.1.9.9", 0.0) == "too_many_from_address"
    for other in ("192.0.3.1", "2001:db8:0:1::1", "10.1.9.10", "fd00:1::8"):
        assert gate.refusal(other, 0.0) is None


def test_an_ipv4_address_inside_ipv6_counts_as_what_it_is() -> None:
    neighbourhood = Neighbourhood()
    for host in ("::ffff:192.0.2.7", "2002:c000:0207::1", "64:ff9b::c000:207"):
        assert neighbourhood.share_of(host) == neighbourhood.share_of("192.0.2.9")


def test_in_the_regions_networks_each_address_is_one_nodes() -> None:
    neighbourhood = Neighbourhood((ip_network("172.20.0.0/14"),))
    neighbourhood.set_own(["10.1.2.3"])
    assert neighbourhood.share_of("172.22.1.1") == "172.22.1.1"
    assert neighbourhood.share_of("10.1.250.1") == "10.1.250.1"
    assert neighbourhood.share_of("172.24.1.1") == "172.24.1.0/24"
    assert neighbourhood.is_near("172.22.1.1")
    assert not neighbourhood.is_near("10.2.0.1")
    assert not neighbourhood.is_near("127.0.0.1")


def test_places_are_kept_for_neighbours_and_members() -> None:
    gate = admission()
    for number in range(STRANGERS_MAX):
        gate.handshake_ended(arrive(gate, f"100.{number >> 8}.{number & 255}.1")[0])
    assert gate.refusal("99.9.9.9", 0.0) == "too_many"
    assert gate.refusal("10.1.200.1", 0.0) is None
    gate._neighbourhood.add_member("99.9.9.9")
    assert gate.refusal("99.9.9.9", 0.0) is None


def test_the_slowest_handshake_of_whoever_has_most_makes_way() -> None:
    gate = admission()
    first, _ = arrive(gate, "198.51.100.1")
    honest, _ = arrive(gate, "203.0.113.5")
    for number in range(STRANGERS_HANDSHAKES_MAX - 2):
        _, slowest = arrive(gate, f"198.51.{100 + number % 2}.9")
        assert slowest is None
    _, slowest = arrive(gate, "192.0.2.1")
    assert slowest is first, "it had most, and this one is its oldest"
    near, slowest = arrive(gate, "10.1.5.5")
    assert slowest is None, "places are kept"
    for _ in range(200):
        _, slowest = arrive(gate, "192.0.77.1")
        assert slowest not in (None, honest, near)
        assert slowest is not None
        gate.closed(slowest)
    assert gate.shaking_count <= HANDSHAKES_MAX


def test_connections_that_come_and_go_have_a_rate() -> None:
    gate = admission()
    for number in range(CONNECTIONS_BURST):
        gate.closed(arrive(gate, f"192.0.2.{number % 250}")[0])
    assert gate.refusal("192.0.2.7", 0.0) == "too_fast"
    assert gate.refusal("192.0.3.7", 0.0) is None
    assert gate.refusal("192.0.2.7", 1.0) is None
    assert (gate.count, gate.shaking_count) == (0, 0)


def test_strangers_never_push_a_neighbours_handshake_out() -> None:
    gate = admission()
    near = [arrive(gate, f"10.1.0.{number}")[0] for number in range(HANDSHAKES_MAX)]
    assert gate.refusal("192.0.2.1", 0.0) == "too_many"
    _, slowest = arrive(gate, "10.1.7.7")
    assert slowest is near[0]


async def test_above_high_water_whoever_has_most_connections_loses_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(table_module, "CONNECTIONS_HIGH_WATER", 6)
    monkeypatch.setattr(table_module, "CONNECTIONS_LOW_WATER", 5)
    monkeypatch.setattr(table_module, "SHARE_WHEN_FULL", 2)
    async with new_host() as host:
        host._neighbourhood.set_own(["10.9.9.9"])  # on this machine all are strangers then, each in its /24
        attackers = [Attacker(polite=True) for _ in range(6)]
        async with new_host() as honest:
            await honest.connect(host.local)
            for attacker in attackers:
                await attacker.connect(host.local.addresses[0])
            await eventually(lambda: any(one.closed.is_set() for one in attackers), what="room is made")
            assert len(host.connections) <= 6
        for attacker in attackers:
            attacker.leave()
