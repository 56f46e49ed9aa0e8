"""What fetching remembers: how peers answered, whom to trust, how fast a body is, what is held."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from speil.fetch import known_sizes, peer_health, trust
from speil.fetch.budget import MemoryBudget
from speil.fetch.candidates import CROWDED, Judge, Standing
from speil.fetch.hedge import HEDGE_SECONDS_MAX, HEDGE_SECONDS_MIN
from speil.fetch.known_sizes import KnownSizes
from speil.fetch.pace import PIECE_BYTES, PIECE_SECONDS_MAX, STALL_SECONDS_MAX, BodyPace
from speil.fetch.peer_health import PENALTY_SECONDS_MAX, SILENCE_SECONDS_MAX, Failure, PeerHealth, Shape
from speil.fetch.settings import FetchSettings
from speil.fetch.trust import BAN_SECONDS, NO_CAUTION, SETTLE_SECONDS_MAX, SUSPECT_SECONDS, Care, Caution, PeerTrust
from speil.multiformats.peer_id import PeerId
from speil.oci.digest import Digest
from speil.oci.manifest import Descriptor
from speil.setting import SettingError

LAYER, OTHER_LAYER = Digest.of(b"layer"), Digest.of(b"other")


def peer(number: int) -> PeerId:
    return PeerId.of_public_key(hashlib.sha256(number.to_bytes(4, "big")).digest())


ONE, TWO = peer(1), peer(2)


def standing(
    who: PeerId, now: float = 0.0, *, health: PeerHealth | None = None, known: PeerTrust | None = None
) -> Standing:
    """Of a peer that may be asked."""
    found = judge(health, known).standing(who, now)
    assert found is not None
    return found


def judge(health: PeerHealth | None = None, known: PeerTrust | None = None) -> Judge:
    return Judge(health or PeerHealth(), known or PeerTrust(), NO_CAUTION, "", lambda one: "")


# --- health ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("failure", "shape"),
    [
        (Failure.GONE, Shape.GOOD),  # a stale record says nothing about the peer
        (Failure.BUSY, Shape.BUSY),
        (Failure.REFUSED, Shape.POOR),
        (Failure.SILENT, Shape.POOR),
        (Failure.BROKEN, Shape.POOR),
        (Failure.WRONG, Shape.POOR),
    ],
)
def test_what_a_failure_does_to_a_peer_and_that_a_good_answer_forgives(failure: Failure, shape: Shape) -> None:
    health = PeerHealth()
    health.failed(ONE, failure, 0.0)
    assert health.record(ONE).shape(0.0) is shape
    assert health.record(ONE).shape(PENALTY_SECONDS_MAX + 1) is Shape.GOOD
    health.answered(ONE, 0.01)
    assert health.record(ONE).shape(0.0) is Shape.GOOD


@pytest.mark.parametrize("failure", list(Failure))
def test_a_second_failure_that_cost_something_puts_a_peer_out_of_sight(failure: Failure) -> None:
    health = PeerHealth()
    for now in (0.0, 1.0):
        health.failed(ONE, failure, now)
    is_cheap = failure in (Failure.GONE, Failure.BUSY, Failure.REFUSED)
    assert (health.record(ONE).shape(1.0) is Shape.SHUNNED) is not is_cheap
    health.delivered(ONE)
    health.answered(ONE, 0.01)
    health.failed(ONE, failure, 2.0)
    assert health.record(ONE).shape(2.0) is not Shape.SHUNNED, "what went well between them makes it the first again"


def test_who_broke_off_is_not_asked_for_that_content_for_a_while() -> None:
    health = PeerHealth()
    health.broke(ONE, "layer", 0.0)
    one_layer = Judge(health, PeerTrust(), NO_CAUTION, "", lambda one: "", key="layer")
    assert one_layer.standing(ONE, 0.0) is None
    assert one_layer.standing(TWO, 0.0) is not None
    assert one_layer.standing(ONE, peer_health.BROKEN_SECONDS) is not None
    assert judge(health).standing(ONE, 0.0) is not None, "for other content it is"
    for number in range(peer_health.BROKEN_MAX):
        health.broke(peer(number), "other", 0.0)
    assert one_layer.standing(ONE, 0.0) is not None, "the oldest are forgotten"


def test_penalties_double_and_end() -> None:
    health = PeerHealth()
    for _ in range(20):
        health.failed(ONE, Failure.BROKEN, 0.0)
        health.failed(TWO, Failure.SILENT, 0.0)
    assert health.record(ONE).shape(PENALTY_SECONDS_MAX - 1) is Shape.SHUNNED
    assert health.record(ONE).shape(PENALTY_SECONDS_MAX) is Shape.GOOD
    assert health.record(TWO).shape(SILENCE_SECONDS_MAX) is Shape.GOOD, "silence may be our own overload"


def test_a_busy_peer_is_asked_later_for_as_long_as_it_says() -> None:
    health = PeerHealth()
    health.failed(ONE, Failure.BUSY, 0.0, busy_seconds=7.0)
    assert health.record(ONE).shape(6.9) is Shape.BUSY
    assert health.record(ONE).shape(7.0) is Shape.GOOD


def test_who_is_overtaken_again_and_again_comes_last_and_who_is_waited_for_in_vain_is_left_alone() -> None:
    health = PeerHealth()
    health.abandoned(ONE, 0.0, 0.05)
    assert health.record(ONE).shape(0.0) is Shape.GOOD
    health.abandoned(ONE, 0.0, 0.05)
    assert health.record(ONE).shape(0.0) is Shape.POOR
    for _ in range(3):  # requests at once are one failure
        health.abandoned(TWO, 1.0, 0.8)
    assert health.record(TWO).shape(1.0) is Shape.POOR
    health.abandoned(TWO, 2.0, 0.8)
    assert health.record(TWO).shape(2.0) is Shape.SHUNNED
    assert judge(health).standing(TWO, 2.0) is None


def test_the_busier_peer_comes_later() -> None:
    health = PeerHealth()
    health.started(ONE)
    assert standing(TWO, health=health) < standing(ONE, health=health)
    health.ended(ONE)
    assert standing(TWO, health=health) == standing(ONE, health=health)


def test_a_proven_peer_comes_first_until_it_is_crowded() -> None:
    health, known = PeerHealth(), PeerTrust()
    known.proved(ONE, 0.0)
    for _ in range(CROWDED):
        assert standing(ONE, health=health, known=known) < standing(TWO, health=health, known=known)
        health.started(ONE)
    assert standing(ONE, health=health, known=known) > standing(TWO, health=health, known=known)


def test_where_content_is_verified_first_strangers_are_asked_first() -> None:
    known = PeerTrust()
    known.proved(ONE, 0.0)
    careful = Judge(PeerHealth(), known, NO_CAUTION, "", lambda one: "", verified=True)
    assert careful.standing(TWO, 0.0) < careful.standing(ONE, 0.0)  # type: ignore[operator]


@given(st.lists(st.tuples(st.sampled_from(["answered", "abandoned", *Failure]), st.floats(0, 1000)), max_size=300))
def test_no_past_teaches_never_to_hedge_or_to_hedge_at_once_or_to_give_up_for_ever(
    past: list[tuple[str | Failure, float]],
) -> None:
    health = PeerHealth()
    for what, seconds in past:
        if isinstance(what, Failure):
            health.failed(ONE, what, 0.0)
        elif what == "answered":
            health.answered(ONE, seconds)
        else:
            health.abandoned(ONE, 0.0, seconds)
    assert HEDGE_SECONDS_MIN <= health.hedge_seconds <= HEDGE_SECONDS_MAX
    assert health.record(ONE).shape(PENALTY_SECONDS_MAX) is Shape.GOOD


def test_waits_in_vain_teach_to_wait_longer_and_quick_refusals_teach_nothing() -> None:
    health = PeerHealth()
    for _ in range(100):
        health.abandoned(ONE, 0.0, 0.2)
    assert health.hedge_seconds == pytest.approx(0.2)
    for _ in range(100):
        health.failed(ONE, Failure.REFUSED, 0.0)
    assert health.hedge_seconds == pytest.approx(0.2)
    for _ in range(100):
        health.answered(TWO, 0.002)
    assert health.hedge_seconds == HEDGE_SECONDS_MIN


def test_the_memory_of_peers_is_bounded() -> None:
    health, known = PeerHealth(), PeerTrust()
    for number in range(peer_health.PEERS_MAX + 100):
        health.failed(peer(number), Failure.BROKEN, 0)
        known.proved(peer(number), 0.0)
        known.doubt([peer(number)], 0.0)
        known.lied(peer(number), 0.0)
    assert health.peer_count <= peer_health.PEERS_MAX
    assert not known.is_banned(peer(0), 0.0), "the oldest are forgotten"


# --- trust ----------------------------------------------------------------------------------------------------


WARY = Caution(Care.SUSPECTS)
WARY_OF_ONE = Caution(Care.UNPROVEN, frozenset([ONE]), frozenset([ONE]))


def delivered(known: PeerTrust, digest: Digest = LAYER, *senders: PeerId) -> None:
    known.asked(digest, 0.0, from_start=True)
    for sender in senders or (ONE,):
        known.sent(digest, sender, 0.0)
    known.whole(digest, 0.0)


def test_a_liar_is_banned_for_a_while() -> None:
    known = PeerTrust()
    known.proved(ONE, 0.0)
    known.lied(ONE, 0.0)
    assert judge(known=known).standing(ONE, BAN_SECONDS - 1) is None
    assert judge(known=known).standing(ONE, BAN_SECONDS) is not None
    assert not known.is_proven(ONE)


def test_who_sent_what_is_asked_for_again_is_suspect_and_only_the_proven_are_asked() -> None:
    known = PeerTrust()
    known.proved(TWO, 0.0)
    delivered(known)
    caution = known.asked(LAYER, 1.0, from_start=True)
    assert caution == WARY_OF_ONE
    assert not caution.allows(ONE, proven=True)
    assert not caution.allows(peer(3), proven=False)
    assert caution.allows(TWO, proven=True)
    assert known.is_suspect(ONE, 1.0)
    assert standing(ONE, 1.0, known=known).shape is Shape.POOR
    assert standing(ONE, 1.0, known=known) > standing(TWO, 1.0, known=known)
    assert known.asked(LAYER, 2.0, from_start=False) == caution, "a Range retry has to mind the same"
    assert known.asked(OTHER_LAYER, 2.0, from_start=True) == Caution(Care.SUSPECTS, debtors=frozenset([ONE]))


def test_who_was_turned_away_and_comes_again_is_served_by_anyone_hashed() -> None:
    known = PeerTrust()
    delivered(known)
    known.asked(LAYER, 1.0, from_start=True)
    known.turned_away(LAYER, 1.0)
    assert known.asked(LAYER, 2.0, from_start=True) == Caution(Care.HASHED)


def test_the_layers_that_were_cut_short_when_a_pull_failed_are_not_taken_from_whom_it_failed_on() -> None:
    known = PeerTrust()
    delivered(known)  # containerd finds it wrong, and hangs up on the other layer
    known.asked(OTHER_LAYER, 0.0, from_start=True)
    known.sent(OTHER_LAYER, ONE, 0.0)
    again = known.asked(OTHER_LAYER, 1.0, from_start=True)  # the next pull may begin with either
    assert again == WARY_OF_ONE
    assert known.is_suspect(ONE, 1.0)
    known.turned_away(OTHER_LAYER, 1.0)
    assert known.asked(OTHER_LAYER, 2.0, from_start=True) == Caution(Care.HASHED), "the upstream did not help"


def test_a_pull_that_was_cancelled_after_its_first_layer_raises_no_suspicion() -> None:
    known = PeerTrust()
    delivered(known)
    known.settled(LAYER, 0.0)
    known.asked(OTHER_LAYER, 0.0, from_start=True)
    known.sent(OTHER_LAYER, ONE, 0.0)
    assert known.asked(OTHER_LAYER, 1.0, from_start=True) == WARY
    assert not known.is_suspect(ONE, 1.0)


def test_of_whom_content_is_missing_nothing_is_taken_unverified_until_it_turns_up() -> None:
    known = PeerTrust()
    delivered(known)
    assert known.overdue(SETTLE_SECONDS_MAX) == []
    late = SETTLE_SECONDS_MAX + 1
    assert known.overdue(late) == [(LAYER, frozenset([ONE]))]
    assert known.overdue(late) == [], "it is told once"
    known.proved(ONE, 0.0)  # by what is verified: a liar serves that right
    caution = known.asked(OTHER_LAYER, late, from_start=True)
    assert not caution.allows(ONE, proven=True)
    assert caution.allows(TWO, proven=False)
    known.turned_away(OTHER_LAYER, late)
    assert known.asked(OTHER_LAYER, late, from_start=True) == Caution(Care.HASHED), "the upstream did not help"
    assert known.asked(LAYER, late, from_start=True).suspects == {ONE}
    known.settled(LAYER, 0.0)
    third = Digest.of(b"a third layer")
    assert known.asked(third, late, from_start=True).allows(ONE, proven=True)


def test_content_that_turns_up_late_speaks_for_its_senders_too() -> None:
    known = PeerTrust()
    delivered(known)
    known.overdue(SETTLE_SECONDS_MAX + 1)
    known.settled(LAYER, 0.0)
    assert known.is_proven(ONE)
    assert known.asked(OTHER_LAYER, SETTLE_SECONDS_MAX + 1, from_start=True) == WARY


def test_a_suspect_gives_nothing_that_is_passed_on_unverified_until_the_upstream_did_not_help() -> None:
    known = PeerTrust()
    known.doubt([ONE], 0.0)

    def ask(now: float) -> Judge:
        return Judge(PeerHealth(), known, known.asked(LAYER, now, from_start=True), "", lambda one: "")

    assert ask(1.0).standing(ONE, 1.0) is None
    assert ask(1.0).standing(TWO, 1.0) is not None
    verified = Judge(PeerHealth(), known, WARY, "", lambda one: "", verified=True)
    assert verified.standing(ONE, 1.0) is not None, "there it risks nothing"
    known.turned_away(LAYER, 1.0)
    assert ask(2.0).standing(ONE, 2.0) is not None
    fresh = PeerTrust()
    fresh.turned_away(LAYER, 1.0)
    assert fresh.asked(LAYER, 2.0, from_start=True) == WARY, "without suspects nobody was turned away for their sake"


def test_what_the_store_takes_in_proves_its_senders_unless_it_was_asked_for_again() -> None:
    known = PeerTrust()
    delivered(known)
    assert known.unsettled == [LAYER]
    known.settled(LAYER, 0.0)
    assert known.is_proven(ONE)
    assert known.asked(LAYER, 1.0, from_start=True) == WARY, "it was deleted: no suspicion"
    delivered(known, OTHER_LAYER, TWO)
    known.asked(OTHER_LAYER, 1.0, from_start=True)
    known.settled(OTHER_LAYER, 0.0)  # by the upstream's bytes
    assert not known.is_proven(TWO)
    assert known.is_suspect(TWO, 1.0)


def test_what_broke_off_or_is_long_ago_raises_no_suspicion() -> None:
    known = PeerTrust()
    known.asked(LAYER, 0.0, from_start=True)
    known.sent(LAYER, ONE, 0.0)
    assert known.asked(LAYER, 1.0, from_start=False) == WARY
    assert known.asked(LAYER, 1.0, from_start=True) == WARY
    delivered(known)
    assert known.asked(LAYER, SUSPECT_SECONDS + 1, from_start=True) == WARY
    assert not known.is_suspect(ONE, 1.0)


def test_all_who_sent_a_part_are_suspect() -> None:
    known = PeerTrust()
    delivered(known, LAYER, ONE, TWO)
    assert known.asked(LAYER, 1.0, from_start=True).suspects == {ONE, TWO}


def test_a_suspect_is_cleared_by_right_bytes() -> None:
    known = PeerTrust()
    known.doubt([ONE], 0.0)
    known.proved(ONE, 0.0)
    assert not known.is_suspect(ONE, 0.0)


def test_the_memory_of_deliveries_is_bounded() -> None:
    known = PeerTrust()
    for number in range(trust.DELIVERIES_MAX + 10):
        delivered(known, Digest.of(str(number).encode()))
    assert len(known.unsettled) == trust.DELIVERIES_MAX


# --- pace -----------------------------------------------------------------------------------------------------


def test_a_body_without_a_byte_has_stalled() -> None:
    pace = BodyPace()
    assert pace.wait_seconds == STALL_SECONDS_MAX
    assert "no byte" in pace.complaint


def test_a_body_that_crawls_is_too_slow_after_a_while() -> None:
    pace = BodyPace()
    for _ in range(50):
        assert pace.wait_seconds > 0
        pace.came(1000, 0.1)  # 10 kB/s
    assert pace.wait_seconds <= 1e-9
    assert "too slow" in pace.complaint


@given(st.lists(st.floats(0, 1), max_size=200))
def test_a_body_above_the_least_pace_is_never_too_slow(waits: list[float]) -> None:
    pace = BodyPace()
    for seconds in waits:
        pace.came(int(seconds * PIECE_BYTES / PIECE_SECONDS_MAX) + 1, seconds)
        assert pace.wait_seconds > 0


def test_all_waiting_together_can_be_bounded() -> None:
    pace = BodyPace(0.5, 2.0)
    for _ in range(8):
        assert pace.wait_seconds > 0
        pace.came(PIECE_BYTES, 0.25)
    assert pace.wait_seconds == 0


# --- the rest -------------------------------------------------------------------------------------------------


def test_the_budget_is_never_exceeded() -> None:
    budget = MemoryBudget(10)
    assert budget.take(4)
    assert budget.take(6)
    assert not budget.take(1)
    budget.give(4)
    assert budget.take(3)
    assert budget.taken == 9


def test_sizes_are_learned_and_the_oldest_forgotten() -> None:
    sizes = KnownSizes()
    sizes.learn([Descriptor("t", LAYER, 7), Descriptor("t", OTHER_LAYER, 0)], 0.0)
    assert sizes.get(LAYER, 0.0) == {7}
    assert sizes.get(OTHER_LAYER, 0.0) == frozenset(), "0 is what Go writes where there is no size"
    assert sizes.get(None, 0.0) == frozenset()
    assert sizes.get(LAYER, known_sizes.CLAIM_SECONDS_MAX) == frozenset(), "a claim is worth something for one pull"
    others = [Descriptor("t", Digest.of(str(number).encode()), 1) for number in range(known_sizes.SIZES_MAX)]
    sizes.learn(others, 0.0)
    assert sizes.get(LAYER, 0.0) == {7}, "one manifest does not push out all others"
    for start in range(0, len(others), known_sizes.LEARNED_MAX):
        sizes.learn(others[start : start + known_sizes.LEARNED_MAX], 0.0)
    assert sizes.get(LAYER, 0.0) == frozenset()


def test_a_false_size_in_a_manifest_keeps_nobody_out_for_long() -> None:
    sizes = KnownSizes()
    sizes.learn([Descriptor("t", LAYER, 8)], 0.0)
    sizes.learn([Descriptor("t", LAYER, 7)], 0.0)
    assert sizes.get(LAYER, 0.0) == {7, 8}, "two manifests that contradict each other are both believed"
    sizes.prove(LAYER, 7, 0.0)
    sizes.learn([Descriptor("t", LAYER, 8)], 0.0)
    assert sizes.get(LAYER, 0.0) == {7}, "what matched the digest settles it"
    sizes.prove(OTHER_LAYER, 7, 0.0)
    assert sizes.get(OTHER_LAYER, 0.0) == frozenset(), "nothing is kept of what nobody claims anything of"

    sizes.learn([Descriptor("t", OTHER_LAYER, 8)], 0.0)
    for _ in range(10):
        sizes.contradict(OTHER_LAYER, ONE, 7, 0.0)
    sizes.contradict(OTHER_LAYER, TWO, 6, 0.0)
    assert sizes.get(OTHER_LAYER, 0.0) == {8}, "peers that do not agree with each other settle nothing"
    sizes.contradict(OTHER_LAYER, peer(3), 7, 0.0)
    assert sizes.get(OTHER_LAYER, 0.0) == frozenset()


def test_a_size_with_many_claims_is_unknown() -> None:
    sizes = KnownSizes()
    for size in range(1, known_sizes.CLAIMS_MAX + 2):
        sizes.learn([Descriptor("t", LAYER, size)], 0.0)
    assert sizes.get(LAYER, 0.0) == frozenset()


def test_settings_that_do_not_fit() -> None:
    FetchSettings().check()
    FetchSettings(0, 4 << 20).check()
    with pytest.raises(SettingError, match="at least 4MiB"):
        FetchSettings(0, 1 << 20).check()
    with pytest.raises(SettingError, match="--verify-memory-max"):
        FetchSettings(64 << 20, 32 << 20).check()
