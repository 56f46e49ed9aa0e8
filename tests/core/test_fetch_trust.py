"""The tables of `fetch.trust_states`, row by row, and what the memory makes of them."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from speil.fetch.trust import BAN_SECONDS, SUSPECT_SECONDS, Care, PeerTrust
from speil.fetch.trust_states import (
    CONTENT,
    PEER,
    ContentEvent,
    ContentState,
    IllegalEventError,
    PeerEvent,
    PeerState,
    after,
)
from speil.multiformats.peer_id import PeerId
from speil.oci.digest import Digest

C, E = ContentState, ContentEvent
# one line for each state and event; events that are left out can't happen
CONTENT_ROWS = """
UNKNOWN        ASKED             UNKNOWN
UNKNOWN        RESUMED           UNKNOWN
UNKNOWN        SENT              SENDING
UNKNOWN        COMPLETED         UNKNOWN
UNKNOWN        VERIFIED          UNKNOWN
UNKNOWN        GAVE_UP           UNKNOWN
UNKNOWN        DISTRUSTED        SENT_UPSTREAM
UNKNOWN        STEPPED_ASIDE     UNKNOWN
SENDING        ASKED             UNKNOWN
SENDING        ASKED_OF_DEBTORS  ASKED_AGAIN
SENDING        RESUMED           SENDING
SENDING        SENT              SENDING
SENDING        COMPLETED         DELIVERED
SENDING        VERIFIED          UNKNOWN
SENDING        GAVE_UP           SENDING
SENDING        DISTRUSTED        SENDING
SENDING        STEPPED_ASIDE     SENDING
SENDING        EXPIRED           UNKNOWN
DELIVERED      ASKED             ASKED_AGAIN
DELIVERED      RESUMED           DELIVERED
DELIVERED      SENT              SENDING
DELIVERED      COMPLETED         DELIVERED
DELIVERED      OVERDUE           MISSING
DELIVERED      VERIFIED          UNKNOWN
DELIVERED      GAVE_UP           DELIVERED
DELIVERED      DISTRUSTED        DELIVERED
DELIVERED      STEPPED_ASIDE     DELIVERED
DELIVERED      EXPIRED           UNKNOWN
MISSING        ASKED             ASKED_AGAIN
MISSING        RESUMED           MISSING
MISSING        SENT              SENDING
MISSING        COMPLETED         MISSING
MISSING        VERIFIED          UNKNOWN
MISSING        GAVE_UP           MISSING
MISSING        DISTRUSTED        MISSING
MISSING        STEPPED_ASIDE     MISSING
MISSING        EXPIRED           UNKNOWN
ASKED_AGAIN    ASKED             ASKED_AGAIN
ASKED_AGAIN    RESUMED           ASKED_AGAIN
ASKED_AGAIN    SENT              ASKED_AGAIN
ASKED_AGAIN    COMPLETED         ASKED_AGAIN
ASKED_AGAIN    VERIFIED          UNKNOWN
ASKED_AGAIN    GAVE_UP           SENT_UPSTREAM
ASKED_AGAIN    DISTRUSTED        SENT_UPSTREAM
ASKED_AGAIN    STEPPED_ASIDE     ASKED_AGAIN
ASKED_AGAIN    EXPIRED           UNKNOWN
SENT_UPSTREAM  ASKED             SENT_UPSTREAM
SENT_UPSTREAM  RESUMED           SENT_UPSTREAM
SENT_UPSTREAM  SENT              SENT_UPSTREAM
SENT_UPSTREAM  COMPLETED         SENT_UPSTREAM
SENT_UPSTREAM  VERIFIED          UNKNOWN
SENT_UPSTREAM  GAVE_UP           SENT_UPSTREAM
SENT_UPSTREAM  DISTRUSTED        SENT_UPSTREAM
SENT_UPSTREAM  STEPPED_ASIDE     ASKED_AGAIN
SENT_UPSTREAM  EXPIRED           UNKNOWN
"""
PEER_ROWS = """
UNKNOWN  RIGHT     PROVEN
UNKNOWN  DOUBTFUL  SUSPECT
UNKNOWN  WRONG     BANNED
PROVEN   RIGHT     PROVEN
PROVEN   DOUBTFUL  SUSPECT
PROVEN   WRONG     BANNED
SUSPECT  RIGHT     PROVEN
SUSPECT  DOUBTFUL  SUSPECT
SUSPECT  WRONG     BANNED
SUSPECT  EXPIRED   UNKNOWN
BANNED   RIGHT     BANNED
BANNED   DOUBTFUL  BANNED
BANNED   WRONG     BANNED
BANNED   EXPIRED   UNKNOWN
"""


def rows(text: str) -> list[tuple[str, ...]]:
    return [tuple(line.split()) for line in text.strip().splitlines()]


@pytest.mark.parametrize(("state", "event", "expected"), rows(CONTENT_ROWS))
def test_what_an_event_makes_of_content(state: str, event: str, expected: str) -> None:
    assert after(CONTENT, C[state], E[event]) is C[expected]


@pytest.mark.parametrize(("state", "event", "expected"), rows(PEER_ROWS))
def test_what_an_event_makes_of_a_peer(state: str, event: str, expected: str) -> None:
    assert after(PEER, PeerState[state], PeerEvent[event]) is PeerState[expected]


def test_all_other_events_are_refused() -> None:
    content = {(state, event) for state in C for event in E}
    for state, event in content - {(C[one[0]], E[one[1]]) for one in rows(CONTENT_ROWS)}:
        with pytest.raises(IllegalEventError, match=f"{event.name} can't happen to what is {state.name}"):
            after(CONTENT, state, event)
    peers = {(state, event) for state in PeerState for event in PeerEvent}
    for known, seen in peers - {(PeerState[one[0]], PeerEvent[one[1]]) for one in rows(PEER_ROWS)}:
        with pytest.raises(IllegalEventError):
            after(PEER, known, seen)


def test_each_state_of_content_is_left_at_some_time() -> None:
    for state in set(C) - {C.UNKNOWN}:
        assert CONTENT[state][E.EXPIRED] is C.UNKNOWN
        assert CONTENT[state][E.VERIFIED] is C.UNKNOWN


PEERS = [PeerId.of_public_key(hashlib.sha256(bytes([number])).digest()) for number in range(3)]
CONTENTS = [Digest.of(bytes([number])) for number in range(3)]
ONE, LAYER = PEERS[0], CONTENTS[0]


def deliver(known: PeerTrust, now: float = 0.0) -> None:
    known.sent(LAYER, ONE, now)
    known.whole(LAYER, now)


def test_a_debtor_is_forgotten_so_long_after_its_delivery_however_often_it_is_asked_again() -> None:
    known = PeerTrust()
    deliver(known)
    for now in range(60, int(SUSPECT_SECONDS), 60):
        assert known.asked(LAYER, float(now), from_start=True).care is Care.UNPROVEN
    caution = known.asked(CONTENTS[1], SUSPECT_SECONDS + 1, from_start=True)
    assert not caution.debtors


def test_a_request_that_asks_once_more_gets_nothing_from_those_that_it_was_kept_from() -> None:
    known = PeerTrust()
    deliver(known)
    assert not known.asked(LAYER, 1.0, from_start=True).allows(ONE, proven=True)
    known.turned_away(LAYER, 1.0)
    again = known.asked_before(LAYER, 1.0)  # the umpire names complete holders to the same request
    assert not again.allows(ONE, proven=True)
    assert again.care is Care.UNPROVEN
    assert not known.asked_before(CONTENTS[1], 1.0).allows(ONE, proven=True), "nor of other content"
    assert known.asked(LAYER, 2.0, from_start=True).care is Care.HASHED, "the upstream did not help"


def test_a_request_that_steps_aside_has_not_tried_the_upstream() -> None:
    known = PeerTrust()
    deliver(known)
    for now in (1.0, 2.0):
        assert known.asked(LAYER, now, from_start=True).care is Care.UNPROVEN
        known.turned_away(LAYER, now)
        known.stepped_aside(LAYER, now)
    assert not known.asked(LAYER, 3.0, from_start=True).allows(ONE, proven=False)
    known.turned_away(LAYER, 3.0)
    assert known.asked(LAYER, 4.0, from_start=True).care is Care.HASHED


def test_content_that_was_never_delivered_steps_aside_and_still_asks_no_debtor() -> None:
    known = PeerTrust()
    deliver(known)
    other = CONTENTS[1]
    known.overdue(SUSPECT_SECONDS / 2)
    assert not known.asked(other, SUSPECT_SECONDS / 2, from_start=True).allows(ONE, proven=True)
    known.turned_away(other, SUSPECT_SECONDS / 2)
    known.stepped_aside(other, SUSPECT_SECONDS / 2)
    assert not known.asked(other, SUSPECT_SECONDS / 2, from_start=True).allows(ONE, proven=True)


def test_bytes_that_were_under_way_do_not_lift_a_ban() -> None:
    known = PeerTrust()
    known.lied(ONE, 0.0)
    known.proved(ONE, 1.0)
    known.doubt([ONE], 2.0)
    assert known.is_banned(ONE, BAN_SECONDS - 1)
    assert not known.is_proven(ONE)
    known.proved(ONE, BAN_SECONDS + 1)
    assert known.is_proven(ONE)


def test_a_proven_peer_that_is_doubted_has_to_prove_itself_again() -> None:
    known = PeerTrust()
    known.proved(ONE, 0.0)
    known.doubt([ONE], 1.0)
    assert known.is_suspect(ONE, 2.0)
    assert not known.is_proven(ONE)


def test_content_that_was_forgotten_while_it_was_sent_is_no_fault() -> None:
    known = PeerTrust()
    known.sent(LAYER, ONE, 0.0)
    known.whole(LAYER, SUSPECT_SECONDS + 1)
    assert known.unsettled == []


calls = st.lists(
    st.tuples(
        st.sampled_from(
            ["asked", "resumed", "turned_away", "stepped_aside", "sent", "whole", "settled", "overdue", "lied", "doubt"]
        ),
        st.sampled_from(CONTENTS),
        st.sampled_from(PEERS),
        st.floats(0, SUSPECT_SECONDS / 3),
    ),
    max_size=40,
)


@given(calls)
def test_whatever_happens_in_whatever_order_is_legal_and_the_upstream_is_never_the_only_source_for_ever(
    history: list[tuple[str, Digest, PeerId, float]],
) -> None:
    known, now = PeerTrust(), 0.0
    for call, digest, peer, seconds in history:
        now += seconds
        match call:
            case "asked" | "resumed":
                known.asked(digest, now, from_start=call == "asked")
            case "sent":
                known.sent(digest, peer, now)
            case "overdue":
                known.overdue(now)
            case "lied":
                known.lied(peer, now)
            case "doubt":
                known.doubt([peer], now)
            case _:
                getattr(known, call)(digest, now)
    for digest in CONTENTS:
        first = known.asked(digest, now, from_start=True)
        if first.care is Care.SUSPECTS:
            continue
        known.turned_away(digest, now)
        caution = known.asked(digest, now, from_start=True)
        assert caution.care is Care.HASHED, "the upstream did not help: anyone is asked"
        assert all(caution.allows(peer, proven=False) for peer in PEERS)
