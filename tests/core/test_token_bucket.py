"""Token buckets: what they let through, what they wait for, what they forget."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from speil.token_bucket import Bucket, Buckets


@given(st.lists(st.tuples(st.floats(0, 10), st.floats(0.1, 5)), max_size=60))
def test_never_more_than_the_burst_and_the_rate_allow(steps: list[tuple[float, float]]) -> None:
    bucket, now, taken = Bucket(10, 2, 0), 0.0, 0.0
    for pause, amount in steps:
        now += pause
        level = bucket.level(now)
        if bucket.take(now, amount):
            taken += amount
        else:
            assert level < amount
            assert bucket.wait_seconds(now, amount) > 0
        assert taken <= 10 + 2 * now + 1e-6
        assert bucket.level(now) >= 0


@given(st.floats(0, 100), st.floats(0, 50))
def test_an_amount_is_there_after_the_wait(first: float, amount: float) -> None:
    bucket = Bucket(60, 4, 0)
    bucket.overdraw(0, first)
    wait = bucket.wait_seconds(0, amount)
    assert bucket.level(wait) == pytest.approx(max(amount, 60 - first), abs=1e-6)


def test_overdrawing_is_paid_back_and_its_start_is_known() -> None:
    bucket = Bucket(10, 1, 0)
    since = []
    for now, amount, wait in ((0, 10, 0), (2, 6, 4), (6, 0, 0), (11, 0, 0)):
        assert bucket.overdraw(now, amount) == wait
        since.append(bucket.overdrawn_since)
    assert bucket.level(11) == 5
    assert since == [None, 2, 2, None], "it counts as overdrawn until half of the burst is there again"


def test_what_was_not_used_comes_back_up_to_the_burst() -> None:
    bucket = Bucket(2, 1, 0)
    assert bucket.take(0)
    bucket.give_back()
    bucket.give_back(5)
    assert bucket.level(0) == 2
    assert not bucket.is_empty(0)
    assert bucket.take(0, 2)
    assert bucket.is_empty(0.5)


def test_the_key_that_was_used_longest_ago_is_dropped() -> None:
    buckets = Buckets(1, 1e-9, 2)
    for key in ("a", "b"):
        assert buckets.of(key, 0).take(0)
    buckets.of("a", 0)
    buckets.of("c", 0)
    assert len(buckets) == 2
    assert buckets.of("a", 0).is_empty(0)
    assert not buckets.of("b", 0).is_empty(0), "a new bucket is full"
