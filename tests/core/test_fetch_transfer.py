"""The course of a transfer, under virtual time, for any behaviour of peers."""

from __future__ import annotations

import hashlib
import heapq
from collections.abc import Sequence
from dataclasses import dataclass, replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from speil.fetch.candidates import Judge, Standing
from speil.fetch.pace import STALL_SECONDS_MAX
from speil.fetch.peer_health import Failure, PeerHealth
from speil.fetch.resume import Answer, Extent, Wanted, WrongAnswerError
from speil.fetch.transfer import (
    AGAIN_SEARCH_SECONDS,
    CROSS_ZONE_HEDGE_SECONDS,
    FIRST_BYTE_SECONDS_MAX,
    HOLD_SECONDS_MAX,
    NEAR_SECONDS,
    Abandon,
    Action,
    Ask,
    GiveUp,
    Refuse,
    Search,
    Stream,
    Transfer,
)
from speil.fetch.trust import NO_CAUTION, PeerTrust
from speil.multiformats.peer_id import PeerId
from speil.multiformats.peer_info import PeerInfo
from speil.oci.digest import Digest
from tests.properties import examples

DATA = hashlib.sha256(b"x").digest() * 32
SIZE = len(DATA)
DIGEST = Digest.of(DATA)
TICK = 1e-6


def peer(number: int) -> PeerInfo:
    return PeerInfo(PeerId.of_public_key(hashlib.sha256(bytes([number])).digest()))


@dataclass(frozen=True)
class Behaviour:
    """How a peer acts.

    When the search names it, when its head comes (None: never), what is wrong with the head, after how many bytes its
    body breaks (None: never), whether the break is a stall, and in which zone it is.
    """

    named_at: float = 0.0
    head_after: float | None = 0.001
    fault: str = ""
    breaks_after: int | None = None
    stalls: bool = False
    zone: str = ""


FAULTS = ["", "", "", "404", "503", "refused", "500", "200 to a range", "offset", "size", "short", "no range", "digest"]
BEHAVIOUR = st.builds(
    Behaviour,
    named_at=st.sampled_from([0.0, 0.004, 0.01, 0.1, 1.0]),
    head_after=st.none() | st.sampled_from([0.0005, 0.02, 0.25, 0.7, 3.0]),
    fault=st.sampled_from(FAULTS),
    breaks_after=st.none() | st.integers(0, SIZE - 1),
    stalls=st.booleans(),
    zone=st.sampled_from(["", "a", "b"]),
)
CHEAP = {"404": Failure.GONE, "503": Failure.BUSY, "refused": Failure.REFUSED}


def answer(behaviour: Behaviour, range_header: str) -> Answer:
    """What a peer says to a request, right or wrong."""
    start, stop = 0, SIZE
    if range_header:
        first, _, last = range_header.removeprefix("bytes=").partition("-")
        start, stop = int(first), int(last) + 1 if last else SIZE
    good = (
        Answer(206, stop - start, f"bytes {start}-{stop - 1}/{SIZE}", str(DIGEST))
        if range_header
        else Answer(200, SIZE)
    )
    match behaviour.fault:
        case "200 to a range":
            return Answer(200, SIZE)
        case "offset":
            wrong = min(start + 1, stop - 1)
            return Answer(206, stop - wrong, f"bytes {wrong}-{stop - 1}/{SIZE}")
        case "size":
            return replace(good, length=good.length + 1, content_range=f"bytes {start}-{stop}/{SIZE + 1}")
        case "short":
            return replace(good, length=max(good.length - 1, 0))
        case "no range":
            return replace(good, status=206, content_range="")
        case "digest":
            return replace(good, digest="sha256:" + "00" * 32)
        case _:
            return good


@dataclass
class Outcome:
    """What the client saw, and what it took."""

    body: bytes
    promised: Extent | None
    whole: bool
    longest_wait: float
    first_byte_at: float
    asks: list[tuple[float, PeerInfo, str]]
    searches: int


class World:
    """A transfer against scripted peers. The client's bytes are what the peers' heads claim to send."""

    def __init__(
        self,
        behaviours: Sequence[Behaviour],
        search_seconds: float = 0.02,
        attempts_max: int = 3,
        *,
        zone: str = "",
        range_header: str = "",
        sizes: frozenset[int] = frozenset(),
    ) -> None:
        self.peers = {peer(number).peer_id: (peer(number), one) for number, one in enumerate(behaviours)}
        self.health, self.zone = PeerHealth(), zone
        self.judge = Judge(self.health, PeerTrust(), NO_CAUTION, zone, lambda one: self.peers[one][1].zone)
        self.transfer = Transfer(
            Wanted(DIGEST, range_header, sizes),
            0.0,
            search_seconds=search_seconds,
            attempts_max=attempts_max,
            hedge_seconds=0.05,
        )
        self.now = 0.0
        self.queue: list[tuple[float, int, str, PeerId | None]] = []
        self.ticket = 0
        self.asked: dict[PeerId, tuple[float, str]] = {}
        self.waited_since = 0.0
        self.outcome = Outcome(b"", None, False, 0.0, 0.0, [], 0)

    def plan(self, time: float, kind: str, who: PeerId | None = None) -> None:
        self.ticket += 1
        heapq.heappush(self.queue, (time, self.ticket, kind, who))

    def run(self) -> Outcome:
        for _ in range(20_000):
            if self.transfer.ended:
                return self.outcome
            actions = self.transfer.decide(self.now, lambda one: self.judge.standing(one, self.now))
            self.carry_out(actions)
            if any(isinstance(action, GiveUp) for action in actions):
                self.outcome.longest_wait = max(self.outcome.longest_wait, self.now - self.waited_since)
                return self.outcome
            deadline = self.transfer.next_deadline()
            assert deadline is not None
            assert deadline > self.now or self.queue, "a deadline that has passed was not acted on"
            if self.queue and self.queue[0][0] <= deadline:
                self.now, _, kind, who = heapq.heappop(self.queue)
                self.happens(kind, who)
            else:
                self.now = max(deadline, self.now)
        raise AssertionError("the transfer does not end")

    def happens(self, kind: str, who: PeerId | None) -> None:
        if kind == "search ended":
            self.transfer.search_ended()
            return
        assert who is not None
        if kind == "named":
            self.transfer.found([self.peers[who][0]], self.now)
        elif who in self.asked:
            started, range_header = self.asked[who]
            behaviour = self.peers[who][1]
            if behaviour.fault in (*CHEAP, "500"):
                self.fail(who, CHEAP.get(behaviour.fault, Failure.WRONG))
                return
            actions = self.transfer.answered(who, answer(behaviour, range_header))
            self.health.answered(who, self.now - started)
            self.carry_out(actions)
            if any(isinstance(action, Stream) for action in actions):
                self.stream(who, range_header)

    def fail(self, who: PeerId, failure: Failure) -> None:
        del self.asked[who]
        self.health.failed(who, failure, self.now)
        erred = failure in (Failure.WRONG, Failure.BROKEN)
        self.transfer.failed(who, self.now, cheap=failure.was_quick, erred=erred)

    def stream(self, who: PeerId, range_header: str) -> None:
        behaviour, promised = self.peers[who][1], self.transfer.promised
        assert promised is not None
        assert self.outcome.promised in (None, promised), "what the client was told holds"
        self.outcome.promised = promised
        self.transfer.committed()
        self.outcome.longest_wait = max(self.outcome.longest_wait, self.now - self.waited_since)
        self.outcome.first_byte_at = self.outcome.first_byte_at or self.now
        claim = answer(behaviour, range_header)
        start = int(claim.content_range.split()[1].partition("-")[0]) if claim.content_range else 0
        sends = DATA[start : start + claim.length][: behaviour.breaks_after]
        self.outcome.body += sends
        self.transfer.received(len(sends))
        self.asked.clear()
        if not self.transfer.left:
            self.transfer.finished()
            self.outcome.whole = True
            return
        if behaviour.stalls:
            self.now += STALL_SECONDS_MAX
        self.waited_since = self.now
        self.health.failed(who, Failure.BROKEN, self.now)
        self.transfer.broke(self.now)

    def carry_out(self, actions: list[Action]) -> None:
        for action in actions:
            match action:
                case Search():
                    self.outcome.searches += 1
                    for peer_id, (_, behaviour) in self.peers.items():
                        if behaviour.named_at <= FIRST_BYTE_SECONDS_MAX:
                            self.plan(self.now + behaviour.named_at, "named", peer_id)
                    self.plan(self.now + FIRST_BYTE_SECONDS_MAX, "search ended")
                case Ask(info, range_header):
                    assert info.peer_id not in self.asked, "no peer is asked twice at a time"
                    assert len(self.asked) < 10
                    self.asked[info.peer_id] = (self.now, range_header)
                    self.outcome.asks.append((self.now, info, range_header))
                    after = self.peers[info.peer_id][1].head_after
                    if after is not None:
                        self.plan(self.now + after, "head", info.peer_id)
                case Abandon(info):
                    started, _ = self.asked.pop(info.peer_id)
                    self.health.abandoned(info.peer_id, self.now, self.now - started)
                case Refuse(info):
                    self.fail(info.peer_id, Failure.WRONG)
                case Stream() | GiveUp():
                    pass


RANGES = st.sampled_from(["", "bytes=1-", "bytes=100-299", "bytes=1000-"])


@given(
    st.lists(BEHAVIOUR, max_size=12),
    st.sampled_from([0.02, 0.5, 5.0]),
    st.integers(1, 5),
    st.sampled_from(["", "a"]),
    RANGES,
)
@settings(max_examples=examples(200))
def test_the_client_sees_a_right_prefix_then_all_or_the_end_and_never_waits_long(
    behaviours: list[Behaviour], search_seconds: float, attempts_max: int, zone: str, range_header: str
) -> None:
    outcome = World(
        behaviours, search_seconds, attempts_max, zone=zone, range_header=range_header, sizes=frozenset({SIZE})
    ).run()
    assert outcome.longest_wait <= FIRST_BYTE_SECONDS_MAX + TICK
    if outcome.promised is None:
        assert outcome.body == b""
        return
    start, stop = outcome.promised.start, outcome.promised.stop
    assert DATA[start:stop].startswith(outcome.body), "no wrong byte, none twice, none left out"
    assert outcome.whole == (outcome.body == DATA[start:stop])


@given(st.lists(BEHAVIOUR, max_size=12), st.sampled_from([0.02, 0.5]))
def test_who_sees_no_manifest_still_gets_a_prefix_of_what_the_first_peer_promised(
    behaviours: list[Behaviour], search_seconds: float
) -> None:
    outcome = World(behaviours, search_seconds).run()
    if outcome.promised and outcome.promised.size == SIZE:
        assert DATA.startswith(outcome.body)
        assert outcome.whole == (outcome.body == DATA)


@given(st.lists(BEHAVIOUR, max_size=7))
def test_one_good_peer_that_is_found_in_time_is_enough(behaviours: list[Behaviour]) -> None:
    # as long as not too many others break off before it: BREAKS_MAX is 8
    assert World([Behaviour(), *behaviours], attempts_max=100, sizes=frozenset({SIZE})).run().whole


def test_nobody_found_gives_up_when_the_search_may_take_no_longer() -> None:
    outcome = World([]).run()
    assert not outcome.whole
    assert outcome.longest_wait <= 0.02 + TICK


def test_those_that_do_not_answer_are_waited_for_a_fraction_of_a_second() -> None:
    outcome = World([Behaviour(head_after=None)] * 5).run()
    assert outcome.longest_wait <= FIRST_BYTE_SECONDS_MAX < 1
    assert len(outcome.asks) == 3


def test_fifty_stale_records_cost_fifty_round_trips() -> None:
    stale = [Behaviour(fault="404", head_after=0.001)] * 50
    outcome = World([*stale, Behaviour(named_at=0.001)]).run()
    assert outcome.whole
    assert outcome.first_byte_at < 0.06


def test_those_that_answer_nonsense_hide_nobody_who_is_found_later() -> None:
    liars = [Behaviour(fault="500") for _ in range(6)]
    outcome = World([*liars, Behaviour(named_at=0.1)]).run()
    assert outcome.whole, "nor do they use up the attempts"
    assert World(liars).run().longest_wait <= AGAIN_SEARCH_SECONDS + 0.02


def test_one_that_is_found_while_the_last_one_fails_is_still_asked() -> None:
    late = World([Behaviour(fault="404", head_after=0.015), Behaviour(named_at=0.03)]).run()
    assert late.whole


def test_a_slow_peer_is_hedged() -> None:
    outcome = World([Behaviour(head_after=0.7), Behaviour(head_after=0.01)]).run()
    assert outcome.whole
    assert outcome.longest_wait < 0.1
    assert [info for _, info, _ in outcome.asks] == [peer(0), peer(1)]


def new_transfer(range_header: str = "") -> Transfer:
    wanted = Wanted(DIGEST, range_header=range_header)
    return Transfer(wanted, 0.0, search_seconds=0.02, attempts_max=3, hedge_seconds=0.05)


def fine(peer_id: PeerId) -> Standing | None:
    return Judge(PeerHealth(), PeerTrust(), NO_CAUTION, "", lambda one: "").standing(peer_id, 0.0)


def test_after_a_break_the_search_is_made_anew_and_the_next_peer_goes_on_where_we_are() -> None:
    transfer = new_transfer()
    transfer.found([peer(1)], 0.0)
    assert transfer.decide(0.0, fine) == [Search(), Ask(peer(1), "")]
    transfer.search_ended()
    assert transfer.answered(peer(1).peer_id, Answer(200, SIZE)) == [Stream(peer(1))]
    transfer.committed()
    transfer.received(300)
    transfer.broke(9.0)
    assert transfer.decide(9.0, fine) == [Search()]
    transfer.found([peer(1), peer(2)], 9.1)
    assert transfer.decide(9.1, fine) == [Ask(peer(2), f"bytes=300-{SIZE - 1}")]


def test_when_nobody_else_has_it_the_end_comes_soon_after_the_break() -> None:
    outcome = World([Behaviour(breaks_after=300)]).run()
    assert outcome.body == DATA[:300]
    assert outcome.longest_wait <= AGAIN_SEARCH_SECONDS + TICK


def test_wrong_content_that_was_not_passed_on_binds_nobody_and_is_not_tried_for_ever() -> None:
    transfer, now = new_transfer(), 0.0
    transfer.found(map(peer, range(20)), now)
    while not transfer.ended:
        for action in transfer.decide(now, fine):
            if isinstance(action, Ask):
                assert transfer.answered(action.peer.peer_id, Answer(200, 1000 + transfer.attempts_total))
                now += 0.5  # so long it takes to be read and found wrong
                transfer.broke(now)
                assert transfer.promised is None
    assert now <= HOLD_SECONDS_MAX + 0.5


def test_small_content_is_asked_for_whole_where_a_part_was_wanted() -> None:
    transfer = new_transfer("bytes=5-")
    transfer.found([peer(1)], 0.0)
    assert transfer.decide(0.0, fine) == [Search(), Ask(peer(1), "bytes=5-")]
    assert transfer.answered(peer(1).peer_id, Answer(206, 5, "bytes 5-9/10")) == [Stream(peer(1))]
    transfer.start_over(0.1)
    assert transfer.decide(0.1, fine) == [Ask(peer(1), "")]


@pytest.mark.parametrize("again", ["broke", "start_over"])
def test_where_the_search_ended_with_the_first_good_head_there_is_another_one(again: str) -> None:
    transfer = new_transfer()
    transfer.found([peer(1)], 0.0)
    assert transfer.decide(0.0, fine) == [Search(), Ask(peer(1), "")]
    assert transfer.answered(peer(1).peer_id, Answer(200, 10)) == [Stream(peer(1))]
    transfer.search_ended()
    getattr(transfer, again)(0.1)
    assert Search() in transfer.decide(0.1, fine)
    transfer.found([peer(2)], 0.1)
    transfer.search_ended()
    if again == "start_over":
        transfer.failed(peer(1).peer_id, 0.1)  # what it sent to another request was wrong
    assert Ask(peer(2), "") in transfer.decide(0.1, fine)


# --- zones ----------------------------------------------------------------------------------------------------


@given(st.permutations([Behaviour(zone="a"), *[Behaviour(zone="b")] * 3, Behaviour()]))
def test_with_a_holder_in_the_zone_nobody_else_is_asked(behaviours: list[Behaviour]) -> None:
    outcome = World(behaviours, zone="a").run()
    assert outcome.whole
    assert [behaviours.index(Behaviour(zone="a"))] == [
        number for number in range(5) if peer(number) in [info for _, info, _ in outcome.asks]
    ]


def test_a_nearer_holder_that_the_search_finds_a_moment_later_is_waited_for() -> None:
    outcome = World([Behaviour(zone="b"), Behaviour(named_at=0.004, zone="a")], zone="a").run()
    assert [info for _, info, _ in outcome.asks] == [peer(1)]


def test_without_a_holder_in_the_zone_it_takes_milliseconds_longer_at_most() -> None:
    far = World([Behaviour(zone="b")] * 3, zone="a").run()
    near = World([Behaviour(zone="b")] * 3, zone="b").run()
    assert far.whole
    assert far.first_byte_at - near.first_byte_at <= NEAR_SECONDS + TICK


def test_who_tells_no_zone_comes_between() -> None:
    outcome = World([Behaviour(zone="b"), Behaviour()], zone="a").run()
    assert [info for _, info, _ in outcome.asks] == [peer(1)]


def test_a_slow_holder_in_the_zone_is_hedged_by_its_neighbours_first() -> None:
    outcome = World([Behaviour(zone="a", head_after=0.25), Behaviour(zone="b")], zone="a").run()
    assert [info for _, info, _ in outcome.asks] == [peer(0)], "a quarter of a second is no reason to leave the zone"
    silent = World([Behaviour(zone="a", head_after=None), Behaviour(zone="b")], zone="a").run()
    assert silent.whole
    assert silent.first_byte_at <= CROSS_ZONE_HEDGE_SECONDS + 0.01


def test_a_holder_in_the_zone_that_lost_it_costs_a_round_trip() -> None:
    outcome = World([Behaviour(zone="a", fault="404"), Behaviour(zone="b")], zone="a").run()
    assert outcome.whole
    assert outcome.first_byte_at <= NEAR_SECONDS + 0.003


# --- answers --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wanted", "given_answer", "found"),
    [
        (Wanted(DIGEST), Answer(200, 10), Extent(0, 10, 10)),
        (Wanted(DIGEST), Answer(200, 0), Extent(0, 0, 0)),
        (Wanted(DIGEST, range_header="bytes=4-"), Answer(206, 6, "bytes 4-9/10"), Extent(4, 10, 10)),
        (Wanted(DIGEST, range_header="bytes=4-"), Answer(200, 10), Extent(0, 10, 10)),
        (Wanted(DIGEST, range_header="bytes=4-6"), Answer(206, 3, "bytes 4-6/10"), Extent(4, 7, 10)),
        (Wanted(DIGEST, range_header="bytes=4-99"), Answer(206, 6, "bytes 4-9/10"), Extent(4, 10, 10)),
        (Wanted(DIGEST, range_header="bytes=-4"), Answer(206, 4, "bytes 6-9/10"), Extent(6, 10, 10)),
        (Wanted(DIGEST, range_header="bytes=-40"), Answer(206, 10, "bytes 0-9/10"), Extent(0, 10, 10)),
        (Wanted(DIGEST, sizes=frozenset({7, 10})), Answer(200, 10), Extent(0, 10, 10)),
        (Wanted(DIGEST, sizes=frozenset({10}), checked_bytes_max=9), Answer(200, 9), Extent(0, 9, 9)),
    ],
)
def test_good_answers(wanted: Wanted, given_answer: Answer, found: Extent) -> None:
    assert wanted.check(given_answer, None, 0) == found


@pytest.mark.parametrize(
    ("wanted", "given_answer"),
    [
        (Wanted(DIGEST), Answer(206, 6, "bytes 4-9/10")),  # a part of what was to be all
        (Wanted(DIGEST), Answer(204, 0)),
        (Wanted(DIGEST, sizes=frozenset({10})), Answer(200, 9)),
        (Wanted(DIGEST, sizes=frozenset({10})), Answer(206, 6, "bytes 5-10/11")),
        (Wanted(DIGEST, range_header="bytes=4-"), Answer(206, 5, "bytes 5-9/10")),
        (Wanted(DIGEST, range_header="bytes=4-"), Answer(206, 5, "bytes 4-8/10")),
        (Wanted(DIGEST, range_header="bytes=4-"), Answer(206, 7, "bytes 4-9/10")),
        (Wanted(DIGEST, range_header="bytes=4-"), Answer(206, 6, "bytes 4-9/*")),
        (Wanted(DIGEST, range_header="bytes=4-"), Answer(206, 6, "bytes 9-4/10")),
        (Wanted(DIGEST, range_header="bytes=-4"), Answer(206, 5, "bytes 5-9/10")),
        (Wanted(DIGEST), Answer(200, 10, digest="sha256:" + "11" * 32)),
        (Wanted(DIGEST, sizes=frozenset({10}), checked_bytes_max=8), Answer(200, 9)),
        (Wanted(None), Answer(200, 10)),  # a tag without its digest
    ],
)
def test_wrong_answers(wanted: Wanted, given_answer: Answer) -> None:
    with pytest.raises(WrongAnswerError):
        wanted.check(given_answer, None, 0)


@pytest.mark.parametrize(
    ("wanted", "size", "is_believed"),
    [
        (Wanted(DIGEST, "bytes=10-"), 10, True),
        (Wanted(DIGEST, "bytes=10-"), 11, False),  # there is a byte at 10, it says itself
        (Wanted(DIGEST, "bytes=0-4"), 1, False),
        (Wanted(DIGEST, "bytes=10-", frozenset({20})), 10, False),
        (Wanted(DIGEST, "bytes=10-", frozenset({20, 10})), 10, True),
        (Wanted(DIGEST, ""), 10, False),
    ],
)
def test_a_refusal_is_believed_where_it_can_be_true(wanted: Wanted, size: int, is_believed: bool) -> None:
    try:
        wanted.check_refusal(size)
    except WrongAnswerError:
        assert not is_believed
    else:
        assert is_believed


@given(st.integers(0, 100), st.integers(1, 100), st.integers(1, 300), st.integers(0, 99))
def test_going_on_takes_the_very_next_byte(first: int, length: int, size: int, offset: int) -> None:
    promised = Extent(50, 80, 100)
    size = max(size, first + length)
    given_answer = Answer(206, length, f"bytes {first}-{first + length - 1}/{size}")
    fits = (first, first + length, size) == (50 + offset, 80, 100)
    try:
        Wanted(DIGEST, range_header="bytes=50-79").check(given_answer, promised, offset)
    except WrongAnswerError:
        assert not fits
    else:
        assert fits
