"""Public coroutines, cancelled at each of their suspensions; and the kit for it, with coroutines that fail it."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from speil.testing import cancellation
from speil.testing.cancellation import cancel_at_each_step

# --- the kit ------------------------------------------------------------------------------------------------------


async def _tidy() -> None:
    for _ in range(2):
        await asyncio.sleep(0)
    async with asyncio.TaskGroup() as group:
        group.create_task(asyncio.sleep(0))
        group.create_task(asyncio.sleep(0.001))


async def test_a_tidy_coroutine_passes_and_its_suspensions_are_counted() -> None:
    assert await cancel_at_each_step(_tidy) == 3
    assert await cancel_at_each_step(lambda: asyncio.sleep(0)) == 1


async def test_an_endless_coroutine_is_tried_up_to_where_it_waits() -> None:
    async def serve() -> None:
        await _tidy()
        await asyncio.Event().wait()

    assert await cancel_at_each_step(serve, endless=True) == 4


async def _leaves_a_child() -> None:
    child = asyncio.get_running_loop().create_task(asyncio.sleep(0.01))
    await child if child.done() else await asyncio.shield(child)


async def _does_not_wait_for_its_child() -> None:
    async def slow_to_end() -> None:
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.sleep(3600)
        await asyncio.sleep(0.001)

    child = asyncio.get_running_loop().create_task(slow_to_end())
    try:
        await asyncio.sleep(0)
    finally:
        child.cancel()


async def _leaves_a_descriptor_open() -> None:
    number = os.open("/dev/null", os.O_RDONLY)
    await asyncio.sleep(0)
    os.close(number)


async def _loses_a_result_that_has_arrived() -> None:
    arrived: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    asyncio.get_running_loop().call_later(0.001, lambda: arrived.set_result(os.open("/dev/null", os.O_RDONLY)))
    try:
        number = await arrived
    except asyncio.CancelledError:
        arrived.cancel()
        raise
    os.close(number)


async def _ignores_its_cancellation() -> str:
    with contextlib.suppress(asyncio.CancelledError):
        await asyncio.sleep(3600)
    return "a result"


async def _fails_instead() -> None:
    try:
        await asyncio.sleep(3600)
    except asyncio.CancelledError:
        raise ValueError("something else") from None


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (_leaves_a_child, "it ended before its child tasks"),
        (_does_not_wait_for_its_child, "it ended before its child tasks"),
        (_leaves_a_descriptor_open, "it left open .*dev/null"),
        (_loses_a_result_that_has_arrived, "when the result has arrived: it left open .*dev/null"),
        (_ignores_its_cancellation, "it was not cancelled but ended with 'a result'"),
        (_fails_instead, r"it was not cancelled but ended with ValueError\('something else'\)"),
    ],
)
async def test_what_is_left_behind_fails(
    call: Callable[[], Coroutine[Any, Any, Any]], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cancellation, "END_SECONDS_MAX", 0.3)
    before = set(os.listdir("/proc/self/fd"))
    with pytest.raises(AssertionError, match=message):
        await cancel_at_each_step(call)
    for number in set(os.listdir("/proc/self/fd")) - before:
        with contextlib.suppress(OSError):
            if Path(f"/proc/self/fd/{number}").readlink() == Path("/dev/null"):
                os.close(int(number))


async def test_a_coroutine_that_goes_on_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cancellation, "END_SECONDS_MAX", 0.1)
    released = asyncio.Event()

    async def ignores_every_cancellation() -> None:
        while not released.is_set():
            with contextlib.suppress(asyncio.CancelledError):
                await released.wait()

    with pytest.raises(AssertionError, match=r"still running .* s later"):
        await cancel_at_each_step(ignores_every_cancellation, endless=True)
    with pytest.raises(AssertionError, match="pass endless=True"):
        await cancel_at_each_step(ignores_every_cancellation)
    released.set()


async def test_a_failure_of_the_coroutine_itself_is_raised() -> None:
    async def fails() -> None:
        await asyncio.sleep(0)
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await cancel_at_each_step(fails)


async def test_a_task_that_somebody_else_owns_may_live_on() -> None:
    shared: list[asyncio.Task[None]] = []

    async def start() -> None:
        shared.append(asyncio.get_running_loop().create_task(asyncio.sleep(3600)))
        await asyncio.sleep(0)

    async def end() -> None:
        for task in shared:
            task.cancel()
        await asyncio.wait(shared)

    assert await cancel_at_each_step(start, owned=lambda task: task in shared, afterwards=end) == 1
