"""Who sends bytes to whom, what crosses a border, the trees of roll-outs, and the last hour."""

from __future__ import annotations

from collections.abc import Sequence

from speil.overview.flows import EDGES_MAX, Branch, Peers, by_zone, crossings, edges, rollouts
from speil.overview.history import STEP_SECONDS, STEPS_MAX, History
from speil.overview.view import FromPeer, InFlight, NodeView, RegionView, Traffic

KEY = f"sha256:{1:064x}"


def node(name: str, region: str = "eu", zone: str = "z1", **changes: object) -> NodeView:
    return NodeView(name, region=region, zone=zone, peer_id=f"id-{name}", **changes)  # type: ignore[arg-type]


def view(*nodes: NodeView, region: str = "eu") -> RegionView:
    return RegionView(region, (), nodes)


def sent(**minutes: int) -> dict[str, FromPeer]:
    return {f"id-{name}": FromPeer(10 * minute, minute) for name, minute in minutes.items()}


def shape(branches: Sequence[Branch]) -> list[object]:
    return [(one.node, one.role, shape(one.below)) for one in branches]


# --- edges -----------------------------------------------------------------------------------------------------


def test_edges_are_between_nodes_of_one_region_that_sent_in_the_last_minute() -> None:
    eu = view(node("a"), node("b", from_peers=sent(a=7, c=0, x=9)), node("c", from_peers=sent(a=3, b=8)))
    us = view(node("x", "us"), region="us")
    peers = Peers([eu, us])
    assert [(one.source, one.target, one.minute) for one in edges(eu, peers)] == [
        ("b", "c", 8), ("a", "b", 7), ("a", "c", 3),
    ]  # fmt: skip
    assert not by_zone(eu)


def test_a_large_region_has_edges_between_zones_and_a_bounded_number() -> None:
    nodes = [node(f"n{number}", zone=f"z{number % 3}", from_peers=sent(n0=1)) for number in range(1, 1000)]
    eu = view(node("n0", zone="z0"), *nodes)
    assert by_zone(eu)
    assert sorted((one.source, one.target, one.minute) for one in edges(eu, Peers([eu]))) == [
        ("z0", "z0", 333), ("z0", "z1", 333), ("z0", "z2", 333),
    ]  # fmt: skip
    many = view(*(node(f"m{one}", zone=f"y{one}", from_peers=sent(m0=1)) for one in range(1000)))
    assert len(edges(many, Peers([many]))) <= EDGES_MAX


# --- the border ------------------------------------------------------------------------------------------------


def test_nothing_crossed_is_a_zero_for_each_pair_and_direction() -> None:
    regions = [view(node(name, name), region=name) for name in ("a", "b", "c")]
    found = crossings(regions, Peers(regions))
    assert len(found) == 6
    assert {(one.total, one.minute) for one in found} == {(0, 0)}


def test_what_crossed_is_counted_for_its_pair_and_unknown_peers_apart() -> None:
    eu = view(node("a", from_peers=sent(x=5, gone=2)))
    us = view(node("x", "us"), region="us")
    found = {(one.source, one.target): (one.total, one.minute) for one in crossings([eu, us], Peers([eu, us]))}
    assert found == {("us", "eu"): (50, 5), ("eu", "us"): (0, 0), ("?", "eu"): (20, 2)}


# --- roll-outs -------------------------------------------------------------------------------------------------


def flight(role: str, peer: str = "", key: str = KEY) -> tuple[InFlight, ...]:
    return (InFlight(key, role, peer, 1, 10, "reg.test/app"),)


def test_a_roll_out_is_a_tree_of_who_fetches_and_who_follows() -> None:
    eu = view(
        node("a", in_flight=flight("fetching")),
        node("b", in_flight=flight("following", "id-a")),
        node("c", in_flight=flight("following", "id-b")),
        node("d", in_flight=flight("following", "id-a")),
        node("s", in_flight=flight("serving", "10.0.0.1")),
    )
    (found,) = rollouts([eu], Peers([eu]))
    assert (found.key, found.image, found.count) == (KEY, "reg.test/app", 4)
    assert shape(found.trees) == [
        ("a", "fetching", [("b", "following", [("c", "following", [])]), ("d", "following", [])]),
    ]  # fmt: skip


def test_a_node_that_has_all_of_it_and_one_that_was_not_looked_at_are_roots() -> None:
    eu = view(
        node("h", hosts=("10.0.0.1",)),
        node("b", in_flight=flight("getting", "10.0.0.1")),
        node("c", in_flight=flight("getting", "id-stranger")),
    )
    (found,) = rollouts([eu], Peers([eu]))
    assert shape(found.trees) == [
        ("h", "holds", [("b", "getting", [])]), ("id-stranger", "", [("c", "getting", [])]),
    ]  # fmt: skip


def test_reports_of_different_instants_that_make_a_circle_end_all_the_same() -> None:
    eu = view(
        node("a", in_flight=flight("following", "id-b")), node("b", in_flight=flight("following", "id-c")),
        node("c", in_flight=flight("following", "id-a")), node("d", in_flight=flight("following", "id-d")),
    )  # fmt: skip
    (found,) = rollouts([eu], Peers([eu]))

    def count(branches: Sequence[Branch]) -> int:
        return sum(1 + count(one.below) for one in branches)

    assert count(found.trees) == 4


def test_of_a_large_roll_out_the_nodes_next_to_the_roots_are_shown() -> None:
    """Each node is below the one with half its number: a binary tree."""
    nodes = [node("n1", in_flight=flight("fetching"))]
    nodes += [node(f"n{one}", in_flight=flight("following", f"id-n{one // 2}")) for one in range(2, 1001)]
    eu = view(*nodes)
    (found,) = rollouts([eu], Peers([eu]))

    def names(branches: Sequence[Branch]) -> list[str]:
        return [name for one in branches for name in (one.node, *names(one.below))]

    assert (found.roles, found.offset, found.total) == ({"fetching": 1, "following": 999}, 1000, 10_000)
    assert set(names(found.trees)) == {f"n{one}" for one in range(1, 101)}
    assert found.left_out == 900


def test_roll_outs_are_bounded_those_with_the_most_nodes_come_first() -> None:
    few = [node(f"f{one}", in_flight=flight("fetching", key=f"key-{one}")) for one in range(100)]
    many = [node(f"m{one}", in_flight=flight("fetching", key="popular")) for one in range(1000)]
    eu = view(*few, *many)
    found = rollouts([eu], Peers([eu]))
    assert (found[0].key, found[0].count, found[0].left_out) == ("popular", 1000, 900)
    assert len(found) == 20


# --- the last hour ---------------------------------------------------------------------------------------------


def counted(peer_bytes: int, started_at: float = 1.0, name: str = "a") -> RegionView:
    return view(node(name, started_at=started_at, traffic={"reg.test": Traffic(hits=1, peer_bytes=peer_bytes)}))


def test_what_was_counted_before_the_first_look_belongs_to_no_step() -> None:
    history = History()
    history.add([counted(1000)], 100.0)
    assert history.hour("eu", 100.0) == Traffic()
    history.add([counted(1500)], 110.0)
    assert history.hour("eu", 110.0).peer_bytes == 500
    history.add([counted(1500)], 120.0)
    assert history.hour("eu", 120.0).peer_bytes == 500


def test_a_restarted_node_counts_from_zero_and_one_that_was_not_read_goes_on() -> None:
    history = History()
    history.add([counted(1000)], 100.0)
    history.add([counted(300, started_at=2.0)], 110.0)
    assert history.hour("eu", 110.0).peer_bytes == 300
    history.add([view()], 120.0)
    history.add([counted(700, started_at=2.0)], 130.0)
    assert history.hour("eu", 130.0).peer_bytes == 700


def test_steps_are_minutes_and_older_than_an_hour_is_forgotten() -> None:
    history = History()
    for number in range(3 * STEPS_MAX):
        history.add([counted(100 * number)], number * STEP_SECONDS)
    now = 3 * STEPS_MAX * STEP_SECONDS
    steps = history.steps("eu", now)
    assert len(steps) < STEPS_MAX
    assert {step.traffic.peer_bytes for step in steps} == {100}
    assert history.hour("eu", now + STEP_SECONDS * STEPS_MAX) == Traffic()
    assert history.steps("other", now) == []
