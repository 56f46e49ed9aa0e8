"""Wait for a condition with a deadline, in tests that block."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")
_PAUSE_SECONDS = 0.1


def wait_for(condition: Callable[[], T], *, seconds: float = 60.0, what: str) -> T:
    """The first truthy result of `condition`. Raises AssertionError at the deadline.

    An AssertionError or OSError of the condition counts as "not yet" and is shown at the deadline.
    """
    deadline, last = time.monotonic() + seconds, "never true"
    while True:
        try:
            if result := condition():
                return result
            last = f"last result {result!r}"
        except (AssertionError, OSError) as error:
            last = repr(error)
        if time.monotonic() > deadline:
            raise AssertionError(f"{what} did not come true in {seconds:.0f} s: {last}")
        time.sleep(_PAUSE_SECONDS)
