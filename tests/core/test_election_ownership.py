"""Whose Lease is it: the mistakes that make two regions ask one Lease, under virtual time. Nobody fights over it."""

from __future__ import annotations

import dataclasses
from itertools import groupby, permutations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from speil.election.action import EventKind
from speil.election.ownership import ABANDONED_SECONDS, GIVEN_UP_SECONDS, Claim, Owner
from speil.election.record import LeaderElectionRecord
from speil.testing.election_world import World
from tests.properties import examples

HOME = Owner("a", "a", names_are_ours=True)
GUEST, GUEST_TOO = Owner("a", "eu", names_are_ours=True), Owner("a", "us", names_are_ours=True)
PLAIN = Owner("a", names_are_ours=True)  # without a label, or with --region
OTHER = Owner("b")  # asks the Lease by names that tell nothing
OWNERS = {"home": HOME, "guest": GUEST, "guest too": GUEST_TOO, "plain": PLAIN, "other": OTHER}
FAILOVER_SECONDS = 14.0


def shared(*sides: str, seconds: float = 20.0) -> World:
    """Three nodes of each side ask one Lease, side after side."""
    world = World(1, region="a")
    for side in sides:
        world.add([f"{side} {number}" for number in range(3)], 3, spread_seconds=1, owner=OWNERS[side])
        world.run(seconds)
    return world


def side_of(name: str) -> str:
    return name.rpartition(" ")[0]


def holders(world: World) -> list[str]:
    """The sides that have held the Lease, in turn."""
    acquired = [name for _, name, event in world.events if event.kind is EventKind.ACQUIRED]
    return [side for side, _ in groupby(map(side_of, acquired))]


@pytest.mark.parametrize(
    ("owner", "record", "was_ours", "claim"),
    [
        (HOME, LeaderElectionRecord(), False, Claim.OURS),
        (HOME, LeaderElectionRecord(region="a"), False, Claim.OURS),
        (HOME, LeaderElectionRecord(region="a", label="a"), False, Claim.OURS),
        (HOME, LeaderElectionRecord(region="a", label="eu"), False, Claim.TAKE),
        (GUEST, LeaderElectionRecord(region="a", label="a"), True, Claim.NEVER),
        (GUEST, LeaderElectionRecord(region="a", label="us"), False, Claim.TAKE_WHEN_ABANDONED),
        (GUEST, LeaderElectionRecord(region="a", label="us"), True, Claim.TAKE_WHEN_GIVEN_UP),
        (PLAIN, LeaderElectionRecord(region="a", label="us"), False, Claim.OURS),
        (PLAIN, LeaderElectionRecord(region="b"), False, Claim.TAKE_WHEN_SILENT),
        (HOME, LeaderElectionRecord(region="b", label="a"), False, Claim.TAKE_WHEN_SILENT),
        (OTHER, LeaderElectionRecord(region="a"), False, Claim.NEVER),
        (OTHER, LeaderElectionRecord(region="a"), True, Claim.TAKE_WHEN_GIVEN_UP),
        (OTHER, LeaderElectionRecord(region=""), False, Claim.NEVER),
    ],
)
def test_what_may_be_done_with_a_record(
    owner: Owner, record: LeaderElectionRecord, was_ours: bool, claim: Claim
) -> None:
    assert owner.claim(record, was_ours=was_ours) is claim


@pytest.mark.parametrize("order", [("home", "guest"), ("guest", "home")])
def test_home_leads_and_a_guest_never_does_once_home_is_there(order: tuple[str, str]) -> None:
    world = shared(*order)
    assert holders(world)[-1] == "home"
    assert len(holders(world)) <= 2, "one change of hands, whoever was first"
    assert world.record.label == "a"
    if order[0] == "guest":
        assert any("taken back" in event.detail for event in world.heard(EventKind.ACQUIRED))
        assert "label 'a', this node's is 'eu'" in world.heard(EventKind.LOST)[-1].detail
    for _ in range(3):
        world.kill(world.leaders[0])
        world.add(["home again"], 3, owner=HOME)
        world.run_until(world.led, FAILOVER_SECONDS)
        assert side_of(world.holder) == "home"
    assert {side_of(name) for _, name, event in world.events if event.kind is EventKind.FOREIGN} >= {"guest"}


def test_home_that_is_away_keeps_its_lease_and_a_guest_waits_for_it() -> None:
    """The border is cut: home's nodes do not reach the API, the guest's do."""
    world = shared("home", "guest")
    for number in range(3):
        world.kill(f"home {number}")
    world.run(2 * ABANDONED_SECONDS)
    assert holders(world) == ["home"]
    assert world.record.label == "a"
    world.add(["home 3"], 3, owner=HOME)
    world.run_until(world.led, FAILOVER_SECONDS)


def test_of_two_guests_the_first_keeps_the_lease_through_kills_and_clean_stops() -> None:
    world = shared("guest", "guest too")
    for end in (world.kill, world.stop, world.kill):
        leader = world.leaders[0]
        end(leader)
        world.run_until(lambda leader=leader: world.led() and world.holder != leader, FAILOVER_SECONDS)  # type: ignore[misc]
        world.add([leader], 3, owner=GUEST)
        world.run(2)
    assert holders(world) == ["guest"]
    assert world.record.label == "eu"


@pytest.mark.parametrize(("clean", "within"), [(True, GIVEN_UP_SECONDS), (False, ABANDONED_SECONDS)])
def test_after_the_repair_a_guest_takes_the_lease_that_nobody_wants(clean: bool, within: float) -> None:
    world = shared("guest", "guest too")
    stopped = world.now
    for name in [name for name in world.nodes if side_of(name) == "guest"]:
        (world.stop if clean else world.kill)(name)
    world.run_until(lambda: side_of(world.holder) == "guest too" and world.led(), within + 60)
    assert world.now - stopped > within / 2
    assert world.record.label == "us"
    assert world.record.nodes == 3
    assert all("guest " not in peer for peer in world.record.peers)


@pytest.mark.parametrize("edit", [{"region": "b"}, {"label": "elsewhere"}, {"region": "b", "label": "elsewhere"}])
@pytest.mark.parametrize("side", ["home", "guest", "plain"])
def test_an_edited_lease_is_told_and_taken_back_by_its_region(side: str, edit: dict[str, str]) -> None:
    world = shared(side)
    was = world.record
    world.store.put(dataclasses.replace(was, **edit), world.now)  # type: ignore[arg-type]
    # a region without labels has nothing to say against one, unless the region was edited too
    label = was.label or ("" if "region" in edit else edit["label"])
    world.run_until(
        lambda: world.led() and (world.record.region, world.record.label) == ("a", label), GIVEN_UP_SECONDS + 30
    )
    if side != "plain" or "region" in edit:
        assert world.heard(EventKind.FOREIGN)


def test_a_region_takes_back_what_an_older_node_of_another_wrote_when_it_falls_silent_and_not_before() -> None:
    world = World(1, region="a")
    foreign = LeaderElectionRecord("/ip4/10.0.0.9/tcp/5001/p2p/x", 10, region="b", nodes=7, peers=("/ip4/10.0.0.9",))

    def renew() -> None:
        if world.now < 60:
            stamped = dataclasses.replace(foreign, leader_transitions=int(world.now))
            world.store.put(stamped, world.now)
            world.at(world.now + 2, renew)

    renew()
    world.add([f"home {number}" for number in range(3)], 3, owner=HOME)
    world.run(60)
    assert not [verb for _, verb, _ in world.store.requests if verb == "put"], "a holder that renews is let be"
    assert world.heard(EventKind.FOREIGN)
    world.run_until(world.led, FAILOVER_SECONDS)
    assert (world.record.region, world.record.label, world.record.peers) == ("a", "a", ())


def test_a_region_that_is_kept_out_costs_the_api_no_more_than_one_that_is_led() -> None:
    world = World(1, region="a")
    world.add([f"home {number}" for number in range(3)], 3, owner=HOME)
    world.run(10)
    world.add([f"guest {number}" for number in range(2000)], 2000, spread_seconds=300, owner=GUEST)
    world.run(600)
    since = world.now
    world.run(300)
    asked = [at for at, _, name in world.store.requests if at >= since and side_of(name) == "guest"]
    assert len(asked) / 300 <= 7


@settings(max_examples=examples(60), deadline=None)
@given(
    st.sampled_from(list(permutations(OWNERS, 2))),
    st.lists(st.tuples(st.integers(0, 5), st.sampled_from(["kill", "stop", "freeze", "pause"])), max_size=8),
    st.integers(0, 1 << 20),
)
def test_no_two_regions_ever_write_a_lease_in_turn(
    sides: tuple[str, str], faults: list[tuple[int, str]], seed: int
) -> None:
    """Whatever happens to the nodes: sides alternate only where one had given the Lease up, and home never loses it."""
    world = World(seed, region="a")
    for side in sides:
        world.add([f"{side} {number}" for number in range(3)], 3, spread_seconds=3, owner=OWNERS[side])
    world.run(30)
    for which, fault in faults:
        name = sorted(world.nodes)[which]
        if fault == "pause":
            world.store.paused_until = world.now + 12
        elif world.is_running(name):
            getattr(world, fault)(name, *([20.0] if fault == "freeze" else []))
            if fault != "freeze":
                world.at(world.now + 5, lambda name=name: restart(world, name))  # type: ignore[misc]
        world.run(25)
    world.run(60)
    writes = [(at, side_of(name)) for at, name, event in world.events if event.kind is EventKind.ACQUIRED]
    turns = [side for side, _ in groupby(side for _, side in writes)]
    labels = {OWNERS[side].label for side in sides}
    if "" not in labels:
        assert len(turns) <= 2
    if "other" in sides:
        assert len(turns) <= 2
    if "home" in sides and "home" in turns and "plain" not in sides:
        assert turns[-1] == "home"


def restart(world: World, name: str) -> None:
    world.add([name], 3, owner=OWNERS[side_of(name)])
