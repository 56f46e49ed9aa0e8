"""The tasks of one part of the host: they end with it."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from types import TracebackType
from typing import Any

from speil.libp2p.error import ConnectionClosedError


class TaskScope:
    """A task group that cancels its tasks when it ends, instead of waiting for them.

    A task that fails ends the scope and the block that entered it, as in asyncio.TaskGroup.
    """

    def __init__(self) -> None:
        self._group: asyncio.TaskGroup | None = None

    async def __aenter__(self) -> TaskScope:
        self._group = await asyncio.TaskGroup().__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        group, self._group = self._group, None
        task = asyncio.current_task()
        assert group is not None
        assert task is not None
        cancelled_before = task.cancelling()
        try:
            await group.__aexit__(_StopError, _StopError(), None)
        except* _StopError:
            pass
        # A task group that is ending already waits for its tasks and drops the cancellation.
        if task.cancelling() > cancelled_before:
            raise asyncio.CancelledError

    @property
    def is_open(self) -> bool:
        """Whether tasks can be started."""
        return self._group is not None

    def start(self, coroutine: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Run `coroutine` in a task. Raises ConnectionClosedError where the scope is not open."""
        if self._group is None:
            coroutine.close()
            raise ConnectionClosedError("the host is closing")
        return self._group.create_task(coroutine)


class _StopError(Exception):
    """Makes the task group cancel its tasks."""
