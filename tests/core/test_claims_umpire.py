"""The umpire: whom it names, whom it lets fetch, what it tells others, and that its limits hold."""

from __future__ import annotations

from dataclasses import replace
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from speil.claims import claim as claim_module
from speil.claims import limits
from speil.claims import umpire as umpire_module
from speil.claims.action import TellNext
from speil.claims.claim import CHAIN_MAX, PLACES, SMALL_BYTES, places_for
from speil.claims.facts import Around, Sender
from speil.claims.limits import Limits
from speil.claims.message import (
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
    Row,
    Tell,
    Why,
)
from speil.claims.states import NODE, NodeEvent, NodeState, after
from speil.claims.umpire import (
    BLAME_SECONDS,
    COMPLETE_SECONDS,
    CRAWLS_MAX,
    DOWNLOAD_SECONDS_MAX,
    EXPIRE_SECONDS,
    RETRY_SECONDS,
    ROOTS_MAX,
    SPOILED_SECONDS,
    TELL_SECONDS,
    Umpire,
)
from speil.multiformats.peer_id import PeerId
from tests.core.test_kad import peer
from tests.properties import examples

KEY = b"\x12\x20" + bytes(32)
MISS = Ask(size_bytes=100 << 20)


def sender(number: int, zone: str = "") -> Sender:
    return Sender(replace(peer(number), zone=zone), f"share {number}")


def umpire() -> Umpire:
    return Umpire(Random(1))


def named(answer: Answer) -> int:
    """The number of the peer that an answer names."""
    one = answer.source if isinstance(answer, Follow) else answer.peers[0] if isinstance(answer, Holders) else None
    assert one is not None, answer
    return next(number for number in range(1, 400) if peer(number).peer_id == one.peer_id)


def left(number: int, reason: Reason) -> Ask:
    return replace(MISS, reason=reason, source=peer(number).peer_id)


def tree(one: Umpire, count: int, now: float = 0.0) -> None:
    """Nodes 1 to `count` ask in this order: a binary tree with 1 at its root."""
    for number in range(1, count + 1):
        answer = one.ask(KEY, sender(number), MISS, now)
        assert answer == Fetch() if number == 1 else named(answer) == number // 2


def test_the_first_fetches_and_the_others_fill_two_places_each_in_the_order_of_asking() -> None:
    tree(umpire(), 15)


def test_a_repeated_question_gets_the_same_answer() -> None:
    one = umpire()
    tree(one, 5)
    for number, source in ((5, 2), (4, 2), (2, 1)):
        assert named(one.ask(KEY, sender(number), MISS, 1.0)) == source
    assert one.ask(KEY, sender(1), MISS, 1.0) == Fetch()
    assert one.node_count == 5


@pytest.mark.parametrize(
    ("size", "rate", "link", "places"),
    [
        (SMALL_BYTES + 1, 0, 0, 2),
        (SMALL_BYTES + 1, 50, 0, 2),
        (SMALL_BYTES + 1, 50, 100, 2),
        (SMALL_BYTES + 1, 51, 100, 1),
        (SMALL_BYTES, 100, 100, 2),
        (0, 100, 100, 2),
    ],
)
def test_a_node_feeds_one_where_the_content_comes_faster_than_half_a_link(
    size: int, rate: int, link: int, places: int
) -> None:
    assert places_for(size, rate, link) == places


def test_a_fast_content_makes_a_chain_and_beyond_its_limit_a_tree() -> None:
    one, fast = umpire(), replace(MISS, rate=100, link=100)
    assert one.ask(KEY, sender(1), fast, 0) == Fetch()
    for number in range(2, CHAIN_MAX + 2):
        assert named(one.ask(KEY, sender(number), fast, 0)) == number - 1
    last = CHAIN_MAX + 1
    assert {named(one.ask(KEY, sender(number), fast, 0)) for number in (last + 1, last + 2)} == {last}


def test_one_follower_of_each_zone_follows_across_its_border() -> None:
    one = umpire()
    crossings = 0
    zone_of = {number: "ab"[number % 2] for number in range(1, 41)}
    assert one.ask(KEY, sender(1, zone_of[1]), MISS, 0) == Fetch()
    for number in range(2, 41):
        source = named(one.ask(KEY, sender(number, zone_of[number]), MISS, 0))
        crossings += zone_of[source] != zone_of[number]
    assert crossings == 1


def test_a_source_that_failed_is_not_named_again_nor_anybody_below_it() -> None:
    one = umpire()
    tree(one, 15)
    answer = one.ask(KEY, sender(4), left(2, Reason.SILENT), 1.0)
    assert named(answer) not in (2, 4, 5, 8, 9, 10, 11)
    for number in range(20, 40):
        source = named(one.ask(KEY, sender(number), MISS, 1.0))
        assert source not in (2, 5, 10, 11)


@pytest.mark.parametrize("reason", [Reason.SILENT, Reason.GONE])
@pytest.mark.parametrize("count", [3, 4, 9, 20])
def test_a_node_that_failed_keeps_no_place_at_its_source(
    reason: Reason, count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(umpire_module, "places_for", lambda *facts: 1)
    one = umpire()
    assert one.ask(KEY, sender(1), MISS, 0) == Fetch()
    for number in range(2, count + 1):
        assert named(one.ask(KEY, sender(number), MISS, 0)) == number - 1, "a chain"
    for number in range(3, count + 1):
        source = named(one.ask(KEY, sender(number), MISS, 1.0))
        answer = one.ask(KEY, sender(number), left(source, reason), 1.0)
        assert answer == Follow(peer(1)), "the only place of the node that fetches is free again"


def test_a_node_that_steps_aside_does_not_count_as_fed_by_its_source() -> None:
    one = umpire()
    tree(one, 1)
    for _ in range(3):
        for number in (2, 3):
            assert one.ask(KEY, sender(number), MISS, 0) == Follow(peer(1))
        for number in (2, 3):
            one.released(KEY, sender(number), Release(Ending.CANCELLED), 0)
    one.ask(KEY, sender(4), MISS, 0)
    one.announced(KEY, peer(1).peer_id, 1.0)
    assert named(one.ask(KEY, sender(5), MISS, 1.0)) == 1, "it fed one node, and has all"


def test_a_fetcher_that_gave_nothing_is_blamed_also_where_a_failed_node_completes_first(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(umpire_module, "places_for", lambda *facts: 1)
    one = umpire()
    for number in (1, 2):
        one.ask(KEY, sender(number), MISS, 0)
    assert one.ask(KEY, sender(2), left(1, Reason.NO_BYTE), 3.0) == Fetch()
    assert [named(one.ask(KEY, sender(number), MISS, 3.0)) for number in (3, 4)] == [2, 3]
    assert one.ask(KEY, sender(4), left(3, Reason.SILENT), 4.0) == Follow(peer(2))
    for number in (3, 4):
        one.announced(KEY, peer(number).peer_id, 5.0)
    assert one._blames.count(peer(1).peer_id, 6.0) == 1


def test_where_the_fetcher_is_silent_one_follower_fetches_and_the_other_is_placed_below_it() -> None:
    one = umpire()
    tree(one, 15)
    assert one.ask(KEY, sender(3), left(1, Reason.SILENT), 1.0) == Fetch()
    assert named(one.ask(KEY, sender(2), left(1, Reason.SILENT), 1.0)) in (3, 6, 7, 12, 13, 14, 15)
    claim = one.claim(KEY)
    assert claim is not None
    assert claim.roots == 1


def test_a_node_is_never_placed_below_itself() -> None:
    one = umpire()
    tree(one, 3)  # 1 feeds 2 and 3
    one.ask(KEY, sender(4), MISS, 0)
    one.ask(KEY, sender(2), left(1, Reason.GONE), 1.0)  # fetches
    assert one.ask(KEY, sender(3), left(1, Reason.GONE), 1.0) == Follow(peer(2))
    assert one.ask(KEY, sender(2), MISS, 1.0) == Fetch()
    assert one.ask(KEY, sender(2), left(3, Reason.LOOP), 1.0) == Fetch(), "all others are below it"


def test_a_full_source_gets_no_more_followers_and_keeps_its_own() -> None:
    one = umpire()
    tree(one, 2)
    answer = one.ask(KEY, sender(3), MISS, 0)
    assert named(answer) == 1
    assert named(one.ask(KEY, sender(3), left(1, Reason.FULL), 0)) == 2
    assert named(one.ask(KEY, sender(4), MISS, 0)) == 2
    assert named(one.ask(KEY, sender(2), MISS, 0)) == 1


def test_a_stranger_s_word_about_a_source_counts_less_than_a_follower_s() -> None:
    one = umpire()
    tree(one, 2)
    assert one.ask(KEY, sender(50), left(1, Reason.SILENT), 0) == Fetch(), "it may fetch itself"
    claim = one.claim(KEY)
    assert claim is not None
    assert claim.nodes[peer(1).peer_id].state is NodeState.FETCHING
    one.ask(KEY, sender(51), left(1, Reason.SILENT), 0)
    assert claim.nodes[peer(1).peer_id].state is NodeState.FAILED, "two say so"


def test_a_crawling_fetcher_is_replaced_twice_and_then_the_upstream_is_slow() -> None:
    one = umpire()
    tree(one, 15)
    assert one.ask(KEY, sender(2), left(1, Reason.CRAWLING), 5.0) == Fetch()
    assert named(one.ask(KEY, sender(3), left(1, Reason.CRAWLING), 5.0)) != 1
    assert one.ask(KEY, sender(4), left(2, Reason.CRAWLING), 9.0) == Fetch()
    claim = one.claim(KEY)
    assert claim is not None
    assert claim.crawls == CRAWLS_MAX
    assert one.ask(KEY, sender(8), left(4, Reason.CRAWLING), 12.0) == Follow(peer(4))


def test_a_fetcher_that_waits_longest_is_named_once_more_where_others_get_no_byte_either() -> None:
    one = umpire()
    tree(one, 3)
    assert one.ask(KEY, sender(2), left(1, Reason.NO_BYTE), 3.0) == Fetch()
    assert named(one.ask(KEY, sender(3), left(1, Reason.NO_BYTE), 3.0)) == 2
    assert RETRY_SECONDS < 6.0
    assert named(one.ask(KEY, sender(3), left(2, Reason.NO_BYTE), 6.0)) == 1
    assert named(one.ask(KEY, sender(3), left(1, Reason.NO_BYTE), 9.0)) == 2
    assert one.ask(KEY, sender(3), left(2, Reason.NO_BYTE), 12.0) == Fetch(), "none of them twice"


def test_only_so_many_fetch_with_a_claim() -> None:
    one = umpire()
    answers = [
        one.ask(KEY, sender(number), replace(MISS, avoided=tuple(peer(other).peer_id for other in range(1, 20))), 0)
        for number in range(1, 13)
    ]
    assert answers == [Fetch()] * ROOTS_MAX + [Alone(Why.LIMIT)] * (12 - ROOTS_MAX)


def test_complete_nodes_are_named_at_random_and_before_growing_ones() -> None:
    one = umpire()
    tree(one, 9)
    one.announced(KEY, peer(8).peer_id, 1.0)
    one.announced(KEY, peer(9).peer_id, 1.0)
    answers = [one.ask(KEY, sender(number), MISS, 1.0) for number in range(20, 24)]
    assert sorted(named(answer) for answer in answers) == [8, 8, 9, 9]
    assert all(isinstance(answer, Holders) for answer in answers)
    assert isinstance(one.ask(KEY, sender(24), MISS, 1.0), Follow), "their places are taken"


def test_holders_of_provider_records_are_named_and_nobody_fetches() -> None:
    one = umpire()
    around = Around(holders=(peer(90), peer(91)))
    found = [one.ask(KEY, sender(number), MISS, 0, around) for number in range(1, 30)]
    assert Fetch() not in found
    assert {named(answer) for answer in found[:4]} == {90, 91}
    lost = replace(MISS, reason=Reason.GONE, source=peer(90).peer_id, avoided=(peer(91).peer_id,))
    assert isinstance(one.ask(KEY, sender(60), lost, 0, around), (Follow, Fetch))


def test_a_closer_node_is_named_instead_unless_it_is_dead_or_the_tree_is_here() -> None:
    one, around = umpire(), Around(closer=(peer(70), peer(71)))
    assert one.ask(KEY, sender(1), MISS, 0, around) == Defer(peer(70))
    assert one.ask(KEY, sender(1), replace(MISS, dead=(peer(70).peer_id,)), 0, around) == Defer(peer(71))
    dead = replace(MISS, dead=(peer(70).peer_id, peer(71).peer_id))
    assert one.ask(KEY, sender(1), dead, 0, around) == Fetch()
    assert named(one.ask(KEY, sender(2), MISS, 0, around)) == 1
    assert len(one) == 1


def test_barred_peers_are_named_neither_as_closer_nor_as_source_nor_anybody_below_them() -> None:
    one = umpire()
    tree(one, 7)
    barred = frozenset((peer(1).peer_id, peer(70).peer_id))
    around = Around(closer=(peer(70), peer(71)), holders=(peer(1),), barred=barred)
    assert one.ask(b"other", sender(8), MISS, 1.0, around) == Defer(peer(71))
    assert one.ask(b"other", sender(8), MISS, 1.0, Around(closer=(peer(70),), barred=barred)) == Fetch()
    assert one.ask(KEY, sender(8), MISS, 1.0, Around(barred=barred)) == Fetch(), "all others are below the first"
    assert named(one.ask(KEY, sender(9), MISS, 1.0, Around(barred=barred))) == 8
    assert named(one.ask(KEY, sender(10), MISS, 1.0)) == 4, "who may be named the first one is placed as before"


def test_a_search_for_a_source_looks_at_each_node_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(claim_module, "CHAIN_MAX", 0)
    one = umpire()
    chain = [sender(number) for number in range(1, 81)]
    for who in chain:  # each node follows the one before it: the others have no place left
        one.ask(KEY, who, MISS, 0.0)
    looked_at, slot = 0, vars(claim_module.Node)["state"]

    def state(node: claim_module.Node) -> NodeState:
        nonlocal looked_at
        looked_at += 1
        return slot.__get__(node)  # type: ignore[no-any-return]

    monkeypatch.setattr(claim_module.Node, "state", property(state))
    claim = one.claim(KEY)
    assert claim is not None
    first, last = claim.nodes[chain[0].peer.peer_id], claim.nodes[chain[-1].peer.peer_id]
    assert claim.find_source(last, {first.peer.peer_id}, (), Random(1)) is None
    assert looked_at <= 3 * len(claim.nodes)


def test_the_next_closest_are_told_of_the_first_grant_at_once_and_then_in_batches() -> None:
    one, next_one = umpire(), umpire()
    one.ask(KEY, sender(1), MISS, 0)
    assert one.next_deadline() == 0
    first = one.tick(0)
    assert [action.nodes for action in first] == [4]
    assert [row.peer for action in first for row in action.tell.rows] == [peer(1)]
    for number in range(2, 100):
        one.ask(KEY, sender(number), MISS, 0.01)
    assert one.tick(0.05) == []
    rest = one.tick(0.01 + TELL_SECONDS)
    assert [action.nodes for action in rest] == [2, 2, 2]
    assert sum(len(action.tell.rows) for action in rest) == 98
    for action in [*first, *rest]:
        assert isinstance(action, TellNext)
        next_one.told(action.key, "the umpire", action.tell, 0.2)
    assert named(next_one.ask(KEY, sender(2), MISS, 1.0)) == 1
    assert named(next_one.ask(KEY, sender(200), MISS, 1.0)) == 50
    asked = next_one.ask(KEY, sender(2), left(1, Reason.SILENT), 2.0)
    assert asked == Fetch()
    assert next_one.claim(KEY) is not None


def test_what_another_umpire_tells_never_makes_a_circle() -> None:
    one = umpire()
    ids = [peer(number).peer_id for number in range(4)]
    rows = [
        row_of(1, Phase.FOLLOWING, ids[2]),
        row_of(2, Phase.FOLLOWING, ids[3]),
        row_of(3, Phase.FOLLOWING, ids[1]),
        row_of(1, Phase.FOLLOWING, ids[1]),
        row_of(1, Phase.FOLLOWING, ids[2]),
    ]
    one.told(KEY, "teller", Tell(tuple(rows)), 0)
    check(one)
    assert one.ask(KEY, sender(9), MISS, 0) == Fetch(), "no fetcher is known"


def row_of(number: int, phase: Phase, source: PeerId | None) -> Row:
    return Row(peer(number), phase, PLACES, source)


def test_a_released_claim_is_void_at_once() -> None:
    one = umpire()
    tree(one, 3)
    one.released(KEY, sender(1), Release(Ending.CANCELLED), 1.0)
    assert one.ask(KEY, sender(2), left(1, Reason.GONE), 1.0) == Fetch()
    assert named(one.ask(KEY, sender(9), MISS, 1.0)) == 2


def test_content_whose_copies_are_wrong_is_not_shared_for_a_while() -> None:
    one = umpire()
    tree(one, 4)
    one.released(KEY, sender(1), Release(Ending.SPOILED), 1.0)
    assert isinstance(one.ask(KEY, sender(5), MISS, 1.0), Fetch), "one share alone says so"
    one.released(KEY, sender(2), Release(Ending.SPOILED), 2.0)
    assert one.ask(KEY, sender(6), MISS, 2.0) == Alone(Why.SPOILED)
    assert one.ask(KEY, sender(6), MISS, 2.5 + SPOILED_SECONDS) != Alone(Why.SPOILED)
    one.released(KEY, sender(99), Release(Ending.SPOILED), 2.0)  # not in the tree: not heard


def test_a_fetcher_that_gave_nothing_while_another_completed_is_nobody_s_source_for_a_while() -> None:
    one = umpire()
    tree(one, 3)
    assert one.ask(KEY, sender(2), left(1, Reason.NO_BYTE), 3.0) == Fetch()
    one.ask(KEY, sender(3), left(1, Reason.NO_BYTE), 3.0)
    one.announced(KEY, peer(2).peer_id, 4.0)
    other = KEY[:-1] + b"x"
    assert one.ask(other, sender(1), MISS, 5.0) == Alone(Why.LIMIT)
    assert one.ask(other, sender(7), MISS, 5.0) == Fetch()
    assert named(one.ask(other, sender(1), MISS, 5.0)) == 7
    assert named(one.ask(other, sender(8), MISS, 5.0)) == 7
    assert named(one.ask(other, sender(9), MISS, 5.0)) == 8, "1 has no places"
    assert one.ask(KEY + b"y", sender(1), MISS, 5.0 + BLAME_SECONDS) == Fetch()


def test_everything_expires() -> None:
    one = umpire()
    tree(one, 7)
    one.announced(KEY, peer(1).peer_id, 0)
    one.tick(0)
    now = 0.0
    while (at := one.next_deadline()) is not None:
        now = max(at, now)
        one.tick(now)
        assert now <= DOWNLOAD_SECONDS_MAX + 2 * EXPIRE_SECONDS
        if now > COMPLETE_SECONDS + EXPIRE_SECONDS:
            assert one.node_count <= 6
    assert (len(one), one.node_count) == (0, 0)


def test_one_peer_or_share_can_not_fill_the_claims(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "NODES_MAX", 100)
    monkeypatch.setattr(limits, "NODES_PER_SHARE_MAX", 60)
    monkeypatch.setattr(limits, "NODES_PER_PEER_MAX", 20)
    one = umpire()
    keys = [bytes([number]) * 34 for number in range(200)]
    greedy = [one.ask(key, sender(1), MISS, 0) for key in keys]
    assert greedy.count(Fetch()) == 20
    crowd = [one.ask(key, Sender(peer(100 + number), "one network"), MISS, 0) for number, key in enumerate(keys)]
    assert sum(not isinstance(answer, Alone) for answer in crowd) <= 60
    assert one.ask(KEY, sender(2), MISS, 0) == Fetch()
    assert one.node_count <= 100


def test_the_count_of_nodes_returns_to_nothing() -> None:
    counted = Limits()
    counted.add(peer(1).peer_id, "a")
    assert counted.allows(peer(1).peer_id, "a", 1)
    counted.remove(peer(1).peer_id, "a")
    assert (counted.total, dict(counted._shares), dict(counted._peers)) == (0, {}, {})


def test_every_row_of_the_table_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    taken = set()

    def record(table, state, event):  # type: ignore[no-untyped-def]
        taken.add((state, event))
        return after(table, state, event)

    monkeypatch.setattr(claim_module, "after", record)
    for seed in range(300):
        run_random(Random(seed), 60)
    assert taken == {(state, event) for state, row in NODE.items() for event in row}
    assert {event for _, event in taken} == set(NodeEvent)


def check(one: Umpire) -> None:
    """What always holds of the claim of KEY."""
    claim = one.claim(KEY)
    if claim is None:
        return
    assert claim.nodes
    assert claim.roots == sum(node.state is NodeState.FETCHING for node in claim.nodes.values())
    for node in claim.nodes.values():
        assert node.state is not NodeState.UNKNOWN
        assert all(claim.nodes[follower].source is node for follower in node.followers)
        above, steps = node.source, 0
        while above is not None:
            assert above is not node, "it follows itself"
            assert node.peer.peer_id in node.source.followers if node.source else True
            above, steps = above.source, steps + 1
            assert steps <= len(claim.nodes)


def run_random(rng: Random, steps: int) -> None:
    one, now, told = umpire(), 0.0, 0
    for _ in range(steps):
        now += rng.choice((0.0, 0.1, 1.0, 40.0))
        number = rng.randrange(1, 12)
        who = sender(number, rng.choice(("", "a")) if number > 9 else "b")
        match rng.randrange(6):
            case 0 | 1 | 2:
                claim = one.claim(KEY)
                node = claim.nodes.get(who.peer.peer_id) if claim else None
                reason = rng.choice(list(Reason))
                source = node.source.peer.peer_id if node and node.source else peer(rng.randrange(1, 12)).peer_id
                holders = (peer(11),) if rng.random() < 0.2 and number != 11 else ()
                answer = one.ask(KEY, who, replace(MISS, reason=reason, source=source), now, Around((), holders))
                if isinstance(answer, Follow):
                    assert answer.source.peer_id != who.peer.peer_id
                    claim = one.claim(KEY)
                    assert claim is not None
                    node = claim.nodes[answer.source.peer_id]
                    assert len(node.followers) <= PLACES + told, "what another umpire placed comes on top"
            case 3:
                one.announced(KEY, who.peer.peer_id, now)
            case 4:
                one.released(KEY, who, Release(rng.choice(list(Ending))), now)
            case 5:
                phase, told = rng.choice(list(Phase)), told + 1
                rows = (row_of(number, phase, peer(rng.randrange(1, 12)).peer_id),)
                one.told(KEY, "teller", Tell(rows), now)
        if rng.random() < 0.3:
            one.tick(now)
        check(one)
    total = sum(len(claim.nodes) for claim in one._claims.values())
    assert one.node_count == total


@settings(max_examples=examples(50), deadline=None)
@given(st.integers(0, 2**32))
def test_whatever_happens_nobody_follows_itself(seed: int) -> None:
    run_random(Random(seed), 120)
