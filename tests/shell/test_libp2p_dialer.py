"""Dials and streams that several callers share: each may be cancelled at any moment, and costs nobody else anything."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager

import pytest

from speil.border.record import BorderRecord
from speil.kad.message import Message, MessageType
from speil.kad.routing_table import RoutingTable
from speil.libp2p import ping, stream_slots
from speil.libp2p.error import ConnectionClosedError, OwnLimitError, PeerUnreachableError
from speil.libp2p.host import Host
from speil.libp2p.identity import Identity
from speil.libp2p.stream import Stream
from speil.libp2p.stream_slots import STREAMS_OUTBOUND_MAX
from speil.libp2p.transport import RawConnection, TcpTransport
from speil.multiformats.multiaddr import Multiaddr
from speil.multiformats.peer_id import PeerId
from speil.multiformats.peer_info import PeerInfo
from speil.observe.metrics import Metrics
from speil.routing.libp2p_network import Libp2pNetwork
from speil.routing.lookups import Lookups
from speil.routing.network import NetworkError, NotAskedError
from speil.setting import ListenAddress
from speil.testing.eventually import eventually
from tests.shell.mesh import new_host


class Held(TcpTransport):
    """TCP whose dials wait until they are let go; counted."""

    def __init__(self) -> None:
        super().__init__()
        self.open = asyncio.Event()
        self.begun = self.cancelled = 0

    async def dial(self, address: Multiaddr) -> RawConnection:
        self.begun += 1
        try:
            await self.open.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        return await super().dial(address)


@asynccontextmanager
async def pair() -> AsyncIterator[tuple[Host, Host, Held]]:
    """A host that dials when it is let, and one to be dialled."""
    transport = Held()
    dialling = Host(
        Identity.generate(),
        ListenAddress("127.0.0.1", 0),
        agent_version="speil/test",
        metrics=Metrics(),
        transport=transport,
    )
    async with new_host() as target, dialling as host:
        yield host, target, transport


async def cancelled(task: asyncio.Task[object]) -> None:
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task


@pytest.mark.parametrize("by_address", [False, True], ids=["peer", "address"])
async def test_a_caller_that_is_cancelled_fails_nobody_who_shares_its_dial(by_address: bool) -> None:
    async with pair() as (host, target, transport), asyncio.TaskGroup() as group:
        wanted = target.local.addresses[0] if by_address else target.local
        callers = [group.create_task(host.connect(wanted)) for _ in range(4)]
        await eventually(lambda: transport.begun == 1, what="one dial is begun")
        for caller in callers[:3]:
            await cancelled(caller)  # the first began it
        transport.open.set()
        assert (await callers[3]).peer_id == target.local.peer_id
        assert (transport.begun, transport.cancelled) == (1, 0)


async def test_when_the_last_caller_has_gone_the_dial_is_cancelled_and_the_next_begins_anew() -> None:
    async with pair() as (host, target, transport), asyncio.TaskGroup() as group:
        tasks = len(asyncio.all_tasks())
        callers = [group.create_task(host.connect(target.local)) for _ in range(3)]
        await eventually(lambda: transport.begun == 1, what="a dial is begun")
        for caller in callers:
            caller.cancel()
        late = group.create_task(host.connect(target.local))  # before the dial has noticed
        transport.open.set()
        assert (await late).peer_id == target.local.peer_id
        await eventually(lambda: transport.cancelled <= 1 and host._dialer.count == 0, what="nothing is left")
        for connection in host.connections:
            connection.abort()
        await eventually(lambda: len(asyncio.all_tasks()) <= tasks, what="no task is left")


async def test_a_dial_that_fails_fails_all_who_wait_and_is_tried_again_afterwards() -> None:
    async with new_host() as host:
        nobody = PeerInfo(Identity.generate().peer_id, (Multiaddr.parse("/ip4/127.0.0.1/tcp/1"),))
        outcomes = await asyncio.gather(*(host.connect(nobody) for _ in range(3)), return_exceptions=True)
        assert [type(one) for one in outcomes] == [PeerUnreachableError] * 3
        with pytest.raises(PeerUnreachableError):
            await host.connect(nobody)


async def test_a_host_that_closes_ends_its_dials_with_an_error_of_its_own() -> None:
    async with asyncio.TaskGroup() as group:
        async with pair() as (host, target, transport):
            callers = [group.create_task(_outcome(host.connect(target.local))) for _ in range(2)]
            await eventually(lambda: transport.begun == 1, what="a dial is begun")
        for caller in callers:
            assert isinstance(await caller, ConnectionClosedError)
        assert isinstance(await _outcome(host.connect(target.local)), ConnectionClosedError)


async def _outcome(call: Awaitable[object]) -> object:
    try:
        return await call
    except Exception as error:
        return error


async def test_a_bug_in_a_dial_is_the_callers_to_see_and_ends_no_host() -> None:
    class Broken(TcpTransport):
        async def dial(self, address: Multiaddr) -> RawConnection:
            raise ZeroDivisionError

    async with new_host() as target, new_host() as host:
        host._dialer._transport = Broken()
        with pytest.raises(ZeroDivisionError):
            await host.connect(target.local)
        host._dialer._transport = TcpTransport()
        await host.connect(target.local)


async def test_an_address_without_a_peer_id_is_dialled_once_while_its_connection_lives() -> None:
    async with new_host() as target, new_host() as host:
        first = await host.connect(target.local.addresses[0])
        assert {await host.connect(target.local.addresses[0]) for _ in range(5)} == {first}
        assert await host.connect(target.local) is first
        assert target.inbound_count == 1
        first.abort()
        assert await host.connect(target.local.addresses[0]) is not first


async def test_who_claims_an_address_is_not_taken_for_who_answers_there() -> None:
    async with new_host() as target, new_host() as host:
        liar = Host(
            Identity.generate(),
            ListenAddress("127.0.0.1", 0),
            agent_version="liar",
            metrics=Metrics(),
            announce=target.local.addresses,
        )
        async with liar:
            await liar.connect(host.local)
            assert (await host.connect(target.local.addresses[0])).peer_id == target.local.peer_id


# --- every public coroutine, cancelled at each of its steps ---------------------------------------------------


async def _pong(stream: Stream) -> None:
    while data := await stream.read():
        await stream.write(data)
    stream.close_write()


async def _connect(host: Host, target: Host, stream: Stream) -> None:
    await host.connect(target.local)


async def _open_stream(host: Host, target: Host, stream: Stream) -> None:
    (await host.open_stream(target.local, "/pong/1")).reset()


async def _read_message(host: Host, target: Host, stream: Stream) -> None:
    one = await host.open_stream(target.local, "/pong/1")
    async with one:
        await one.write_message(bytes(300_000))
        await one.read_message(1 << 20)


@pytest.mark.parametrize("call", [_connect, _open_stream, _read_message])
async def test_cancelling_at_any_step_leaves_no_task_and_fails_no_other_caller(
    call: Callable[[Host, Host, Stream], Coroutine[None, None, None]],
) -> None:
    async with new_host() as target, new_host() as host:
        target.set_handler("/pong/1", _pong)
        stream = await host.open_stream(target.local, "/pong/1")
        (connection,) = host.connections
        for steps in range(30):
            if call is _connect:
                for one in host.connections:
                    one.abort()
                await eventually(lambda: not host.connections and not target.connections, what="both are apart")
            tasks = len(asyncio.all_tasks())
            async with asyncio.TaskGroup() as group:
                doomed = group.create_task(call(host, target, stream))
                other = group.create_task(call(host, target, stream))
                for _ in range(steps):
                    await asyncio.sleep(0)
                doomed.cancel()
                await other  # raises what it raised: nobody else was cancelled
            kept = 0 if call is not _connect else _tasks_of(host) + _tasks_of(target)
            await eventually(lambda: len(asyncio.all_tasks()) <= tasks + kept, what="no task is left")  # noqa: B023
        if call is not _connect:
            await eventually(lambda: connection.stream_count == 1, what="no stream is left")
            assert connection._slots.used == 1
        assert host.held_bytes == 0


def _tasks_of(host: Host) -> int:
    """What a connection that stays has running: its keeper, and for one that came in its server."""
    return 2 * len(host.connections)


# --- what a cancelled or refused question says about the peer -------------------------------------------------


def network_of(host: Host, metrics: Metrics | None = None) -> Libp2pNetwork:
    """An attached DHT wire that answers each question with its own key."""
    metrics = metrics or Metrics()
    network = Libp2pNetwork(host, "/t", metrics, BorderRecord("", metrics))
    network.attach(lambda _, message: Message(message.type, message.key), lambda *_: None, lambda *_: None)
    return network


async def test_a_question_that_is_given_up_is_not_booked_as_the_peers_failure() -> None:
    async with pair() as (host, target, transport), asyncio.TaskGroup() as group:
        network_of(target)
        network = network_of(host)
        table = RoutingTable(host.local.peer_id)
        table.add(target.local, 0.0)
        dry: list[bool] = []
        lookups = Lookups(network, table, Metrics(), lambda: dry.append(True))
        impatient = group.create_task(network.request(target.local, Message(MessageType.PING)))
        await eventually(lambda: transport.begun == 1, what="it dials")
        running = group.create_task(lookups.run(b"\x12\x20" + bytes(32), MessageType.FIND_NODE))
        await asyncio.sleep(0)
        impatient.cancel()
        transport.open.set()
        lookup = await running
        assert lookup.answered_count == 1
        assert (len(table), dry) == (1, [])


async def test_a_lookup_that_is_cancelled_books_nothing() -> None:
    async with pair() as (host, target, transport), asyncio.TaskGroup() as group:
        network_of(target)
        table = RoutingTable(host.local.peer_id)
        table.add(target.local, 0.0)
        failed: list[PeerId] = []
        lookups = Lookups(network_of(host), table, Metrics(), lambda: None)
        lookups.failed = failed.append  # type: ignore[method-assign, assignment]
        running = group.create_task(lookups.run(b"\x12\x20" + bytes(32), MessageType.FIND_NODE))
        await eventually(lambda: transport.begun == 1, what="it dials")
        await cancelled(running)
        await eventually(lambda: transport.cancelled == 1, what="the dial ends with it")
        assert failed == []


async def test_our_streams_to_a_peer_are_bounded_while_they_live_and_it_is_not_blamed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with new_host() as target, new_host() as host:

        async def hold(stream: Stream) -> None:
            await stream.read()

        target.set_handler("/hold/1", hold)
        network_of(target)
        network = network_of(host)
        streams = [await host.open_stream(target.local, "/hold/1") for _ in range(STREAMS_OUTBOUND_MAX)]
        monkeypatch.setattr(stream_slots, "SLOT_SECONDS_MAX", 0.1)
        with pytest.raises(OwnLimitError):
            await host.open_stream(target.local, "/hold/1")
        with pytest.raises(NotAskedError):
            await network.request(target.local, Message(MessageType.PING))
        monkeypatch.setattr(stream_slots, "SLOT_SECONDS_MAX", 30.0)
        async with asyncio.TaskGroup() as group:
            waiting = group.create_task(host.open_stream(target.local, "/hold/1"))
            await asyncio.sleep(0)
            streams[0].reset()
            (await waiting).reset()
        (connection,) = host.connections
        connection.abort()
        assert connection._slots.used == 0
        with pytest.raises(ConnectionClosedError):
            await connection.open_stream(ping.PROTOCOL)


async def test_what_is_not_asked_for_a_bound_of_ours_stays_in_the_table() -> None:
    class Refusing:
        def __init__(self, host: Host, error: NetworkError) -> None:
            self.local, self.error = host.local, error

        async def request(self, peer: PeerInfo, message: Message) -> Message:
            raise self.error

    async with new_host() as host:
        for error, left in ((NotAskedError("busy"), 1), (NetworkError("gone"), 0)):
            table = RoutingTable(host.local.peer_id)
            table.add(PeerInfo(Identity.generate().peer_id, (Multiaddr.parse("/ip4/127.0.0.1/tcp/1"),)), 0.0)
            lookups = Lookups(Refusing(host, error), table, Metrics(), lambda: None)  # type: ignore[arg-type]
            for _ in range(3):
                await lookups.run(b"\x12\x20" + bytes(32), MessageType.FIND_NODE)
            assert len(table) == left


async def test_two_readers_of_a_stream_wait_each_for_itself() -> None:
    async with new_host() as target, new_host() as host, asyncio.TaskGroup() as group:
        target.set_handler("/pong/1", _pong)
        stream = await host.open_stream(target.local, "/pong/1")
        doomed, other = group.create_task(stream.has_more()), group.create_task(stream.has_more())
        await asyncio.sleep(0)
        doomed.cancel()
        await stream.write(b"x")
        assert await other
        stream.reset()
