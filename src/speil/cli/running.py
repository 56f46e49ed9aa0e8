"""Runs the coroutine of a command, so that an interrupt ends it at once."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


def run_async(main: Coroutine[Any, Any, T]) -> T:
    """As asyncio.run, except after an interrupt: `main` has cleaned up, and threads are not waited for.

    A thread that resolves a name can't be cancelled, and may wait for a DNS server for half a minute. `cli.main` ends
    the process without it.
    """
    runner = asyncio.Runner()
    try:
        result = runner.run(main)
    except KeyboardInterrupt:
        _end_tasks(runner.get_loop())
        raise
    except BaseException:
        runner.close()
        raise
    runner.close()
    return result


def _end_tasks(loop: asyncio.AbstractEventLoop) -> None:
    # where SIGINT is ignored, SIGTERM raises in whatever runs: mostly in the event loop, and no task is cancelled
    tasks = asyncio.all_tasks(loop)
    for task in tasks:
        task.cancel()
    if tasks:
        loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))
