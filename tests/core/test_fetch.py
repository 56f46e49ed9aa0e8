"""The course of a transfer, under virtual time, for any behaviour of peers."""

from __future__ import annotations

import hashlib
import heapq
from dataclasses import dataclass

from hypothesis import given, settings
from hypothesis import strategies as st

from speil.fetch.peer_health import HEDGE_SECONDS_MAX, HEDGE_SECONDS_MIN, PEERS_MAX, PENALTY_SECONDS_MAX, PeerHealth
from speil.fetch.transfer import STALL_SECONDS_MAX, STRETCH_SECONDS_MAX, Abandon, Ask, GiveUp, Transfer
from speil.multiformats.peer_id import PeerId
from speil.multiformats.peer_info import PeerInfo

SIZE = 1000


def peer(number: int) -> PeerInfo:
    return PeerInfo(PeerId.of_public_key(hashlib.sha256(bytes([number])).digest()))


@dataclass(frozen=True)
class Behaviour:
    """How a peer acts: when the search names it, when its head comes and whether it is good, where its body breaks."""

    named_at: float
    head_after: float | None  # None: never
    head_good: bool
    breaks_after: int | None  # bytes it delivers; None: all
    stalls: bool


BEHAVIOUR = st.builds(
    Behaviour,
    named_at=st.sampled_from([0.0, 0.005, 0.1, 1.0]),
    head_after=st.none() | st.sampled_from([0.001, 0.02, 0.5, 3.0]),
    head_good=st.booleans(),
    breaks_after=st.none() | st.integers(0, SIZE - 1),
    stalls=st.booleans(),
)


@dataclass
class Outcome:
    delivered: list[tuple[int, int]]
    whole: bool
    longest_wait: float
    asks: list[PeerInfo]


def simulate(behaviours: list[Behaviour], search_seconds: float, attempts_max: int) -> Outcome:
    """Run a transfer against scripted peers; what the client saw."""
    peers = {peer(number).peer_id: behaviour for number, behaviour in enumerate(behaviours)}
    infos = {peer(number).peer_id: peer(number) for number in range(len(behaviours))}
    transfer = Transfer(0.0, search_seconds=search_seconds, attempts_max=attempts_max, hedge_seconds=0.05)
    queue: list[tuple[float, int, str, PeerId | None]] = []
    ticket = 0

    def plan(time: float, kind: str, who: PeerId | None) -> None:
        nonlocal ticket
        ticket += 1
        heapq.heappush(queue, (time, ticket, kind, who))

    for peer_id, behaviour in peers.items():
        if behaviour.named_at <= search_seconds:
            plan(behaviour.named_at, "named", peer_id)
    plan(search_seconds, "search ended", None)
    now, waited_since, longest = 0.0, 0.0, 0.0
    asked: dict[PeerId, int] = {}
    outcome = Outcome([], False, 0.0, [])

    def carry_out(actions: list[Ask | Abandon | GiveUp]) -> bool:
        for action in actions:
            match action:
                case Ask(info, offset):
                    assert offset == transfer.offset
                    assert info.peer_id not in asked, "no peer is asked twice at a time"
                    asked[info.peer_id] = offset
                    outcome.asks.append(info)
                    behaviour = peers[info.peer_id]
                    if behaviour.head_after is not None:
                        plan(now + behaviour.head_after, "head", info.peer_id)
                case Abandon(info):
                    asked.pop(info.peer_id, None)
                case GiveUp():
                    return True
        return False

    streaming: PeerId | None = None
    for _ in range(10_000):
        if streaming is None:
            if carry_out(transfer.decide(now, {})):
                outcome.longest_wait = max(longest, now - waited_since)
                return outcome
            deadline = transfer.next_deadline()
            assert deadline is not None
            if not queue or queue[0][0] > deadline:
                now = max(now, deadline)
                continue
        now, _, kind, who = heapq.heappop(queue)
        if kind == "named" and who is not None:
            transfer.found([infos[who]])
        elif kind == "search ended":
            transfer.search_ended()
        elif kind == "head" and who is not None and who in asked and streaming is None:
            if not peers[who].head_good:
                asked.pop(who)
                transfer.failed(who)
                continue
            carry_out(transfer.answered(who))
            longest = max(longest, now - waited_since)
            behaviour = peers[who]
            stop = SIZE if behaviour.breaks_after is None else min(transfer.offset + behaviour.breaks_after, SIZE)
            if stop > transfer.offset:
                outcome.delivered.append((transfer.offset, stop))
                transfer.received(stop - transfer.offset)
            if transfer.offset == SIZE:
                transfer.finished()
                outcome.whole, outcome.longest_wait = True, longest
                return outcome
            if behaviour.stalls:
                now += STALL_SECONDS_MAX
            asked.clear()
            waited_since = now
            if carry_out(transfer.broke(now)):
                outcome.longest_wait = longest
                return outcome
    raise AssertionError("the transfer does not end")


@given(st.lists(BEHAVIOUR, max_size=12), st.sampled_from([0.02, 0.5, 5.0]), st.integers(1, 5))
@settings(max_examples=400)
def test_the_client_sees_a_right_prefix_then_all_or_the_end_and_never_waits_long(
    behaviours: list[Behaviour], search_seconds: float, attempts_max: int
) -> None:
    outcome = simulate(behaviours, search_seconds, attempts_max)
    position = 0
    for start, stop in outcome.delivered:
        assert start == position, "no byte twice, none left out"
        position = stop
    assert outcome.whole == (position == SIZE)
    assert outcome.longest_wait <= STRETCH_SECONDS_MAX + 1e-6


@given(st.lists(BEHAVIOUR, max_size=12))
def test_one_good_peer_that_is_found_in_time_is_enough(behaviours: list[Behaviour]) -> None:
    good = Behaviour(named_at=0.0, head_after=0.001, head_good=True, breaks_after=None, stalls=False)
    assert simulate([good, *behaviours], 0.02, attempts_max=100).whole


def test_nobody_found_gives_up_when_the_search_may_take_no_longer() -> None:
    outcome = simulate([], 0.02, 3)
    assert not outcome.whole
    assert outcome.longest_wait <= 0.02


def test_a_slow_peer_is_hedged() -> None:
    slow = Behaviour(0.0, 1.5, head_good=True, breaks_after=None, stalls=False)
    quick = Behaviour(0.0, 0.01, head_good=True, breaks_after=None, stalls=False)
    outcome = simulate([slow, quick], 0.02, 3)
    assert outcome.whole
    assert outcome.longest_wait < 0.1
    assert outcome.asks == [peer(0), peer(1)]


# --- what is remembered of peers ------------------------------------------------------------------------------


def test_a_failure_puts_a_peer_last_for_a_while_and_a_success_forgives() -> None:
    health = PeerHealth()
    one, other = peer(1).peer_id, peer(2).peer_id
    health.failed(one, now=0)
    assert health.rank(other, 0) < health.rank(one, 0)
    assert not health.rank(one, PENALTY_SECONDS_MAX + 1)[0]
    health.failed(one, now=0)
    health.answered(one, 0.01)
    assert not health.rank(one, 0)[0]


def test_the_busier_peer_comes_later() -> None:
    health = PeerHealth()
    health.started(peer(1).peer_id)
    assert health.rank(peer(2).peer_id, 0) < health.rank(peer(1).peer_id, 0)
    health.ended(peer(1).peer_id)
    assert health.rank(peer(2).peer_id, 0) == health.rank(peer(1).peer_id, 0)


@given(st.lists(st.floats(0, 1000), max_size=300))
def test_no_past_teaches_never_to_hedge_or_to_hedge_at_once(samples: list[float]) -> None:
    health = PeerHealth()
    for sample in samples:
        health.answered(peer(1).peer_id, sample)
        health.failed(peer(2).peer_id, 0, sample)
    assert HEDGE_SECONDS_MIN <= health.hedge_seconds <= HEDGE_SECONDS_MAX


def test_the_memory_of_peers_is_bounded() -> None:
    health = PeerHealth()
    for number in range(PEERS_MAX + 100):
        health.failed(PeerId.of_public_key(hashlib.sha256(number.to_bytes(4, "big")).digest()), 0)
    assert health.peer_count <= PEERS_MAX
