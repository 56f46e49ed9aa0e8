"""The states of claims, each as one transition table.

A node in the tree of a key, as the umpire of the key sees it (NODE):

| state | meaning | may be named as a source |
|---|---|---|
| UNKNOWN | not in the tree | no |
| FETCHING | it was told to fetch from the upstream | yes |
| FOLLOWING | it was told to follow a source | while each node above it may be named |
| COMPLETE | it announced the content | yes |
| FAILED | a follower left it: no sign of life, no byte, gone, or too slow | no, nor any node below it |

A pull of content, on the node whose containerd asks for it (PULL):

| state | meaning | containerd's request |
|---|---|---|
| ASKING | an umpire is asked | held |
| JOINING | the source is asked, no byte came | held |
| RECEIVING | bytes of the source come | gets them |
| ASKING_AGAIN | it left its source and asks an umpire for another one | gets no bytes |
| WITH_HOLDERS | peers that have the whole content serve it | is handled like any other request |
| FETCHING | it fetches from the upstream, and others follow it | 404, or the end of the body |
| ALONE | it fetches from the upstream without a claim | 404, or the end of the body |
| DELIVERED | containerd has all bytes, and verifies them | is answered |
| ENDED | it has the content, or the download was given up | - |
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum, auto
from typing import TypeVar

__all__ = ["FETCHES", "NODE", "PULL", "IllegalEventError", "NodeEvent", "NodeState", "PullEvent", "PullState", "after"]


class NodeState(Enum):
    """See the module's first table."""

    UNKNOWN = auto()
    FETCHING = auto()
    FOLLOWING = auto()
    COMPLETE = auto()
    FAILED = auto()


class NodeEvent(Enum):
    """What happens to a node in the tree of a key."""

    GRANTED = auto()  # it was told to fetch
    PLACED = auto()  # it was told whom to follow
    COMPLETED = auto()  # it announced the content, or its provider record is known
    BLAMED = auto()  # a follower left it
    LEFT = auto()  # it released its claim, or its time is over


class PullState(Enum):
    """See the module's second table."""

    ASKING = auto()
    JOINING = auto()
    RECEIVING = auto()
    ASKING_AGAIN = auto()
    WITH_HOLDERS = auto()
    FETCHING = auto()
    ALONE = auto()
    DELIVERED = auto()
    ENDED = auto()


class PullEvent(Enum):
    """What happens to a pull."""

    DEFERRED = auto()  # the umpire named one that is closer to the key
    UNANSWERED = auto()  # this umpire did not answer, and there is another one
    FETCH = auto()  # the answer: fetch
    FOLLOW = auto()  # the answer: follow a source
    HOLDERS = auto()  # the answer: these have it
    ALONE = auto()  # the answer: fetch alone; or no umpire is left, or a limit of this node is reached
    BYTES = auto()
    LEAVE = auto()  # the source, or all holders, failed
    REPEATED = auto()  # containerd asks once more
    DELIVERED = auto()  # containerd has the last byte
    COMPLETED = auto()  # the content is in the store
    CANCELLED = auto()  # the download is gone, or its bytes were wrong


class IllegalEventError(Exception):
    """An event that can't happen in this state: a fault in the caller."""


_N, _E = NodeState, NodeEvent
_ANY = {
    _E.GRANTED: _N.FETCHING,
    _E.PLACED: _N.FOLLOWING,
    _E.COMPLETED: _N.COMPLETE,
    _E.BLAMED: _N.FAILED,
    _E.LEFT: _N.UNKNOWN,
}
# What is left out can't happen.
NODE: Mapping[NodeState, Mapping[NodeEvent, NodeState]] = {
    _N.UNKNOWN: {_E.GRANTED: _N.FETCHING, _E.PLACED: _N.FOLLOWING, _E.COMPLETED: _N.COMPLETE},
    _N.FETCHING: _ANY,
    _N.FOLLOWING: _ANY,
    _N.COMPLETE: _ANY,  # also GRANTED and PLACED: its store has lost the content
    _N.FAILED: _ANY,  # one that asks or announces again is alive
}

_P, _V = PullState, PullEvent
_OVER = {_V.COMPLETED: _P.ENDED, _V.CANCELLED: _P.ENDED}
PULL: Mapping[PullState, Mapping[PullEvent, PullState]] = {
    _P.ASKING: {
        _V.DEFERRED: _P.ASKING,
        _V.UNANSWERED: _P.ASKING,
        _V.FETCH: _P.FETCHING,
        _V.FOLLOW: _P.JOINING,
        _V.HOLDERS: _P.WITH_HOLDERS,
        _V.ALONE: _P.ALONE,
        _V.BYTES: _P.ASKING,  # an ingest that was begun before
        _V.REPEATED: _P.ASKING,
        **_OVER,
    },
    _P.JOINING: {
        _V.BYTES: _P.RECEIVING,
        _V.LEAVE: _P.ASKING_AGAIN,
        _V.ALONE: _P.ALONE,
        _V.REPEATED: _P.JOINING,
        **_OVER,
    },
    _P.RECEIVING: {
        _V.BYTES: _P.RECEIVING,
        _V.LEAVE: _P.ASKING_AGAIN,
        _V.ALONE: _P.ALONE,
        _V.REPEATED: _P.RECEIVING,
        _V.DELIVERED: _P.DELIVERED,
        **_OVER,
    },
    _P.ASKING_AGAIN: {
        _V.DEFERRED: _P.ASKING_AGAIN,
        _V.UNANSWERED: _P.ASKING_AGAIN,
        _V.FETCH: _P.FETCHING,
        _V.FOLLOW: _P.JOINING,
        _V.HOLDERS: _P.WITH_HOLDERS,
        _V.ALONE: _P.ALONE,
        _V.BYTES: _P.ASKING_AGAIN,  # of the source that it left
        _V.REPEATED: _P.ASKING_AGAIN,
        **_OVER,
    },
    _P.WITH_HOLDERS: {
        _V.BYTES: _P.WITH_HOLDERS,
        _V.LEAVE: _P.ASKING_AGAIN,
        _V.ALONE: _P.ALONE,
        _V.REPEATED: _P.WITH_HOLDERS,
        _V.DELIVERED: _P.DELIVERED,
        **_OVER,
    },
    _P.FETCHING: {_V.BYTES: _P.FETCHING, _V.REPEATED: _P.FETCHING, **_OVER},
    _P.ALONE: {_V.BYTES: _P.ALONE, _V.REPEATED: _P.ALONE, **_OVER},
    _P.DELIVERED: {_V.REPEATED: _P.DELIVERED, **_OVER},
    _P.ENDED: {},
}

HELD = frozenset({_P.ASKING, _P.JOINING, _P.RECEIVING, _P.ASKING_AGAIN})  # containerd waits for this core
FETCHES = frozenset({_P.FETCHING, _P.ALONE})  # containerd downloads from the upstream

S = TypeVar("S", bound=Enum)
E = TypeVar("E", bound=Enum)


def after(table: Mapping[S, Mapping[E, S]], state: S, event: E) -> S:
    """The state after an event. Raises IllegalEventError."""
    try:
        return table[state][event]
    except KeyError:
        raise IllegalEventError(f"{event.name} can't happen to what is {state.name}") from None
