"""Orders that change twice in one turn of the loop: the wait for the one before ends once."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Coroutine
from typing import Any

from speil.claims.action import GoUpstream
from speil.inflight.held import HeldRequest, LeftError
from speil.wire.connection_pool import Connection
from speil.wire.socket_body import SocketBody, SourceStalledError
from speil.wire.turns import Wire

FIRST, LAST = GoUpstream(b"first", claimed=False), GoUpstream(b"last", claimed=True)


async def test_an_order_that_is_taken_back_and_replaced_at_once_ends_the_block_once() -> None:
    held = HeldRequest()
    held.give(FIRST)

    async def carry_out() -> None:
        async with held.during(FIRST):
            entered.set()
            await asyncio.Event().wait()

    entered = asyncio.Event()
    async with asyncio.TaskGroup() as group:
        task = group.create_task(_left(carry_out()))
        await entered.wait()
        held.give(None)
        await asyncio.sleep(0)  # the limit has passed, and the block has not been left
        held.give(LAST)
        held.give(LAST)
    assert isinstance(task.result(), LeftError)
    assert await held.next() is LAST


async def test_a_wait_for_bytes_is_interrupted_once() -> None:
    wire = Wire()
    near, far = socket.socketpair()
    with near, far:
        near.setblocking(False)
        body = SocketBody(wire, Connection(near), 10, lambda whole: None)
        async with asyncio.TaskGroup() as group:
            task = group.create_task(_left(body.read(60.0)))
            for _ in range(3):
                await asyncio.sleep(0)
            body.interrupt()
            await asyncio.sleep(0)
            body.interrupt()
        assert isinstance(task.result(), SourceStalledError)
        body.close()
    wire.close()


async def _left(work: Coroutine[Any, Any, object]) -> Exception | None:
    try:
        await work
    except (LeftError, SourceStalledError) as error:
        return error
    return None
