"""Connections while no file descriptor is left: closed within moments, and taken again afterwards."""

from __future__ import annotations

import asyncio
import itertools
import logging
import os
import resource
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import pytest

from speil.mirror.turn_away import TurnAway
from speil.testing.eventually import eventually


@contextmanager
def no_descriptor_left() -> Iterator[None]:
    """The process can open nothing."""
    taken = {int(one) for one in os.listdir("/proc/self/fd")}
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    free = next(number for number in itertools.count() if number not in taken)
    resource.setrlimit(resource.RLIMIT_NOFILE, (free, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)


def hung_up(client: socket.socket) -> bool:
    """Whether the other end has closed the connection."""
    try:
        return client.recv(10) == b""
    except BlockingIOError:
        return False
    except ConnectionError:
        return True


async def test_connections_are_turned_away_in_moments_and_taken_again(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.ERROR, "speil")
    logging.getLogger("speil").propagate = True
    guard, loop = TurnAway(), asyncio.get_running_loop()
    loop.set_exception_handler(guard.handle)

    async def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"welcome")
        writer.close()

    server = await asyncio.start_server(greet, "127.0.0.1", 0)
    address = server.sockets[0].getsockname()
    clients = [socket.socket() for _ in range(3)]
    try:
        for client in clients[:2]:
            client.connect(address)
            client.setblocking(False)
        with no_descriptor_left():
            for client in clients[:2]:
                await eventually(partial(hung_up, client), what="it is turned away")
            clients[2].connect(address)
            clients[2].setblocking(False)
            await eventually(lambda: hung_up(clients[2]), what="and so is whoever comes while asyncio does not listen")
        async with asyncio.timeout(10):
            reader, writer = await asyncio.open_connection(*address)
            assert await reader.read() == b"welcome"
            writer.close()
            await writer.wait_closed()
        said = {id(one) for one in caplog.records if "no file descriptor is left" in one.message}
        assert len(said) == 1, "once, however many handlers heard it"
    finally:
        for client in clients:
            client.close()
        guard.close()
        server.close()
        await server.wait_closed()


async def test_what_is_none_of_its_business_is_passed_on(monkeypatch: pytest.MonkeyPatch) -> None:
    guard, loop = TurnAway(), asyncio.get_running_loop()
    told: list[dict[str, Any]] = []
    monkeypatch.setattr(loop, "default_exception_handler", told.append)
    context: dict[str, Any] = {"message": "a callback failed", "exception": OSError("something else")}
    guard.handle(loop, context)
    assert told == [context]
    guard.close()
