"""How many lines a stranger may cause."""

from __future__ import annotations

import io

from speil.border.record import BorderRecord
from speil.observe import logs
from speil.observe.line_limit import ALL_LINES_PER_MINUTE_MAX, KEYS_MAX, LINES_PER_MINUTE_MAX, LineLimit
from speil.observe.metrics import Metrics
from speil.region.policy import Layer
from speil.testing.samples import sample


def test_a_key_gets_its_lines_a_minute_and_the_next_one_says_how_many_were_left_out() -> None:
    now = 0.0
    limit = LineLimit(lambda: now)
    assert [limit.due("a") for _ in range(LINES_PER_MINUTE_MAX + 5)] == [0] * LINES_PER_MINUTE_MAX + [None] * 5
    assert limit.due("b") == 0, "another has its own"
    now = 60.0
    assert [limit.due("a"), limit.due("a")] == [5, 0]


def test_whoever_has_many_keys_gets_no_more_lines_and_no_more_memory() -> None:
    limit = LineLimit(lambda: 0.0)
    written = [limit.due(str(number)) is not None for number in range(10_000)]
    assert sum(written) == ALL_LINES_PER_MINUTE_MAX
    assert len(limit._windows) <= KEYS_MAX


def test_a_thousand_identities_at_the_border_cause_ten_lines_and_are_all_counted() -> None:
    stream, metrics = io.StringIO(), Metrics()
    logs.configure("INFO", "text", stream)
    record = BorderRecord("a", metrics)
    for number in range(1000):
        record.rejected(Layer.IDENTIFY, f"12D3Koo{number}", "it says region b")
    assert len(stream.getvalue().splitlines()) == LINES_PER_MINUTE_MAX
    record.rejected(Layer.SECRET, "10.0.0.7", "it has no region secret")
    assert len(stream.getvalue().splitlines()) == LINES_PER_MINUTE_MAX + 1, "another layer is other news"
    assert sample(metrics, "speil_cross_region_rejected_total", layer="identify") == 1000
