"""What is kept and within which bounds: pipes, connections to peers, requests that wait to be begun."""

from __future__ import annotations

import asyncio
import os
import resource
import socket
from collections.abc import Iterator

import pytest

from speil.mirror.descriptors import raise_limit
from speil.testing.eventually import eventually
from speil.wire import connection_pool, pipes
from speil.wire.connection_pool import ConnectionPool, Endpoint
from speil.wire.pipes import Pipe, PipePool
from speil.wire.turnstile import Turnstile

# --- pipes ---------------------------------------------------------------------------------------------------


@pytest.fixture
def pool() -> Iterator[PipePool]:
    found = PipePool()
    yield found
    found.close()
    assert found.open_count == 0


def take(pool: PipePool) -> Pipe:
    pipe = pool.take()
    assert pipe is not None
    return pipe


def test_so_many_pipes_and_so_many_large_ones(pool: PipePool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipes, "PIPES_MAX", 12)
    monkeypatch.setattr(pipes, "LARGE_PIPES_MAX", 3)
    taken = [take(pool) for _ in range(12)]
    assert pool.take() is None
    assert [pipe.size >= pipes.LARGE_PIPE_BYTES for pipe in taken] == [True] * 3 + [False] * 9
    for pipe in taken:
        pool.give_back(pipe, is_empty=True)
    assert pool.open_count == pipes.IDLE_PIPES_MAX


def test_a_pipe_with_bytes_in_it_is_never_used_again(pool: PipePool) -> None:
    pipe = take(pool)
    os.write(pipe.write_fd, b"of an aborted transfer")
    pool.give_back(pipe, is_empty=False)
    assert pool.open_count == 0
    fresh = take(pool)
    with pytest.raises(BlockingIOError):
        os.read(fresh.read_fd, 1)
    pool.give_back(fresh, is_empty=True)


# --- connections to peers ------------------------------------------------------------------------------------


@pytest.fixture
def listening() -> Iterator[socket.socket]:
    """Connections stand as soon as they are in its backlog."""
    with socket.create_server(("127.0.0.1", 0)) as found:
        yield found


@pytest.fixture
def connections() -> Iterator[ConnectionPool]:
    found = ConnectionPool()
    yield found
    found.close()
    assert found.idle_count == 0


def endpoint_of(listening: socket.socket) -> Endpoint:
    return Endpoint(*listening.getsockname()[:2])


async def test_connections_are_kept_up_to_a_number_and_the_last_one_is_used_first(
    connections: ConnectionPool, listening: socket.socket
) -> None:
    endpoint = endpoint_of(listening)
    opened = [await connections.connect(endpoint) for _ in range(connection_pool.IDLE_PER_ENDPOINT_MAX + 2)]
    for connection in opened:
        connections.keep(endpoint, connection)
    assert connections.idle_count == connection_pool.IDLE_PER_ENDPOINT_MAX
    taken = connections.take(endpoint)
    assert taken is opened[connection_pool.IDLE_PER_ENDPOINT_MAX - 1]
    taken.close()
    assert connections.take(Endpoint("127.0.0.1", 1)) is None


async def test_a_connection_that_the_peer_closed_or_spoke_on_is_not_used(
    connections: ConnectionPool, listening: socket.socket
) -> None:
    endpoint = endpoint_of(listening)
    opened = [await connections.connect(endpoint) for _ in range(2)]
    first, second = (listening.accept()[0] for _ in range(2))
    for connection in opened:
        connections.keep(endpoint, connection)
    first.close()
    second.sendall(b"HTTP/1.1 408 Request Timeout\r\n\r\n")
    await eventually(lambda: not any(one.is_quiet for one in opened), what="both are readable")
    assert connections.take(endpoint) is None
    second.close()
    assert all(one.socket.fileno() == -1 for one in opened)
    chatty = await connections.connect(endpoint)
    chatty.unread = b"behind the answer"
    connections.keep(endpoint, chatty)
    assert connections.idle_count == 0


async def test_what_nobody_uses_is_closed_after_a_while(
    connections: ConnectionPool, listening: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection_pool, "IDLE_SECONDS_MAX", 0.05)
    endpoint = endpoint_of(listening)
    for _ in range(2):
        connections.keep(endpoint, await connections.connect(endpoint))
        assert connections.idle_count == 1
        await eventually(lambda: connections.idle_count == 0)


async def test_the_total_is_bounded_too(
    connections: ConnectionPool, listening: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection_pool, "IDLE_TOTAL_MAX", 1)
    with socket.create_server(("127.0.0.1", 0)) as other:
        for endpoint in (endpoint_of(listening), endpoint_of(other)):
            connections.keep(endpoint, await connections.connect(endpoint))
    assert connections.idle_count == 1
    connections.forget(endpoint_of(listening))
    assert connections.idle_count == 0


# --- requests and descriptors --------------------------------------------------------------------------------


async def test_so_many_pass_in_a_round_in_the_order_in_which_they_came() -> None:
    turnstile, begun = Turnstile(3), list[int]()

    async def request(number: int) -> None:
        await turnstile.enter()
        begun.append(number)

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(request(number)) for number in range(20)]
        await asyncio.sleep(0)
        tasks[10].cancel()
        while len(begun) < 19:
            before = len(begun)
            await asyncio.sleep(0)
            assert len(begun) <= before + 3
    assert begun == [number for number in range(20) if number != 10]
    await asyncio.wait_for(turnstile.enter(), 5)


def test_a_node_takes_the_descriptors_that_it_may_have() -> None:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(256, before[1]), before[1]))
        assert raise_limit() == before[1]
        assert resource.getrlimit(resource.RLIMIT_NOFILE) == (before[1], before[1])
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
