"""The states of delivered content and of a peer's reputation, each as one transition table.

Large content is passed on without a check of its bytes, and containerd verifies it at its end. containerd keeps right
bytes and does not ask for them again. So what happens after a delivery shows whether its bytes were right.

Content, as this node delivered it to containerd:

| state | meaning | the next request for it |
|---|---|---|
| UNKNOWN | nothing is remembered | asks all but suspects and debtors |
| SENDING | containerd has a part of it | the same |
| DELIVERED | containerd has all of it | the same |
| MISSING | DELIVERED, and the store did not take it in for SETTLE_SECONDS_MAX | the same |
| ASKED_AGAIN | containerd asked for it again: its senders are suspect | asks proven peers only, and hashes |
| SENT_UPSTREAM | ASKED_AGAIN, and no peer could be trusted with it: it came from upstream | asks anyone, and hashes |

A peer:

| state | meaning |
|---|---|
| UNKNOWN | nothing is remembered |
| PROVEN | it sent bytes that were seen to be right |
| SUSPECT | it is one of several peers of which one sent wrong bytes; its bytes are hashed |
| BANNED | it alone sent wrong bytes: it is not asked |
"""

from __future__ import annotations

from enum import Enum, auto
from typing import TypeVar

__all__ = ["CONTENT", "PEER", "ContentEvent", "ContentState", "IllegalEventError", "PeerEvent", "PeerState", "after"]


class ContentState(Enum):
    """See the module's first table."""

    UNKNOWN = auto()
    SENDING = auto()
    DELIVERED = auto()
    MISSING = auto()
    ASKED_AGAIN = auto()
    SENT_UPSTREAM = auto()


class ContentEvent(Enum):
    """What happens to content."""

    ASKED = auto()  # containerd asks for it from its start
    ASKED_OF_DEBTORS = auto()  # the same after a break, and its senders delivered content that is not in the store
    RESUMED = auto()  # containerd asks for the rest, from an offset
    SENT = auto()  # bytes of a peer were passed on without a check
    COMPLETED = auto()  # containerd has its last byte
    OVERDUE = auto()  # it is not in the store SETTLE_SECONDS_MAX after that
    VERIFIED = auto()  # it is in the store, or its hash was right
    GAVE_UP = auto()  # no peer served it, so containerd goes upstream
    DISTRUSTED = auto()  # the same, and peers were left out because they are suspects or debtors
    STEPPED_ASIDE = auto()  # it does not go upstream after all: its request ends without a byte, and comes again
    EXPIRED = auto()  # nothing happened for SUSPECT_SECONDS


class PeerState(Enum):
    """See the module's second table."""

    UNKNOWN = auto()
    PROVEN = auto()
    SUSPECT = auto()
    BANNED = auto()


class PeerEvent(Enum):
    """What its bytes showed."""

    RIGHT = auto()
    DOUBTFUL = auto()  # wrong bytes came from one of several peers
    WRONG = auto()  # wrong bytes came from this peer alone
    EXPIRED = auto()  # SUSPECT_SECONDS or BAN_SECONDS have passed


class IllegalEventError(Exception):
    """An event that can't happen in this state: a fault in the caller."""


_C, _E = ContentState, ContentEvent
# What is left out can't happen. A pull that broke off is asked for again without blame: SENDING, ASKED.
CONTENT: dict[ContentState, dict[ContentEvent, ContentState]] = {
    _C.UNKNOWN: {
        _E.ASKED: _C.UNKNOWN,
        _E.RESUMED: _C.UNKNOWN,
        _E.SENT: _C.SENDING,
        _E.COMPLETED: _C.UNKNOWN,  # it was forgotten meanwhile: the memory is bounded
        _E.VERIFIED: _C.UNKNOWN,
        _E.GAVE_UP: _C.UNKNOWN,
        _E.DISTRUSTED: _C.SENT_UPSTREAM,
        _E.STEPPED_ASIDE: _C.UNKNOWN,
    },
    _C.SENDING: {
        _E.ASKED: _C.UNKNOWN,
        _E.ASKED_OF_DEBTORS: _C.ASKED_AGAIN,
        _E.RESUMED: _C.SENDING,
        _E.SENT: _C.SENDING,
        _E.COMPLETED: _C.DELIVERED,
        _E.VERIFIED: _C.UNKNOWN,
        _E.GAVE_UP: _C.SENDING,
        _E.DISTRUSTED: _C.SENDING,
        _E.STEPPED_ASIDE: _C.SENDING,
        _E.EXPIRED: _C.UNKNOWN,
    },
    _C.DELIVERED: {
        _E.ASKED: _C.ASKED_AGAIN,
        _E.RESUMED: _C.DELIVERED,
        _E.SENT: _C.SENDING,  # another delivery begins
        _E.COMPLETED: _C.DELIVERED,
        _E.OVERDUE: _C.MISSING,
        _E.VERIFIED: _C.UNKNOWN,
        _E.GAVE_UP: _C.DELIVERED,
        _E.DISTRUSTED: _C.DELIVERED,
        _E.STEPPED_ASIDE: _C.DELIVERED,
        _E.EXPIRED: _C.UNKNOWN,
    },
    _C.MISSING: {
        _E.ASKED: _C.ASKED_AGAIN,
        _E.RESUMED: _C.MISSING,
        _E.SENT: _C.SENDING,
        _E.COMPLETED: _C.MISSING,
        _E.VERIFIED: _C.UNKNOWN,
        _E.GAVE_UP: _C.MISSING,
        _E.DISTRUSTED: _C.MISSING,
        _E.STEPPED_ASIDE: _C.MISSING,
        _E.EXPIRED: _C.UNKNOWN,
    },
    _C.ASKED_AGAIN: {
        _E.ASKED: _C.ASKED_AGAIN,
        _E.RESUMED: _C.ASKED_AGAIN,
        _E.SENT: _C.ASKED_AGAIN,
        _E.COMPLETED: _C.ASKED_AGAIN,
        _E.VERIFIED: _C.UNKNOWN,
        _E.GAVE_UP: _C.SENT_UPSTREAM,
        _E.DISTRUSTED: _C.SENT_UPSTREAM,
        _E.STEPPED_ASIDE: _C.ASKED_AGAIN,
        _E.EXPIRED: _C.UNKNOWN,
    },
    _C.SENT_UPSTREAM: {
        _E.ASKED: _C.SENT_UPSTREAM,
        _E.RESUMED: _C.SENT_UPSTREAM,
        _E.SENT: _C.SENT_UPSTREAM,
        _E.COMPLETED: _C.SENT_UPSTREAM,
        _E.VERIFIED: _C.UNKNOWN,
        _E.GAVE_UP: _C.SENT_UPSTREAM,
        _E.DISTRUSTED: _C.SENT_UPSTREAM,
        _E.STEPPED_ASIDE: _C.ASKED_AGAIN,
        _E.EXPIRED: _C.UNKNOWN,
    },
}

_P, _B = PeerState, PeerEvent
PEER: dict[PeerState, dict[PeerEvent, PeerState]] = {
    _P.UNKNOWN: {_B.RIGHT: _P.PROVEN, _B.DOUBTFUL: _P.SUSPECT, _B.WRONG: _P.BANNED},
    _P.PROVEN: {_B.RIGHT: _P.PROVEN, _B.DOUBTFUL: _P.SUSPECT, _B.WRONG: _P.BANNED},
    _P.SUSPECT: {_B.RIGHT: _P.PROVEN, _B.DOUBTFUL: _P.SUSPECT, _B.WRONG: _P.BANNED, _B.EXPIRED: _P.UNKNOWN},
    # bytes that were under way when it was banned change nothing
    _P.BANNED: {_B.RIGHT: _P.BANNED, _B.DOUBTFUL: _P.BANNED, _B.WRONG: _P.BANNED, _B.EXPIRED: _P.UNKNOWN},
}

S = TypeVar("S", bound=Enum)
E = TypeVar("E", bound=Enum)


def after(table: dict[S, dict[E, S]], state: S, event: E) -> S:
    """The state after an event. Raises IllegalEventError."""
    try:
        return table[state][event]
    except KeyError:
        raise IllegalEventError(f"{event.name} can't happen to what is {state.name}") from None
