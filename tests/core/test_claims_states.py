"""The tables of `claims.states`, row by row."""

from __future__ import annotations

import re

import pytest

from speil.claims import states
from speil.claims.states import HELD, NODE, PULL, IllegalEventError, NodeEvent, NodeState, PullEvent, PullState, after

# one line for each state and event; events that are left out can't happen
NODE_ROWS = """
UNKNOWN    GRANTED    FETCHING
UNKNOWN    PLACED     FOLLOWING
UNKNOWN    COMPLETED  COMPLETE
FETCHING   GRANTED    FETCHING
FETCHING   PLACED     FOLLOWING
FETCHING   COMPLETED  COMPLETE
FETCHING   BLAMED     FAILED
FETCHING   LEFT       UNKNOWN
FOLLOWING  GRANTED    FETCHING
FOLLOWING  PLACED     FOLLOWING
FOLLOWING  COMPLETED  COMPLETE
FOLLOWING  BLAMED     FAILED
FOLLOWING  LEFT       UNKNOWN
COMPLETE   GRANTED    FETCHING
COMPLETE   PLACED     FOLLOWING
COMPLETE   COMPLETED  COMPLETE
COMPLETE   BLAMED     FAILED
COMPLETE   LEFT       UNKNOWN
FAILED     GRANTED    FETCHING
FAILED     PLACED     FOLLOWING
FAILED     COMPLETED  COMPLETE
FAILED     BLAMED     FAILED
FAILED     LEFT       UNKNOWN
"""
PULL_ROWS = """
ASKING        DEFERRED    ASKING
ASKING        UNANSWERED  ASKING
ASKING        FETCH       FETCHING
ASKING        FOLLOW      JOINING
ASKING        HOLDERS     WITH_HOLDERS
ASKING        ALONE       ALONE
ASKING        BYTES       ASKING
ASKING        REPEATED    ASKING
ASKING        COMPLETED   ENDED
ASKING        CANCELLED   ENDED
JOINING       BYTES       RECEIVING
JOINING       LEAVE       ASKING_AGAIN
JOINING       ALONE       ALONE
JOINING       REPEATED    JOINING
JOINING       COMPLETED   ENDED
JOINING       CANCELLED   ENDED
RECEIVING     BYTES       RECEIVING
RECEIVING     LEAVE       ASKING_AGAIN
RECEIVING     ALONE       ALONE
RECEIVING     REPEATED    RECEIVING
RECEIVING     DELIVERED   DELIVERED
RECEIVING     COMPLETED   ENDED
RECEIVING     CANCELLED   ENDED
ASKING_AGAIN  DEFERRED    ASKING_AGAIN
ASKING_AGAIN  UNANSWERED  ASKING_AGAIN
ASKING_AGAIN  FETCH       FETCHING
ASKING_AGAIN  FOLLOW      JOINING
ASKING_AGAIN  HOLDERS     WITH_HOLDERS
ASKING_AGAIN  ALONE       ALONE
ASKING_AGAIN  BYTES       ASKING_AGAIN
ASKING_AGAIN  REPEATED    ASKING_AGAIN
ASKING_AGAIN  COMPLETED   ENDED
ASKING_AGAIN  CANCELLED   ENDED
WITH_HOLDERS  BYTES       WITH_HOLDERS
WITH_HOLDERS  LEAVE       ASKING_AGAIN
WITH_HOLDERS  ALONE       ALONE
WITH_HOLDERS  REPEATED    WITH_HOLDERS
WITH_HOLDERS  DELIVERED   DELIVERED
WITH_HOLDERS  COMPLETED   ENDED
WITH_HOLDERS  CANCELLED   ENDED
FETCHING      BYTES       FETCHING
FETCHING      REPEATED    FETCHING
FETCHING      COMPLETED   ENDED
FETCHING      CANCELLED   ENDED
ALONE         BYTES       ALONE
ALONE         REPEATED    ALONE
ALONE         COMPLETED   ENDED
ALONE         CANCELLED   ENDED
DELIVERED     REPEATED    DELIVERED
DELIVERED     COMPLETED   ENDED
DELIVERED     CANCELLED   ENDED
"""


def rows(text: str) -> dict[tuple[str, str], str]:
    return {(state, event): to for state, event, to in (line.split() for line in text.strip().splitlines())}


@pytest.mark.parametrize("state", NodeState)
@pytest.mark.parametrize("event", NodeEvent)
def test_each_event_in_each_state_of_a_node(state: NodeState, event: NodeEvent) -> None:
    if (expected := rows(NODE_ROWS).get((state.name, event.name))) is None:
        with pytest.raises(IllegalEventError, match=f"{event.name} can't happen to what is {state.name}"):
            after(NODE, state, event)
    else:
        assert after(NODE, state, event) is NodeState[expected]


@pytest.mark.parametrize("state", PullState)
@pytest.mark.parametrize("event", PullEvent)
def test_each_event_in_each_state_of_a_pull(state: PullState, event: PullEvent) -> None:
    if (expected := rows(PULL_ROWS).get((state.name, event.name))) is None:
        with pytest.raises(IllegalEventError, match=f"{event.name} can't happen to what is {state.name}"):
            after(PULL, state, event)
    else:
        assert after(PULL, state, event) is PullState[expected]


def test_a_pull_ends_from_every_state_and_never_waits_after_it_went_upstream() -> None:
    for state in PullState:
        if state is not PullState.ENDED:
            assert after(PULL, state, PullEvent.COMPLETED) is after(PULL, state, PullEvent.CANCELLED) is PullState.ENDED
    for state in (PullState.FETCHING, PullState.ALONE):
        assert not HELD & set(PULL[state].values())


def test_the_page_names_every_state_once() -> None:
    named = re.findall(r"^\| ([A-Z_]+) \|", states.__doc__ or "", re.MULTILINE)
    assert sorted(named) == sorted([one.name for one in NodeState] + [one.name for one in PullState])
