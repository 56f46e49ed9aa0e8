"""Whom a node sends bodies to, and how fast: any script of requests, under virtual time."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from speil.upload.admission import (
    CONTESTED_FRACTION,
    LIMITED_PER_PEER_MAX,
    UPLOAD_BYTES_PER_SECOND_MIN,
    FairAdmission,
    Refusal,
)
from speil.upload.pace import PIECE_BYTES_MAX, ROUND_SECONDS, Turn, UploadPace

PEERS = st.sampled_from("abcdef")


# --- places --------------------------------------------------------------------------------------------------


@given(st.integers(0, 40), st.integers(1, 20), st.lists(st.tuples(st.booleans(), PEERS), max_size=200))
def test_the_bounds_hold_for_any_script_and_a_newcomer_finds_a_place(
    places: int, per_peer_max: int, script: list[tuple[bool, str]]
) -> None:
    admission, held = FairAdmission(places, per_peer_max), Counter[str]()
    for arrives, peer in script:
        if not arrives:
            if held[peer]:
                admission.release(peer)
                held[peer] -= 1
            continue
        refusal = admission.admit(peer)
        if refusal is None:
            held[peer] += 1
        elif not held[peer]:
            assert refusal is Refusal.NODE, "who has nothing is refused only by a full node"
            assert held.total() == places
        assert held[peer] <= per_peer_max
        assert admission.open_count == held.total() <= places


@given(st.integers(4, 100), st.integers(2, 8))
def test_an_eager_peer_leaves_the_last_places_to_the_others(places: int, others: int) -> None:
    admission = FairAdmission(places, per_peer_max=places)
    assert admission.admit("other 0") is None
    eager = 0
    while (refusal := admission.admit("eager")) is None:
        eager += 1
    assert refusal is Refusal.SHARE
    kept = places - 1 - eager
    assert kept >= int(places * CONTESTED_FRACTION) - 1
    for number in range(1, min(others, kept) + 1):
        assert admission.admit(f"other {number}") is None


def test_a_peer_has_its_own_bound_and_a_lone_peer_may_have_all_of_it() -> None:
    admission = FairAdmission(64, 16)
    assert [admission.admit("a") for _ in range(17)] == [None] * 16 + [Refusal.PEER]
    admission.release("a")
    assert admission.admit("a") is None


def test_a_bandwidth_carries_so_many_uploads() -> None:
    admission = FairAdmission(64, 64, bytes_per_second=3 * UPLOAD_BYTES_PER_SECOND_MIN)
    assert [admission.admit(peer) for peer in "abcd"] == [None] * 3 + [Refusal.BANDWIDTH]
    assert FairAdmission(64, 64, bytes_per_second=1).places == 1
    plenty = FairAdmission(64, 64, bytes_per_second=1 << 40)
    assert plenty.places == 64
    assert [plenty.admit("a") for _ in range(LIMITED_PER_PEER_MAX + 1)][-2:] == [None, Refusal.PEER]


# --- pace ----------------------------------------------------------------------------------------------------

RATES = st.integers(UPLOAD_BYTES_PER_SECOND_MIN, 1 << 30)


def run(pace: UploadPace, uploads: list[str], seconds: float, *, move: float = 1.0) -> list[tuple[float, Turn]]:
    """Uploads that always want more, for so long; (when, what was sent): `move` is the part of a piece that was."""
    now, granted = 0.0, []
    for peer in uploads:
        pace.ask(peer, PIECE_BYTES_MAX, len(uploads))
    while now < seconds:
        for turn in pace.grant(now):
            sent = max(int(turn.size * move), 1)
            pace.give_back(turn.size - sent)
            granted.append((now, Turn(turn.number, turn.peer, sent)))
            pace.ask(turn.peer, PIECE_BYTES_MAX, len(uploads))
        deadline = pace.next_deadline()
        assert deadline is not None
        now = max(deadline, now + 1e-6)
    return granted


@given(RATES, st.integers(1, 64), st.floats(0.1, 1.0))
def test_never_more_than_the_limit_and_all_of_it_when_it_is_wanted(rate: int, count: int, move: float) -> None:
    count = min(count, rate // UPLOAD_BYTES_PER_SECOND_MIN)
    pace = UploadPace(rate, 0.0)
    granted = run(pace, [str(number) for number in range(count)], 0.5, move=move)
    total, last = 0, 0.0
    for when, turn in granted:
        total += turn.size
        assert total <= rate * when + pace.burst_bytes + 1, "a burst at the start, then the limit"
        last = when
    assert total >= rate * last * 0.9 - PIECE_BYTES_MAX


@given(RATES, st.lists(PEERS, min_size=2, max_size=20))
def test_peers_get_the_same_however_many_uploads_each_has(rate: int, uploads: list[str]) -> None:
    uploads = uploads[: max(rate // UPLOAD_BYTES_PER_SECOND_MIN, 1)]
    sums, pace = Counter[str](), UploadPace(rate, 0.0)
    for _, turn in run(pace, uploads, 10 * ROUND_SECONDS):
        sums[turn.peer] += turn.size
    assert max(sums.values()) - min(sums[peer] for peer in uploads) <= 2 * pace.burst_bytes, "of the 11 in all"


def test_who_comes_late_catches_up_by_a_burst_and_no_more() -> None:
    pace = UploadPace(10 << 20, 0.0)
    run(pace, ["a", "b"], 5.0)
    piece = pace.ask("c", PIECE_BYTES_MAX, 10).size
    now, got = 5.0, Counter[str]()
    while got.total() < 4 * pace.burst_bytes:
        now += 0.01
        for turn in pace.grant(now):
            got[turn.peer] += turn.size
            pace.ask(turn.peer, PIECE_BYTES_MAX, 10)
    fair = (got.total() - pace.burst_bytes) / 3
    assert abs(got["c"] - (pace.burst_bytes + fair)) <= 2 * piece, "first a burst of its own, then a third"


@given(RATES, st.lists(st.sampled_from("abcdefghijklmnopqrst"), min_size=1, max_size=64))
def test_whoever_is_admitted_is_never_taken_for_stalled_or_slow(rate: int, asking: list[str]) -> None:
    admission, pace = FairAdmission(64, 16, bytes_per_second=rate), UploadPace(rate, 0.0)
    uploads = [peer for peer in asking if admission.admit(peer) is None]
    turns = {number: pace.ask(peer, PIECE_BYTES_MAX, len(uploads)) for number, peer in enumerate(uploads)}
    owner = {turn.number: number for number, turn in turns.items()}
    got, asked, now, seconds = Counter[int](), dict.fromkeys(turns, 0.0), 0.0, 5.0
    while now < seconds:
        for turn in pace.grant(now):
            number = owner.pop(turn.number)
            assert now - asked[number] < 3.0, "a peer waits no longer for a byte"
            got[number] += turn.size
            asked[number] = now
            owner[pace.ask(turn.peer, PIECE_BYTES_MAX, len(uploads)).number] = number
        now += 0.01
    assert min(got[number] for number in turns) >= 64 * 1024 * seconds


def test_who_leaves_the_line_is_not_waited_for() -> None:
    pace = UploadPace(1 << 20, 0.0)
    first, second = (pace.ask("a", PIECE_BYTES_MAX, 1) for _ in range(2))
    assert pace.grant(0.0) == [first]
    third = pace.ask("b", PIECE_BYTES_MAX, 1)
    pace.withdraw(second)
    pace.withdraw(second)
    assert pace.grant(ROUND_SECONDS) == [third]
    assert pace.next_deadline() is None
    pace.give_back(third.size)
    assert pace.grant(ROUND_SECONDS) == []
