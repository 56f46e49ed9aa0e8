"""Cancel a coroutine at each of its suspensions, and check that nothing is left behind.

    await cancel_at_each_step(lambda: store.resolve(name))

Each round starts the coroutine anew, lets it suspend n times and cancels it: once while it waits, and once when the
result has arrived but was not delivered (the moment in which acquired resources get lost). The rounds end with the
first one in which the coroutine ends before its nth suspension.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Generator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import Any

from speil.testing.eventually import eventually

STEPS_MAX = 500
# How long a round may take, and how long a connection that was closed may keep its descriptor.
END_SECONDS_MAX = 20.0
# An endless coroutine that reaches no new suspension for this long has no more steps.
QUIET_SECONDS = 0.1

AnyTask = asyncio.Task[Any]


class Moment(StrEnum):
    """When the coroutine is cancelled."""

    WAITING = "while it waits"
    ARRIVED = "when the result has arrived"


async def cancel_at_each_step(
    call: Callable[[], Coroutine[Any, Any, Any]],
    *,
    afterwards: Callable[[], Awaitable[None]] | None = None,
    owned: Callable[[AnyTask], bool] = lambda _: False,
    endless: bool = False,
    steps_max: int = STEPS_MAX,
) -> int:
    """The number of suspensions that were tried. Raises AssertionError with the step for what was left behind.

    call: makes a new coroutine for each round.
    afterwards: runs after each round, before descriptors are counted: close what may stay open, check your state.
    owned: true for a task that the coroutine started but somebody else owns (a dial that several callers share).
    endless: the coroutine never ends by itself; the rounds end where it waits for something that does not happen, or
    after `steps_max` suspensions (for one that does the same again and again).
    """
    for step in range(1, steps_max + 1):
        for moment in Moment:
            descriptors = _descriptors()
            if not await _round(call, step, moment, owned, endless):
                return step - 1
            if afterwards is not None:
                await afterwards()
            await _closed(descriptors, f"cancelled at step {step}, {moment}")
    if not endless:
        raise AssertionError(f"still not at its end after {steps_max} steps: pass a larger steps_max")
    return steps_max


async def _round(
    call: Callable[[], Coroutine[Any, Any, Any]],
    step: int,
    moment: Moment,
    owned: Callable[[AnyTask], bool],
    endless: bool,
) -> bool:
    """False if the coroutine ended (or an endless one waits) before this step."""
    watched = _Watched(call(), step, moment)
    with _family() as family:
        task = asyncio.get_running_loop().create_task(watched, name="cancelled at each step")
        family.add(task)
        watched.task = task
        try:
            if endless:
                await _quiet(task, watched)
            else:
                await asyncio.wait([task], timeout=END_SECONDS_MAX)
                assert task.done(), f"it waits in {watched.place}: pass endless=True if it never ends by itself"
            reached = watched.reached
            if not task.done():
                task.cancel()
            _, pending = await asyncio.wait([task], timeout=END_SECONDS_MAX)
            where = f"cancelled at step {step}, {moment}, in {watched.place}"
            assert not pending, f"{where}: still running {END_SECONDS_MAX} s later"
            left = [one for one in family if not one.done() and not owned(one)]
            assert not left, f"{where}: it ended before its child tasks {left}"
        finally:
            for one in family:
                if not owned(one):
                    one.cancel()
    if not reached:
        if not task.cancelled():
            task.result()  # a coroutine that fails by itself is a fault of the test
        return False
    assert task.cancelled(), f"{where}: it was not cancelled but ended with {task.exception() or task.result()!r}"
    return True


async def _quiet(task: AnyTask, watched: _Watched) -> None:
    """Until the task is done, or has reached no new suspension for a while."""
    seen = -1
    while not task.done() and seen != watched.steps:
        seen = watched.steps
        await asyncio.wait([task], timeout=QUIET_SECONDS)


class _Watched(Coroutine[Any, Any, Any]):
    """A coroutine that counts its suspensions and cancels its task at one of them."""

    def __init__(self, coroutine: Coroutine[Any, Any, Any], step: int, moment: Moment) -> None:
        self._coroutine, self._step, self._moment = coroutine, step, moment
        self.task: AnyTask
        self.steps = 0
        self.place = "its start"

    @property
    def reached(self) -> bool:
        return self.steps >= self._step

    def send(self, value: Any) -> Any:
        return self._suspended(self._coroutine.send(value))

    def throw(self, *error: Any) -> Any:
        return self._suspended(self._coroutine.throw(*error))

    def close(self) -> None:
        self._coroutine.close()

    def __await__(self) -> Generator[Any, Any, Any]:
        raise TypeError("runs as a task only")

    def _suspended(self, awaited: Any) -> Any:
        self.steps += 1
        if self.steps <= self._step:
            self.place = _place(self._coroutine)
        if self.steps == self._step:
            if self._moment is Moment.ARRIVED and asyncio.isfuture(awaited):
                # before the callback of the task itself, so that the result is there and is not delivered
                awaited.add_done_callback(self._arrived)
            else:
                asyncio.get_running_loop().call_soon(lambda: self.task.cancel())
        return awaited

    def _arrived(self, future: asyncio.Future[Any]) -> None:
        if not future.cancelled():
            self.task.cancel()


def _place(coroutine: Any) -> str:
    """The innermost frame in which a coroutine is suspended."""
    place = "its start"
    while coroutine is not None:
        frame = getattr(coroutine, "cr_frame", None) or getattr(coroutine, "gi_frame", None)
        if frame is not None:
            place = f"{frame.f_code.co_qualname} ({frame.f_code.co_filename}:{frame.f_lineno})"
        coroutine = getattr(coroutine, "cr_await", None) or getattr(coroutine, "gi_yieldfrom", None)
    return place


@contextmanager
def _family() -> Generator[set[AnyTask], None, None]:
    """The tasks that members of this set start, and the tasks that those start."""
    loop = asyncio.get_running_loop()
    family: set[AnyTask] = set()
    before = loop.get_task_factory()

    def start(loop: asyncio.AbstractEventLoop, coroutine: Any, **options: Any) -> Any:
        task = before(loop, coroutine, **options) if before else asyncio.Task(coroutine, loop=loop, **options)
        if asyncio.current_task(loop) in family:
            family.add(task)  # type: ignore[arg-type]
        return task

    loop.set_task_factory(start)
    try:
        yield family
    finally:
        loop.set_task_factory(before)


def _descriptors() -> set[tuple[str, str]]:
    """The open descriptors of this process, with what they refer to."""
    found = set()
    for entry in Path("/proc/self/fd").iterdir():
        try:
            found.add((entry.name, str(entry.readlink())))
        except OSError:
            continue  # the descriptor of this listing
    return found


async def _closed(before: set[tuple[str, str]], where: str) -> None:
    """Wait until no descriptor is open that was not open before: transports close theirs a few turns later."""

    def check() -> bool:
        left = _descriptors() - before
        assert not left, f"{where}: it left open {sorted(left)}"
        return True

    await eventually(check, timeout_seconds=END_SECONDS_MAX, what=where)
