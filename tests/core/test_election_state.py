"""Each state of the elector against each input, on real electors: the next state and its request, or a refusal."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

import pytest

from speil.election import elector as elector_module
from speil.election import state as state_module
from speil.election.action import Action, EventKind, Read, Write
from speil.election.config import DEFAULT_CONFIG
from speil.election.elector import Elector
from speil.election.ownership import Owner
from speil.election.record import LeaderElectionRecord, Lease
from speil.election.state import (
    LEADS,
    READS,
    RELEASES,
    RENEWS,
    STOPS,
    TRANSITIONS,
    IllegalInputError,
    Input,
    State,
    next_state,
)

RECORD = LeaderElectionRecord("me", DEFAULT_CONFIG.lease_duration_seconds, region="r")
OWN = Lease(RECORD, "2", age_seconds=0.0)
OTHERS = Lease(LeaderElectionRecord("other", 10, region="r"), "3", age_seconds=0.0)
FOREIGN = Lease(LeaderElectionRecord("other", 10, region="s"), "4", age_seconds=0.0)
LATE_SECONDS = DEFAULT_CONFIG.give_up_seconds

Do = Callable[[Elector, float], list[Action]]
INPUTS: dict[str, Do] = {
    "start": lambda elector, now: elector.start(now),
    "tick": lambda elector, now: elector.tick(elector.next_deadline()),
    "tick early": lambda elector, now: elector.tick(elector.next_deadline() - 0.001),
    "tick late": lambda elector, now: elector.tick(now + LATE_SECONDS),
    "read none": lambda elector, now: elector.read(None, now),
    "read own": lambda elector, now: elector.read(OWN, now),
    "read own late": lambda elector, now: elector.read(OWN, now + LATE_SECONDS),
    "read other": lambda elector, now: elector.read(OTHERS, now),
    "read foreign": lambda elector, now: elector.read(FOREIGN, now),
    "written": lambda elector, now: elector.written(OWN, now),
    "conflicted": lambda elector, now: elector.conflicted(now),
    "conflicted late": lambda elector, now: elector.conflicted(now + LATE_SECONDS),
    "failed": lambda elector, now: elector.failed(now),
    "failed late": lambda elector, now: elector.failed(now + LATE_SECONDS),
    "stop": lambda elector, now: elector.stop(now),
}
# how each state is reached from NEW
PATHS: dict[State, tuple[str, ...]] = {
    State.NEW: (),
    State.LOOKING: ("start",),
    State.FOLLOWING: ("start", "read other"),
    State.CAMPAIGNING: ("start", "read none"),
    State.LEADING: ("start", "read none", "written"),
    State.RENEWING: ("start", "read none", "written", "tick"),
    State.CHECKING: ("start", "read none", "written", "tick", "conflicted"),
    State.RENEWING_AGAIN: ("start", "read none", "written", "tick", "conflicted", "read own"),
    State.CONTESTED: ("start", "read none", "written", "tick", "conflicted", "read own", "conflicted"),
    State.DOUBTING: ("start", "read none", "stop"),
    State.RELEASING: ("start", "read none", "written", "stop"),
    State.CHECKING_RELEASE: ("start", "read none", "written", "stop", "conflicted"),
    State.RELEASING_AGAIN: ("start", "read none", "written", "stop", "conflicted", "read own"),
    State.STOPPED: ("stop",),
}
S = State
# what each input makes of each state; what is missing is refused
EXPECTED: dict[State, dict[str, State]] = {
    S.NEW: {"start": S.LOOKING, "stop": S.STOPPED},
    S.FOLLOWING: {"tick": S.LOOKING, "tick early": S.FOLLOWING, "tick late": S.LOOKING, "stop": S.STOPPED},
    S.LOOKING: {
        "read none": S.CAMPAIGNING,
        "read own": S.CAMPAIGNING,
        "read own late": S.CAMPAIGNING,
        "read other": S.FOLLOWING,
        "read foreign": S.FOLLOWING,
        "failed": S.FOLLOWING,
        "failed late": S.FOLLOWING,
        "stop": S.STOPPED,
    },
    S.CAMPAIGNING: {
        "written": S.LEADING,
        "conflicted": S.FOLLOWING,
        "conflicted late": S.FOLLOWING,
        "failed": S.FOLLOWING,
        "failed late": S.FOLLOWING,
        "stop": S.DOUBTING,
    },
    S.LEADING: {"tick": S.RENEWING, "tick early": S.LEADING, "tick late": S.LOOKING, "stop": S.RELEASING},
    S.RENEWING: {
        "written": S.LEADING,
        "conflicted": S.CHECKING,
        "conflicted late": S.FOLLOWING,
        "failed": S.LEADING,
        "failed late": S.FOLLOWING,
        "stop": S.DOUBTING,
    },
    S.CONTESTED: {"tick": S.CHECKING, "tick early": S.CONTESTED, "tick late": S.LOOKING, "stop": S.RELEASING},
    S.CHECKING: {
        "read none": S.RENEWING_AGAIN,
        "read own": S.RENEWING_AGAIN,
        "read own late": S.CAMPAIGNING,
        "read other": S.FOLLOWING,
        "read foreign": S.FOLLOWING,
        "failed": S.CONTESTED,
        "failed late": S.FOLLOWING,
        "stop": S.RELEASING,
    },
    S.RENEWING_AGAIN: {
        "written": S.LEADING,
        "conflicted": S.CONTESTED,
        "conflicted late": S.FOLLOWING,
        "failed": S.CONTESTED,
        "failed late": S.FOLLOWING,
        "stop": S.DOUBTING,
    },
    S.DOUBTING: {
        "read none": S.STOPPED,
        "read own": S.RELEASING,
        "read own late": S.RELEASING,
        "read other": S.STOPPED,
        "read foreign": S.STOPPED,
        "failed": S.STOPPED,
        "failed late": S.STOPPED,
    },
    S.RELEASING: {
        "written": S.STOPPED,
        "conflicted": S.CHECKING_RELEASE,
        "conflicted late": S.CHECKING_RELEASE,
        "failed": S.STOPPED,
        "failed late": S.STOPPED,
    },
    S.CHECKING_RELEASE: {
        "read none": S.STOPPED,
        "read own": S.RELEASING_AGAIN,
        "read own late": S.RELEASING_AGAIN,
        "read other": S.STOPPED,
        "read foreign": S.STOPPED,
        "failed": S.STOPPED,
        "failed late": S.STOPPED,
    },
    S.RELEASING_AGAIN: {
        "written": S.STOPPED,
        "conflicted": S.STOPPED,
        "conflicted late": S.STOPPED,
        "failed": S.STOPPED,
        "failed late": S.STOPPED,
    },
    S.STOPPED: {},
}


def reach(state: State) -> tuple[Elector, float]:
    """An elector in `state`, and the time there."""
    elector, now = Elector(DEFAULT_CONFIG, "me", Owner("r"), Random(1)), 100.0
    for name in PATHS[state]:
        INPUTS[name](elector, now)
        now = max(now, elector.next_deadline() if name == "tick" else now)
    assert elector.state is state
    return elector, now


def everything_in(elector: Elector) -> object:
    """All that an input could change."""
    parts = (elector, elector._watch, elector._schedule, elector._proposal)
    return [{name: value for name, value in vars(part).items() if value not in parts} for part in parts]


def request_of(actions: list[Action]) -> str:
    """The one request among the actions, as `state` names it."""
    requests = [action for action in actions if isinstance(action, (Read, Write))]
    assert len(requests) <= 1
    if not requests:
        return "-"
    if isinstance(request := requests[0], Read):
        return "read"
    return "renewal" if request.record.holder_identity == "me" else "release"


def request_in(state: State) -> str:
    return "read" if state in READS else "renewal" if state in RENEWS else "release" if state in RELEASES else "-"


@pytest.mark.parametrize("state", State, ids=lambda state: state.value)
@pytest.mark.parametrize("name", INPUTS)
def test_each_input_in_each_state(state: State, name: str) -> None:
    elector, now = reach(state)
    if (after := EXPECTED[state].get(name)) is None:
        before = everything_in(elector)
        with pytest.raises(IllegalInputError, match=f"election state '{state.value}'"):
            INPUTS[name](elector, now)
        assert everything_in(elector) == before
        return
    actions = INPUTS[name](elector, now)
    assert elector.state is after
    assert elector.leading is (after in LEADS)
    assert elector.stopped is (after is State.STOPPED)
    assert request_of(actions) == (request_in(after) if after is not state else "-")
    lost = [action for action in actions if getattr(action, "kind", None) is EventKind.LOST]
    assert len(lost) == (state in LEADS and after not in LEADS and after not in STOPS)


def test_every_row_of_the_table_is_taken_by_some_input(monkeypatch: pytest.MonkeyPatch) -> None:
    taken: set[tuple[State, Input]] = set()

    def record(state: State, input: Input) -> State:
        taken.add((state, input))
        return next_state(state, input)

    monkeypatch.setattr(elector_module, "next_state", record)
    for state, inputs in EXPECTED.items():
        for name in inputs:
            elector, now = reach(state)
            INPUTS[name](elector, now)
    assert taken == {(state, input) for state, row in TRANSITIONS.items() for input in row}


def test_each_state_is_as_the_page_says() -> None:
    rows = [line.split("  ") for line in (state_module.__doc__ or "").splitlines() if line.startswith("    ")][1:]
    pages = {row[2].strip(): [cell.strip() for cell in row[3:] if cell.strip()][:2] for row in rows}
    kinds = {"read": "read", "renewal": "write", "release": "write", "-": "-"}
    assert pages == {one.name: ["yes" if one in LEADS else "no", kinds[request_in(one)]] for one in State}
    assert READS.isdisjoint(RENEWS | RELEASES)
    assert RENEWS.isdisjoint(RELEASES)


def test_a_stop_ends_within_four_requests_whatever_the_answers() -> None:
    def longest(state: State) -> int:
        return request_in(state).isalpha() + max(map(longest, TRANSITIONS[state].values()), default=0)

    for state, row in TRANSITIONS.items():
        if Input.STOP in row:
            assert longest(row[Input.STOP]) <= 4
        assert Input.STOP in row or state in STOPS
