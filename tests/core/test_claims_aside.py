"""Pulls whose request steps aside, and nodes that are late themselves."""

from __future__ import annotations

import pytest

from speil.claims.action import AskUmpire, Leave, SendRelease
from speil.claims.asker import LATE_SECONDS
from speil.claims.message import Ending, Phase, Reason, Release, Status
from speil.claims.pull import ASK_SECONDS_MAX, LIFE_SECONDS_MAX, POSTPONED_SECONDS_MAX
from speil.claims.states import PullState
from tests.core.test_claims_asker import FACTS, KEY, SOURCE, UMPIRES, asker, following, state


def test_a_request_that_steps_aside_is_released_and_asks_anew_when_it_is_back() -> None:
    one = asker()
    following(one)
    assert one.step_aside(KEY) == [SendRelease(KEY, UMPIRES[0], Release(Ending.CANCELLED))]
    assert one.next_deadline() is None
    assert one.status(KEY, is_stored=False).phase is Phase.NONE, "its followers look for another source"
    assert [type(action) for action in one.miss(KEY, UMPIRES, FACTS, 40.0)] == [AskUmpire]


def test_only_a_request_without_a_byte_steps_aside() -> None:
    one = asker()
    following(one)
    one.received(KEY, 1, 0.1)
    assert one.step_aside(KEY) == []
    assert one.next_deadline() is not None


def test_a_node_that_was_late_itself_waits_longer_before_it_asks_the_next_umpire() -> None:
    one = asker()
    one.miss(KEY, UMPIRES, FACTS, 0.0)
    assert one.tick(ASK_SECONDS_MAX + 1.0) == [], "the answer may have come meanwhile"
    at = one.next_deadline()
    assert at is not None
    assert at == pytest.approx(ASK_SECONDS_MAX + 1.0 + LATE_SECONDS)
    assert [type(action) for action in one.tick(at)] == [AskUmpire]


def test_a_node_that_was_late_itself_does_not_leave_its_source_for_that() -> None:
    one = asker()
    following(one)
    one.received(KEY, 70, 0.0)
    late = LIFE_SECONDS_MAX + 2.0
    assert all(not isinstance(action, Leave) for action in one.tick(late))
    one.source_said(KEY, SOURCE.peer_id, Status(Phase.FETCHING, 70), late)
    assert state(one) is PullState.RECEIVING


def test_lateness_does_not_lengthen_a_wait_without_a_bound() -> None:
    one = asker()
    following(one)
    now, left = 0.0, False
    while not left:
        at = one.next_deadline()
        assert at is not None
        now = at + 0.5  # each time
        left = any(isinstance(action, Leave) and action.reason is Reason.SILENT for action in one.tick(now))
    assert now <= LIFE_SECONDS_MAX + POSTPONED_SECONDS_MAX + 2.0
