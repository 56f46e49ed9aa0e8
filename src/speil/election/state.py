"""The state machine of an elector: its states, its inputs, and one table of transitions.

A state has two parts: whether this node leads, and which request to the Lease is under way (one at most).

    state               leads   request   meaning
    NEW                 no      -         made, not started
    FOLLOWING           no      -         waits until it looks at the Lease again
    LOOKING             no      read      reads the Lease
    CAMPAIGNING         no      write     the Lease may be taken: writes itself into it
    LEADING             yes     -         waits until it renews
    RENEWING            yes     write     renews
    CONTESTED           yes     -         renewals meet conflicts: waits until it reads again
    CHECKING            yes     read      a renewal met a conflict: reads who wrote
    RENEWING_AGAIN      yes     write     the Lease is still its own: renews on the version that was read
    DOUBTING            no      read      stops; a write was cut off: reads whether it succeeded
    RELEASING           no      write     stops; gives up the Lease
    CHECKING_RELEASE    no      read      stops; the release met a conflict: reads who wrote
    RELEASING_AGAIN     no      write     stops; the second and last try to give up the Lease
    STOPPED             no      -         takes part no more

An input is what happened, already judged. The elector judges: it turns the Lease that a read returned into MAY_WRITE,
MUST_WAIT or LOSE, and the time into DUE or LOSE. LOSE changes who leads and leaves the request under way as it is, so
it can come before the input that ends the request.

Rules of the table:
- A write is never followed by a write without a read or an answer in between.
- A leader reads only after a conflict. A second conflict in a row makes it wait, so that a process which writes all the
  time can't make it send requests without a pause.
- STOP is possible at any time but once. After it every path reaches STOPPED within four requests.
- What the table does not have is the caller's mistake and raises IllegalInputError.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum


class State(Enum):
    """See the module."""

    NEW = "new"
    FOLLOWING = "following"
    LOOKING = "looking"
    CAMPAIGNING = "campaigning"
    LEADING = "leading"
    RENEWING = "renewing"
    CONTESTED = "contested"
    CHECKING = "checking"
    RENEWING_AGAIN = "renewing again"
    DOUBTING = "doubting"
    RELEASING = "releasing"
    CHECKING_RELEASE = "checking release"
    RELEASING_AGAIN = "releasing again"
    STOPPED = "stopped"


class Input(Enum):
    """The events that change an elector's state."""

    START = "start"
    DUE = "due"  # the planned time of the next request has come
    MAY_WRITE = "may write"  # the Lease that was read is this node's, or free to be taken
    MUST_WAIT = "must wait"  # the Lease that was read is another node's
    WRITTEN = "written"  # the write succeeded
    CONFLICT = "conflict"  # another node wrote first
    FAILED = "failed"  # no response, or one without the Lease
    LOSE = "lose"  # a leader could not renew for too long, or the Lease that was read names another holder
    STOP = "stop"


_S, _I = State, Input
TRANSITIONS: Mapping[State, Mapping[Input, State]] = {
    _S.NEW: {_I.START: _S.LOOKING, _I.STOP: _S.STOPPED},
    _S.FOLLOWING: {_I.DUE: _S.LOOKING, _I.STOP: _S.STOPPED},
    _S.LOOKING: {
        _I.MAY_WRITE: _S.CAMPAIGNING,
        _I.MUST_WAIT: _S.FOLLOWING,
        _I.FAILED: _S.FOLLOWING,
        _I.STOP: _S.STOPPED,
    },
    _S.CAMPAIGNING: {
        _I.WRITTEN: _S.LEADING,
        _I.CONFLICT: _S.FOLLOWING,
        _I.FAILED: _S.FOLLOWING,
        _I.STOP: _S.DOUBTING,
    },
    _S.LEADING: {_I.DUE: _S.RENEWING, _I.LOSE: _S.FOLLOWING, _I.STOP: _S.RELEASING},
    _S.RENEWING: {
        _I.WRITTEN: _S.LEADING,
        _I.CONFLICT: _S.CHECKING,
        _I.FAILED: _S.LEADING,
        _I.LOSE: _S.CAMPAIGNING,
        _I.STOP: _S.DOUBTING,
    },
    _S.CONTESTED: {_I.DUE: _S.CHECKING, _I.LOSE: _S.FOLLOWING, _I.STOP: _S.RELEASING},
    _S.CHECKING: {
        _I.MAY_WRITE: _S.RENEWING_AGAIN,
        _I.FAILED: _S.CONTESTED,
        _I.LOSE: _S.LOOKING,
        _I.STOP: _S.RELEASING,
    },
    _S.RENEWING_AGAIN: {
        _I.WRITTEN: _S.LEADING,
        _I.CONFLICT: _S.CONTESTED,
        _I.FAILED: _S.CONTESTED,
        _I.LOSE: _S.CAMPAIGNING,
        _I.STOP: _S.DOUBTING,
    },
    _S.DOUBTING: {_I.MAY_WRITE: _S.RELEASING, _I.MUST_WAIT: _S.STOPPED, _I.FAILED: _S.STOPPED},
    _S.RELEASING: {_I.WRITTEN: _S.STOPPED, _I.CONFLICT: _S.CHECKING_RELEASE, _I.FAILED: _S.STOPPED},
    _S.CHECKING_RELEASE: {_I.MAY_WRITE: _S.RELEASING_AGAIN, _I.MUST_WAIT: _S.STOPPED, _I.FAILED: _S.STOPPED},
    _S.RELEASING_AGAIN: {_I.WRITTEN: _S.STOPPED, _I.CONFLICT: _S.STOPPED, _I.FAILED: _S.STOPPED},
    _S.STOPPED: {},
}

READS = frozenset({_S.LOOKING, _S.CHECKING, _S.DOUBTING, _S.CHECKING_RELEASE})  # a read is under way
RENEWS = frozenset({_S.CAMPAIGNING, _S.RENEWING, _S.RENEWING_AGAIN})  # a write is under way that makes this node lead
RELEASES = frozenset({_S.RELEASING, _S.RELEASING_AGAIN})  # a write is under way that gives up the Lease
LEADS = frozenset({_S.LEADING, _S.RENEWING, _S.CONTESTED, _S.CHECKING, _S.RENEWING_AGAIN})
STOPS = frozenset({_S.DOUBTING, _S.CHECKING_RELEASE, *RELEASES, _S.STOPPED})


class IllegalInputError(Exception):
    """The caller of the elector made a mistake: the input is not possible in this state. Nothing was changed."""


def check(state: State, input: Input) -> None:
    """Raises IllegalInputError where `input` is not possible in `state`."""
    if input not in TRANSITIONS[state]:
        possible = ", ".join(one.value for one in TRANSITIONS[state]) or "nothing"
        raise IllegalInputError(
            f"input {input.value!r} is not possible in the election state {state.value!r}, only {possible}. The driver "
            "must answer each request once, call tick only while no request is under way, and nothing after the end"
        )


def next_state(state: State, input: Input) -> State:
    """The state after `input`. Raises IllegalInputError."""
    check(state, input)
    return TRANSITIONS[state][input]
