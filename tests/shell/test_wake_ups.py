"""How often the event loop is woken for a body, and what each wake-up moves: most of the CPU that a body costs."""

from __future__ import annotations

import asyncio
import os
import select
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path

import pytest

from speil.testing.eventually import eventually
from speil.wire import sendfile as sendfile_module
from speil.wire import splice as splice_module
from speil.wire import turns as turns_module
from speil.wire.bursts import BUFFER_PARTS_MIN, BURST_BYTES_MAX, BURST_BYTES_MIN, BURST_SECONDS, LOOK_SECONDS, Bursts
from speil.wire.pump import Pump, Wait
from speil.wire.sendfile import SendFile
from speil.wire.splice import Splice
from speil.wire.turns import CALL_BYTES_MAX, Wire

MIB = 1 << 20
NO_LIMIT_SECONDS = 60.0  # of a turn: a busy machine may stop this process in the middle of one


@contextmanager
def connected() -> Iterator[tuple[socket.socket, socket.socket]]:
    """Both ends of a TCP connection, which do not block."""
    with ExitStack() as stack:
        server = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        one = stack.enter_context(socket.create_connection(server.getsockname()))
        other = stack.enter_context(server.accept()[0])
        for end in (one, other):
            end.setblocking(False)
        yield one, other


class End:
    """The client's end for a pump."""

    is_gone = has_ended = False

    def __init__(self, connection: socket.socket) -> None:
        self.fd = connection.fileno()


def drain(connection: socket.socket) -> int:
    """Read what is there; how much."""
    size = 0
    try:
        while data := connection.recv(MIB):
            size += len(data)
    except BlockingIOError:
        pass
    return size


async def test_one_turn_fills_the_socket_and_takes_few_system_calls(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sendfile_module, "TURN_SECONDS_MAX", NO_LIMIT_SECONDS)
    path, size, calls, turns = tmp_path / "blob", 64 * MIB, list[int](), list[int]()
    with path.open("wb") as blob:
        blob.truncate(size)
    sendfile = os.sendfile

    def counted(out: int, file: int, offset: int, count: int) -> int:
        calls.append(count)
        return sendfile(out, file, offset, count)

    monkeypatch.setattr(os, "sendfile", counted)
    content = os.open(path, os.O_RDONLY)
    with connected() as (near, far):
        pump = SendFile(Wire(), End(near), content, 0, size)
        turn = pump._turn

        def counted_turn(size_max: int) -> Wait:
            turns.append(size_max)
            return turn(size_max)

        monkeypatch.setattr(pump, "_turn", counted_turn)
        fills, came = 0, 0

        async def send() -> None:
            left = size
            while left:
                left -= await pump.piece()

        async with asyncio.TaskGroup() as group:
            sending = group.create_task(send())
            while came < size:
                # the client reads only when the socket is full, so each fill is as large as it can be
                while not sending.done() and select.select((), (near,), (), 0)[1]:
                    await asyncio.sleep(0)
                fills += 1
                came += drain(far)
            await sending
    os.close(content)
    assert came == size, fills
    assert all(count <= CALL_BYTES_MAX for count in calls)
    # a wake-up moves what fits into one turn, and a system call what fits into one call
    assert len(calls) <= len(turns) + size // CALL_BYTES_MAX + 1
    assert len(turns) <= 2 * fills + size // (2 * MIB)


async def test_turns_that_follow_slowly_cost_the_loop_no_further_round() -> None:
    wire, loop, rounds = Wire(), asyncio.get_running_loop(), 0
    for _ in range(200):
        ran = list[int]()
        wire.ready(partial(ran.append, 1))
        if not ran:  # the time of many turns has added up: once in a while the loop goes round
            rounds += 1
            await eventually(lambda ran=ran: ran, what="its turn comes")  # type: ignore[misc]
        await asyncio.sleep(turns_module.ROUND_SECONDS_MAX / 50)
    assert loop.is_running()
    assert rounds <= 20, "an idle loop takes turns at once"


# --- bursts ---------------------------------------------------------------------------------------------------


def mark_of(connection: socket.socket) -> int:
    return connection.getsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT)


def fed(bursts: Bursts, bytes_per_second: float, *, left: int = 1 << 30, start: float = 100.0) -> float:
    """A source of that speed for a while; the time afterwards."""
    now = start
    bursts.wait_for_more(left, now)
    for _ in range(10):
        now += BURST_SECONDS
        bursts.came(int(bytes_per_second * BURST_SECONDS))
        bursts.wait_for_more(left, now)
    return now


async def test_the_mark_follows_the_speed_of_the_source() -> None:
    with connected() as (source, _):
        bursts = Bursts(source)
        source.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2 * MIB)
        room = source.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF) // BUFFER_PARTS_MIN
        fed(bursts, 10e9)
        assert bursts.mark_bytes == mark_of(source) <= min(room, BURST_BYTES_MAX)
        assert bursts.mark_bytes > min(room, BURST_BYTES_MAX) // 2
        fed(bursts, 50e6, start=200.0)
        assert BURST_BYTES_MIN <= bursts.mark_bytes <= 50e6 * BURST_SECONDS
        fed(bursts, 1e6, start=300.0)
        assert mark_of(source) == 1, "a slow source is reported at its first byte"


async def test_the_mark_is_never_more_than_what_is_still_to_come() -> None:
    with connected() as (source, _):
        bursts = Bursts(source)
        now = fed(bursts, 10e9)
        bursts.wait_for_more(1000, now)
        assert mark_of(source) == 1000
        bursts.wait_for_more(0, now)
        assert mark_of(source) == 1


async def test_a_source_that_became_slow_is_reported_at_its_next_byte() -> None:
    with connected() as (source, _):
        bursts = Bursts(source)
        now = fed(bursts, 10e9)
        bursts.look(now + LOOK_SECONDS / 2)
        assert bursts.mark_bytes > 1
        bursts.look(now + 1.5 * LOOK_SECONDS)
        assert mark_of(source) == 1


async def test_a_closed_socket_or_one_without_a_mark_is_left_alone() -> None:
    with connected() as (source, _):
        bursts = Bursts(source)
        source.close()
        fed(bursts, 10e9)
        bursts.end()
        assert bursts.mark_bytes == 1


@contextmanager
def spliced(size: int) -> Iterator[tuple[Splice, socket.socket, socket.socket]]:
    """A body that is spliced: it, the source's other end, and the client's other end."""
    wire = Wire()
    with connected() as (source, feeder), connected() as (near, client):
        pipe = wire.pipes.take()
        assert pipe is not None
        splice = Splice(wire, End(near), source, pipe, size)
        yield splice, feeder, client
        splice.end()
        assert mark_of(source) == 1, "the next response on this connection is seen at its first byte"
        wire.pipes.give_back(pipe, is_empty=splice.is_empty)
        wire.close()


async def waiting(pump: Pump) -> None:
    await eventually(lambda: pump._waits_for is Wait.SOURCE, what="it waits for the source")


async def test_bytes_of_a_source_that_stops_in_mid_burst_reach_the_client() -> None:
    came = 0

    def has_come() -> bool:
        nonlocal came
        came += drain(client)
        return came == 1000

    with spliced(MIB) as (splice, feeder, client):
        async with asyncio.TaskGroup() as group:
            moving = group.create_task(splice.piece())
            await waiting(splice)
            splice._bursts._set(BURST_BYTES_MAX)  # it was fast
            feeder.send(b"x" * 1000)
            await eventually(has_come, what="they come though the burst is not full")
            moving.cancel()


async def test_few_bytes_are_not_kept_for_those_that_follow() -> None:
    with spliced(MIB) as (splice, feeder, client):
        async with asyncio.TaskGroup() as group:
            moving = group.create_task(splice.piece())
            await waiting(splice)
            feeder.send(b"x" * 1000)
            await eventually(lambda: splice.moved == 1000, what="they are moved")
            # loopback delivers at once what the kernel does not keep back
            assert drain(client) == 1000
            moving.cancel()


async def test_the_last_bytes_of_a_body_wait_for_no_burst(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(splice_module, "LOOK_SECONDS", 3600.0)
    with spliced(3000) as (splice, feeder, client):
        async with asyncio.TaskGroup() as group:
            moving = group.create_task(splice.piece())
            await waiting(splice)
            splice._bursts._set(BURST_BYTES_MAX)
            splice._bursts.wait_for_more(3000, asyncio.get_running_loop().time())
            feeder.send(b"x" * 3000)
            async with asyncio.timeout(20):
                assert await moving == 3000
        assert drain(client) == 3000


async def test_a_source_that_ends_is_noticed_whatever_the_mark(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(splice_module, "LOOK_SECONDS", 3600.0)

    async def end() -> None:
        await waiting(splice)
        splice._bursts._set(BURST_BYTES_MAX)
        feeder.close()

    with spliced(MIB) as (splice, feeder, _):
        async with asyncio.TaskGroup() as group, asyncio.timeout(20):
            group.create_task(end())
            with pytest.raises(splice_module.SourceBrokeOffError):
                await splice.piece()
