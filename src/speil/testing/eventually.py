"""Wait for a condition with a deadline, never for a time."""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import Callable
from typing import Any

_PAUSE_SECONDS = 0.005


async def eventually(condition: Callable[[], Any], *, timeout_seconds: float = 30.0, what: str = "") -> Any:
    """The first truthy result of `condition` (plain or async). Raises AssertionError at the deadline.

    An AssertionError of the condition counts as "not yet" and is shown at the deadline.
    """
    deadline, last = time.monotonic() + timeout_seconds, "never true"
    while True:
        try:
            outcome = condition()
            result = await outcome if inspect.isawaitable(outcome) else outcome
            if result:
                return result
            last = f"last result {result!r}"
        except AssertionError as error:
            last = str(error)
        if time.monotonic() > deadline:
            raise AssertionError(f"{what or condition} did not come true in {timeout_seconds} s: {last}")
        await asyncio.sleep(_PAUSE_SECONDS)


async def stands_still(read: Callable[[], int], *, what: str) -> None:
    """Wait until a count that has begun is the same at two looks in a row."""
    before = -1

    def is_the_same() -> bool:
        nonlocal before
        now = read()
        before, same = now, now == before
        return same and now > 0

    await eventually(is_the_same, what=what)
