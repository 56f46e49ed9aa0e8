"""How many examples a Hypothesis test runs: few in `make check`, many in `make properties`."""

from __future__ import annotations

import os

_FACTOR = int(os.environ.get("SPEIL_EXAMPLES_FACTOR", "1"))


def examples(count: int) -> int:
    """`count` examples, times SPEIL_EXAMPLES_FACTOR. `@settings(max_examples=examples(20))` where 50 is too much."""
    return count * _FACTOR
