"""The asker: what a node does on a miss, how long it waits for what, and that it always ends."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from speil.claims import pull as pull_module
from speil.claims.action import (
    Action,
    AskSource,
    AskUmpire,
    GoUpstream,
    Join,
    Leave,
    SendRelease,
    UseHolders,
)
from speil.claims.asker import (
    FAILURES_MAX,
    HOLD_SECONDS_MAX,
    MOVES_MAX,
    SHARE_WAIT_SECONDS,
    SPOILED_SECONDS,
    Asker,
)
from speil.claims.message import (
    AVOIDED_MAX,
    Alone,
    Answer,
    Ask,
    Defer,
    Ending,
    Fetch,
    Follow,
    Holders,
    Phase,
    Reason,
    Release,
    Status,
    Why,
    tag,
)
from speil.claims.pull import ASK_ALL_SECONDS_MAX, ASK_SECONDS_MAX, LIFE_SECONDS_MAX, REPLACE_SECONDS, Facts
from speil.claims.questions import DEFERS_MAX, UMPIRES_ASKED_MAX
from speil.claims.reputation import DISTRUST_SECONDS
from speil.claims.states import HELD, PULL, PullState, after
from tests.core.test_kad import peer
from tests.properties import examples

KEY = b"\x12\x20" + bytes(32)
ME, UMPIRE, SOURCE, OTHER = peer(1), peer(2), peer(3), peer(4)
UMPIRES = [UMPIRE, peer(20), peer(21), peer(22), peer(23), ME]
FACTS = Facts(100 << 20)


def asker() -> Asker:
    return Asker(ME.peer_id)


def following(one: Asker, now: float = 0.0) -> None:
    """It asked at `now`, and follows SOURCE."""
    one.miss(KEY, UMPIRES, FACTS, now)
    assert one.answered(KEY, UMPIRE.peer_id, Follow(SOURCE), now) == [Join(KEY, SOURCE, 0)]


def state(one: Asker) -> PullState:
    pull = one.pull(KEY)
    assert pull is not None
    return pull.state


def wait(one: Asker, now: float, status: Status | None) -> tuple[float, list[Action]]:
    """Let time pass until something else than a question to the source is due. Each is answered with `status`."""
    for _ in range(1_000):
        at = one.next_deadline()
        assert at is not None
        assert at > now, "a deadline is ahead, or the driver would not end"
        now, actions = at, one.tick(at)
        if any(not isinstance(action, AskSource) for action in actions):
            return now, actions
        if actions and status is not None:
            followed = actions[0]
            assert isinstance(followed, AskSource)
            if more := one.source_said(KEY, followed.source.peer_id, status, now):
                return now, more
    raise AssertionError("nothing happens")


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (Fetch(), [GoUpstream(KEY, claimed=True)]),
        (Follow(SOURCE), [Join(KEY, SOURCE, 0)]),
        (Holders((SOURCE, OTHER)), [UseHolders(KEY, (SOURCE, OTHER), 0)]),
        (Alone(Why.LIMIT), [GoUpstream(KEY, claimed=False)]),
        (Defer(OTHER), [AskUmpire(KEY, OTHER, Ask(size_bytes=FACTS.size_bytes))]),
    ],
)
def test_each_answer_leads_to_one_step(answer: Answer, expected: list[Action]) -> None:
    one = asker()
    assert one.miss(KEY, UMPIRES, FACTS, 0) == [AskUmpire(KEY, UMPIRE, Ask(size_bytes=FACTS.size_bytes))]
    assert one.answered(KEY, UMPIRE.peer_id, answer, 0.002) == expected


def test_with_no_node_to_ask_and_with_sharing_off_nothing_is_held() -> None:
    assert asker().miss(KEY, [], FACTS, 0) == [GoUpstream(KEY, claimed=False)]
    assert Asker(ME.peer_id, 0.0).miss(KEY, UMPIRES, FACTS, 0) == [GoUpstream(KEY, claimed=False)]


def test_umpires_have_a_tenth_of_a_second_each_and_the_next_is_told_who_is_dead() -> None:
    one, now = asker(), 0.0
    actions = one.miss(KEY, UMPIRES, FACTS, now)
    asked = []
    while actions and isinstance(action := actions[0], AskUmpire):
        asked.append(action.umpire)
        assert action.ask.dead == tuple(peer.peer_id for peer in asked[:-1])
        assert one.next_deadline() == pytest.approx(now + ASK_SECONDS_MAX)
        now = one.next_deadline() or 0
        actions = one.tick(now)
    assert actions == []
    now = one.next_deadline() or 0
    assert now == ASK_ALL_SECONDS_MAX
    actions = one.tick(now)
    assert asked == UMPIRES[:UMPIRES_ASKED_MAX]
    assert actions == [GoUpstream(KEY, claimed=False)]
    # the next pull does not wait for them again
    assert [one.umpire for one in one.miss(b"x", UMPIRES, FACTS, now) if isinstance(one, AskUmpire)] == [UMPIRES[4]]


def test_the_first_answer_counts_also_where_the_next_umpire_was_asked_meanwhile() -> None:
    one = asker()
    one.miss(KEY, UMPIRES, FACTS, 0)
    one.tick(ASK_SECONDS_MAX)
    assert one.answered(KEY, UMPIRE.peer_id, Fetch(), 0.15) == [GoUpstream(KEY, claimed=True)]
    assert one.answered(KEY, UMPIRES[1].peer_id, Follow(SOURCE), 0.16) == []


def test_each_umpire_that_may_have_placed_this_node_is_told_when_the_pull_ends() -> None:
    one = asker()
    one.miss(KEY, UMPIRES, FACTS, 0)
    one.answered(KEY, UMPIRE.peer_id, Defer(OTHER), 0.01)  # placed nobody
    one.tick(0.01 + ASK_SECONDS_MAX)
    one.unanswered(KEY, UMPIRE.peer_id, 0.6)  # the answer to the second question was lost
    one.answered(KEY, UMPIRES[1].peer_id, Follow(SOURCE), 0.7)
    release = Release(Ending.CANCELLED)
    assert one.cancelled(KEY) == [SendRelease(KEY, umpire, release) for umpire in (OTHER, *UMPIRES[:2])]


def test_a_node_without_claims_is_passed_over_at_once() -> None:
    one = asker()
    one.miss(KEY, UMPIRES, FACTS, 0)
    actions = one.unanswered(KEY, UMPIRE.peer_id, 0.001)
    assert [action.umpire for action in actions if isinstance(action, AskUmpire)] == [UMPIRES[1]]


def test_umpires_that_name_each_other_are_left() -> None:
    one = asker()
    actions, asked = one.miss(KEY, UMPIRES, FACTS, 0), 0
    while actions and isinstance(action := actions[0], AskUmpire):
        asked += 1
        actions = one.answered(KEY, action.umpire.peer_id, Defer(peer(50 + asked)), 0.0)
        assert asked < 50
    assert actions == [GoUpstream(KEY, claimed=False)]
    assert asked <= DEFERS_MAX + UMPIRES_ASKED_MAX


def test_containerds_next_request_while_it_fetches_gets_the_same_answer_and_asks_nobody() -> None:
    one = asker()
    one.miss(KEY, UMPIRES, FACTS, 0)
    assert one.miss(KEY, UMPIRES, FACTS, 0) == []
    one.answered(KEY, UMPIRE.peer_id, Fetch(), 0)
    assert one.miss(KEY, UMPIRES, FACTS, 1) == [GoUpstream(KEY, claimed=True)]


def test_a_source_without_a_sign_of_life_is_left_after_a_second() -> None:
    one = asker()
    following(one)
    now, actions = wait(one, 0, None)
    assert now == pytest.approx(LIFE_SECONDS_MAX)
    assert actions[0] == Leave(KEY, SOURCE, Reason.SILENT)
    ask = actions[1]
    assert isinstance(ask, AskUmpire)
    assert (ask.ask.reason, ask.ask.source, ask.ask.avoided) == (Reason.SILENT, SOURCE.peer_id, (SOURCE.peer_id,))


@pytest.mark.parametrize(
    ("status", "seconds"),
    [
        (Status(Phase.FETCHING), 3.0),
        (Status(Phase.COMPLETE), 3.0),
        (Status(Phase.FOLLOWING, 0, (7, 8)), 3.0 + REPLACE_SECONDS),
    ],
)
def test_a_source_that_is_alive_and_sends_no_byte_is_left_after_the_share_wait(status: Status, seconds: float) -> None:
    one = asker()
    following(one)
    now, actions = wait(one, 0, status)
    assert now == pytest.approx(seconds, abs=0.01)
    assert actions[0] == Leave(KEY, SOURCE, Reason.NO_BYTE)
    assert seconds <= 4.0


def test_bytes_are_a_sign_of_life_and_ask_no_question() -> None:
    one, now = asker(), 0.0
    following(one)
    for step in range(1, 200):
        now = step * 0.1
        one.received(KEY, step * 1_000_000, now)
        assert one.tick(now) == []
    assert state(one) is PullState.RECEIVING


def test_where_another_node_begins_to_fetch_the_wait_begins_anew_but_not_for_ever() -> None:
    one, now = asker(), 0.0
    following(one)
    for number in range(1_000):
        now = one.next_deadline() or 0
        actions = one.tick(now)
        if any(isinstance(action, Leave) for action in actions):
            break
        for _ in actions:
            one.source_said(KEY, SOURCE.peer_id, Status(Phase.FOLLOWING, 0, (number,)), now)
    assert 4.0 < now < 8.0


def test_a_source_that_follows_this_node_is_left_at_once() -> None:
    one = asker()
    following(one)
    actions = one.source_said(KEY, SOURCE.peer_id, Status(Phase.FOLLOWING, 0, (5, tag(ME.peer_id))), 0.5)
    assert actions[0] == Leave(KEY, SOURCE, Reason.LOOP)


def test_a_source_without_the_content_is_left_at_once() -> None:
    one = asker()
    following(one)
    assert one.source_said(KEY, SOURCE.peer_id, Status(Phase.NONE), 0.5)[0] == Leave(KEY, SOURCE, Reason.GONE)


def test_a_crawling_fetcher_is_left_once_and_a_slow_source_for_another_reason() -> None:
    for status, reason in (
        (Status(Phase.FETCHING, 100_000), Reason.CRAWLING),
        (Status(Phase.COMPLETE, 0), Reason.SLOW),
        (Status(Phase.FOLLOWING, 90 << 20, (1,)), Reason.SLOW),
    ):
        one, now, left = asker(), 0.0, list[Action]()
        following(one)
        while not left:
            now = round(now + 0.1, 3)
            assert now < 6
            one.received(KEY, int(now * 10_000), now)
            for action in one.tick(now):
                if isinstance(action, AskSource):
                    left += one.source_said(KEY, SOURCE.peer_id, status, now)
        assert left[0] == Leave(KEY, SOURCE, reason)
        assert now >= 3.0


def test_a_source_that_has_just_begun_to_fetch_is_not_taken_for_a_slow_one() -> None:
    one, now, answers = asker(), 0.0, 0
    following(one)
    while now < 3.9:
        now = round(now + 0.1, 3)
        one.received(KEY, int(now * 10_000), now)  # what the fetcher before it sent
        for action in one.tick(now):
            assert isinstance(action, AskSource)
            said = Status(Phase.FETCHING, 30_000 + answers * 1_000_000)
            answers += 1
            assert one.source_said(KEY, SOURCE.peer_id, said, now) == []
    assert answers == 2
    assert state(one) is PullState.RECEIVING


def test_a_slow_pull_beside_a_fast_one_is_slow_and_one_that_waits_with_its_source_stays() -> None:
    one, now = asker(), 0.0
    following(one)
    one.miss(b"fast", UMPIRES, FACTS, 0)
    one.answered(b"fast", UMPIRE.peer_id, Fetch(), 0)
    questions = 0
    while now < 10:
        now = round(now + 0.1, 3)
        one.received(KEY, int(now * 200_000), now)
        one.received(b"fast", int(now * 20_000_000), now)
        for action in one.tick(now):
            assert isinstance(action, AskSource)
            questions += 1
            said = Status(Phase.FOLLOWING, int(now * 200_000) + 1_000, (1,))
            assert one.source_said(KEY, SOURCE.peer_id, said, now) == []
    assert 2 <= questions <= 4
    assert state(one) is PullState.RECEIVING


def test_content_of_little_patience_goes_upstream_in_time() -> None:
    one = asker()
    one.miss(KEY, UMPIRES, Facts(2_000, patience_seconds=0.3), 0)
    one.answered(KEY, UMPIRE.peer_id, Follow(SOURCE), 0.002)
    assert one.next_deadline() == pytest.approx(0.3)
    assert one.tick(0.3) == [Leave(KEY, SOURCE, Reason.NO_BYTE), GoUpstream(KEY, claimed=False)]


@pytest.mark.parametrize("has_bytes", [True, False], ids=["large", "small"])
def test_a_liar_is_avoided_after_another_source_sent_bytes(has_bytes: bool) -> None:
    one = asker()
    following(one)
    now, _ = wait(one, 0, Status(Phase.FETCHING))
    one.answered(KEY, UMPIRE.peer_id, Follow(OTHER), now)
    if has_bytes:
        one.received(KEY, 1_000, now + 0.1)
    one.completed(KEY, now + 0.2)
    for later, avoided in ((now + 1, (SOURCE.peer_id,)), (now + 1 + DISTRUST_SECONDS, ())):
        (ask,) = one.miss(b"next", UMPIRES, FACTS, later)
        assert isinstance(ask, AskUmpire)
        assert ask.ask.avoided == avoided
        one.cancelled(b"next")


@pytest.mark.parametrize(
    ("phase", "after", "avoided"),
    [
        (Phase.FETCHING, 0.2, True),
        (Phase.FETCHING, 0.6, False),  # the upstream may take as long for the source
        (Phase.FOLLOWING, 0.2, False),  # the source waits itself
    ],
)
def test_a_claimer_of_a_manifest_is_avoided_for_its_layers(phase: Phase, after: float, avoided: bool) -> None:
    one = asker()
    one.miss(KEY, UMPIRES, Facts(2_000, patience_seconds=1.0), 0)
    one.answered(KEY, UMPIRE.peer_id, Follow(SOURCE), 0.002)
    one.source_said(KEY, SOURCE.peer_id, Status(phase), 0.6)
    assert one.tick(1.0) == [Leave(KEY, SOURCE, Reason.NO_BYTE), GoUpstream(KEY, claimed=False)]
    one.completed(KEY, 1.0 + after)
    (ask,) = one.miss(b"layer", UMPIRES, FACTS, 1.0 + after)
    assert isinstance(ask, AskUmpire)
    assert ask.ask.avoided == ((SOURCE.peer_id,) if avoided else ())


def test_with_a_slow_upstream_nobody_is_distrusted() -> None:
    one = asker()
    following(one)
    now, _ = wait(one, 0, Status(Phase.FETCHING))
    one.answered(KEY, UMPIRE.peer_id, Follow(OTHER), now)
    now, _ = wait(one, now, Status(Phase.FETCHING))
    one.answered(KEY, UMPIRE.peer_id, Follow(SOURCE), now)
    one.completed(KEY, now + SHARE_WAIT_SECONDS)
    (ask,) = one.miss(b"next", UMPIRES, FACTS, now)
    assert isinstance(ask, AskUmpire)
    assert ask.ask.avoided == ()


@pytest.mark.parametrize("reason", [Reason.GONE, Reason.FULL])
def test_after_a_number_of_sources_it_goes_upstream(reason: Reason) -> None:
    one, moves, sources = asker(), 0, [SOURCE, OTHER]
    following(one)
    while True:
        moves += 1
        actions = one.refused(KEY, sources[0].peer_id, reason, 0.1)
        if isinstance(actions[-1], GoUpstream):
            break
        sources.reverse()
        one.answered(KEY, UMPIRE.peer_id, Follow(sources[0]), 0.1)
    assert moves == (FAILURES_MAX if reason is Reason.GONE else MOVES_MAX) + 1


def test_no_liars_together_hold_a_request_for_longer_than_the_bound() -> None:
    one, now, sources = asker(), 0.0, [SOURCE, OTHER]
    following(one)
    while True:
        now, actions = wait(one, now, Status(Phase.FOLLOWING, 0, (9,)))
        if isinstance(actions[-1], GoUpstream):
            break
        sources.reverse()
        one.answered(KEY, UMPIRE.peer_id, Follow(sources[0]), now)
    assert now <= HOLD_SECONDS_MAX + 4.0


@pytest.mark.parametrize("answer", [Follow(SOURCE), Holders((SOURCE,))], ids=["follow", "holders"])
def test_an_umpire_that_names_the_source_that_failed_is_passed_over(answer: Answer) -> None:
    one = asker()
    following(one)
    now, _ = wait(one, 0, Status(Phase.FETCHING))
    (ask,) = one.answered(KEY, UMPIRE.peer_id, answer, now)
    assert isinstance(ask, AskUmpire)
    assert ask.umpire == UMPIRES[1]
    assert UMPIRE.peer_id in ask.ask.dead
    assert one.answered(KEY, UMPIRES[1].peer_id, Fetch(), now) == [GoUpstream(KEY, claimed=True)]
    (ask,) = one.miss(b"next", UMPIRES, FACTS, now)
    assert isinstance(ask, AskUmpire)
    assert ask.umpire == UMPIRES[1], "it is left out for a while"


@pytest.mark.parametrize("reason", [Reason.FULL, Reason.GONE])
def test_a_source_that_was_only_full_may_be_named_again(reason: Reason) -> None:
    one = asker()
    following(one)
    one.refused(KEY, SOURCE.peer_id, reason, 0.1)
    actions = one.answered(KEY, UMPIRE.peer_id, Follow(SOURCE), 0.2)
    assert (actions == [Join(KEY, SOURCE, 0)]) == (reason is Reason.FULL)


@pytest.mark.parametrize("is_whole", [True, False])
def test_a_source_of_wrong_bytes_is_avoided_for_other_content(is_whole: bool) -> None:
    one = asker()
    following(one)
    one.received(KEY, 1_000, 0.1)
    if is_whole:
        one.delivered(KEY)
    assert one.spoiled(KEY, 0.2) == [SendRelease(KEY, UMPIRE, Release(Ending.SPOILED))]
    (ask,) = one.miss(b"next", UMPIRES, FACTS, 0.3)
    assert isinstance(ask, AskUmpire)
    assert ask.ask.avoided == (SOURCE.peer_id,)


def test_a_source_that_is_avoided_is_not_followed_for_other_content() -> None:
    one = asker()
    following(one)
    now, _ = wait(one, 0, None)  # no sign of life
    one.answered(KEY, UMPIRE.peer_id, Fetch(), now)
    one.miss(b"next", UMPIRES, FACTS, now)
    (ask,) = one.answered(b"next", UMPIRE.peer_id, Follow(SOURCE), now)
    assert isinstance(ask, AskUmpire)
    assert ask.umpire == UMPIRES[1]


def test_a_cancelled_download_is_released_and_a_spoiled_one_is_not_shared_for_a_while() -> None:
    one = asker()
    assert one.cancelled(KEY) == []
    following(one)
    assert one.cancelled(KEY) == [SendRelease(KEY, UMPIRE, Release(Ending.CANCELLED))]
    following(one, 1.0)
    assert one.spoiled(KEY, 2.0) == [SendRelease(KEY, UMPIRE, Release(Ending.SPOILED))]
    assert one.miss(KEY, UMPIRES, FACTS, 3.0) == [GoUpstream(KEY, claimed=False)]
    assert isinstance(one.miss(KEY, UMPIRES, FACTS, 2.1 + SPOILED_SECONDS)[0], AskUmpire)


def test_what_a_follower_is_told_of_each_state() -> None:
    one = asker()
    assert one.status(KEY, is_stored=False) == Status(Phase.NONE)
    assert one.status(KEY, is_stored=True) == Status(Phase.COMPLETE)
    following(one)
    one.received(KEY, 5, 0.1)
    assert one.status(KEY, is_stored=False) == Status(Phase.FOLLOWING, 5, (tag(SOURCE.peer_id),))
    one.source_said(KEY, SOURCE.peer_id, Status(Phase.FOLLOWING, 9, (7,)), 0.2)
    assert one.status(KEY, is_stored=False) == Status(Phase.FOLLOWING, 5, (tag(SOURCE.peer_id), 7))
    one.refused(KEY, SOURCE.peer_id, Reason.GONE, 0.3)
    assert one.status(KEY, is_stored=False) == Status(Phase.FOLLOWING, 5)
    one.answered(KEY, UMPIRE.peer_id, Fetch(), 0.3)
    one.received(KEY, 70, 0.4)
    assert one.status(KEY, is_stored=False) == Status(Phase.FETCHING, 70)


def test_content_that_was_delivered_is_not_waited_for() -> None:
    one = asker()
    following(one)
    one.received(KEY, 70, 0.1)
    one.delivered(KEY)
    assert one.next_deadline() is None
    assert one.miss(KEY, UMPIRES, FACTS, 9.0) == []
    assert one.status(KEY, is_stored=False) == Status(Phase.COMPLETE)
    assert one.spoiled(KEY, 10.0) == [SendRelease(KEY, UMPIRE, Release(Ending.SPOILED))]
    assert one.is_spoiled(KEY, 11.0)


def test_a_containerd_that_takes_nothing_is_not_the_fault_of_the_source() -> None:
    one = asker()
    following(one)
    one.received(KEY, 70, 0.1)
    for tenth in range(1, 100):
        one.held_up(KEY, tenth / 10)
        assert one.tick(tenth / 10) == []
    one.source_said(KEY, SOURCE.peer_id, Status(Phase.FETCHING, 70), 10.0)
    assert state(one) is PullState.RECEIVING


def run_random(rng: Random) -> None:
    """Whatever answers, statuses, failures and silences come: it waits ahead, and ends within a bound."""
    one, now, byte_at, offset = asker(), 0.0, 0.0, 0
    actions = one.miss(KEY, UMPIRES, FACTS, now)
    for _ in range(400):
        pull = one.pull(KEY)
        if pull is None or pull.state not in HELD | {PullState.WITH_HOLDERS}:
            break
        assert pull.state is PullState.WITH_HOLDERS or now <= byte_at + HOLD_SECONDS_MAX + 9.0
        for action in actions:
            match action:
                case AskUmpire() if rng.random() < 0.9:
                    answers: list[Answer] = [
                        Fetch(),
                        Follow(peer(rng.randrange(200, 230))),
                        Follow(peer(rng.randrange(300, 330))),
                        Holders((peer(rng.randrange(200, 230)),)),
                        Defer(peer(rng.randrange(60))),
                    ]
                    weights = [1, 9, 9, 3, 3]
                    one.answered(KEY, action.umpire.peer_id, rng.choices(answers, weights)[0], now)
                case AskSource() if rng.random() < 0.8:
                    status = Status(rng.choice(list(Phase)), rng.randrange(1 << 24), (rng.randrange(3),))
                    one.source_said(KEY, action.source.peer_id, status, now)
        pull = one.pull(KEY)
        if pull and pull.source and rng.random() < 0.1:
            actions = one.refused(KEY, pull.source.peer_id, rng.choice((Reason.GONE, Reason.FULL)), now)
            for action in actions:
                if isinstance(action, AskUmpire):
                    one.answered(KEY, action.umpire.peer_id, Follow(peer(rng.randrange(400, 430))), now)
        if one.pull(KEY) and rng.random() < 0.1:
            offset, byte_at = offset + 50_000, now
            one.received(KEY, offset, now)
        if rng.random() < 0.05:
            one.miss(KEY, UMPIRES, FACTS, now)
        if rng.random() < 0.01:
            one.cancelled(KEY) if rng.random() < 0.5 else one.completed(KEY, now)
        at = one.next_deadline()
        now = max(now, at) if at is not None else now + 1
        actions = one.tick(now)
        after_tick = one.next_deadline()
        assert after_tick is None or after_tick > now or actions
        for action in actions:
            if isinstance(action, AskUmpire):
                assert len(action.ask.avoided) <= AVOIDED_MAX


@settings(max_examples=examples(100), deadline=None)
@given(st.integers(0, 2**32))
def test_whatever_others_do_a_pull_never_waits_without_a_bound(seed: int) -> None:
    run_random(Random(seed))


def test_every_row_of_the_table_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    taken = set()

    def record(table, state, event):  # type: ignore[no-untyped-def]
        taken.add((state, event))
        return after(table, state, event)

    monkeypatch.setattr(pull_module, "after", record)
    for seed in range(800):
        run_random(Random(seed))

    def end(one: Asker, *, is_complete: bool) -> None:
        if is_complete:
            one.completed(KEY, 0.2)
        else:
            one.cancelled(KEY)
        assert len(one) == 0

    for is_complete in (True, False):
        for answer in (None, Fetch(), Alone(Why.LIMIT), Follow(SOURCE), Holders((SOURCE,))):
            one = asker()
            one.miss(KEY, UMPIRES, FACTS, 0)
            if answer is not None:
                one.answered(KEY, UMPIRE.peer_id, answer, 0)
                one.miss(KEY, UMPIRES, FACTS, 0)
                one.received(KEY, 1, 0.1)
            end(one, is_complete=is_complete)
        for answer in (Follow(SOURCE), Holders((SOURCE,))):
            one = asker()
            one.miss(KEY, UMPIRES, FACTS, 0)
            one.answered(KEY, UMPIRE.peer_id, answer, 0)
            one.received(KEY, 1, 0.1)
            one.delivered(KEY)
            one.miss(KEY, UMPIRES, FACTS, 0.2)
            end(one, is_complete=is_complete)
    missing = {(state, event) for state, row in PULL.items() for event in row} - taken
    assert not missing, sorted((state.name, event.name) for state, event in missing)
