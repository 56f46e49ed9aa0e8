"""What the elector does when things go wrong; real electors, a modelled store, virtual time."""

from __future__ import annotations

import dataclasses

from hypothesis import example, given, settings
from hypothesis import strategies as st

from speil.election.action import EventKind, Read, Write
from speil.election.record import LeaderElectionRecord
from speil.testing.election_world import World
from tests.properties import examples


def region(size: int = 3, seed: int = 1, late_writes: bool = True) -> World:
    """A region that has a leader."""
    world = World(seed, late_writes=late_writes)
    world.add([f"n{number}" for number in range(size)], size, spread_seconds=1)
    world.run(10)
    assert world.led()
    return world


def test_one_of_many_that_start_at_once_leads_and_all_know_it() -> None:
    world = World(5)
    world.add([f"n{number}" for number in range(20)], 20)
    world.run(6)
    assert world.led()
    assert {event.holder for event in world.heard(EventKind.NEW_LEADER)} == {world.holder}
    assert len(world.heard(EventKind.ACQUIRED)) == 1
    assert world.store.lease is not None
    assert world.store.lease.record.leader_transitions == 0
    assert world.store.lease.record.nodes == 20


def test_a_leader_renews_by_one_write_each_retry_period_and_never_reads() -> None:
    world = region()
    leader, since = world.leaders[0], world.now
    world.run(20)
    own = [verb for at, verb, name in world.store.requests if name == leader and at >= since]
    assert own == ["put"] * 10


def test_a_killed_leader_is_followed_and_comes_back_as_one_of_many() -> None:
    world = region()
    first = world.leaders[0]
    world.kill(first)
    world.run_until(world.led, 13.5)
    assert world.holder != first
    assert world.store.lease is not None
    assert world.store.lease.record.leader_transitions == 1


def test_a_leader_that_restarts_within_its_lease_goes_on_without_a_transition() -> None:
    world = region()
    leader = world.leaders[0]
    world.kill(leader)
    world.run(1)
    world.add([leader], 3)
    world.run_until(world.led, 1)
    assert world.holder == leader
    assert world.store.lease is not None
    assert world.store.lease.record.leader_transitions == 0


def test_a_clean_stop_releases_and_somebody_takes_over() -> None:
    world = region()
    first = world.leaders[0]
    world.stop(first)
    world.run_until(lambda: world.heard(EventKind.RELEASED, first), 0.1)
    assert world.holder == ""
    assert world.run_until(world.led, 3.1) >= 0
    assert world.holder != first


def test_a_stop_in_the_middle_of_a_write_releases_what_it_may_have_won() -> None:
    world = World(1)
    world.add(["a"], 1)
    world.run_until(lambda: world.store.lease, 1)  # the write is applied, its answer not yet here
    assert not world.nodes["a"].elector.leading
    world.stop("a")
    world.run(1)
    assert world.holder == ""
    assert world.nodes["a"].elector.stopped


def test_a_frozen_leader_is_followed_and_campaigns_again_when_it_thaws() -> None:
    world = region()
    frozen = world.leaders[0]
    world.freeze(frozen, 30)
    world.run_until(world.led, 13.5)
    successor = world.holder
    assert successor != frozen
    world.run(30)
    assert world.leaders == [successor]
    assert world.heard(EventKind.LOST, frozen)
    world.kill(successor)
    for node in world.nodes.values():
        if node.name not in (frozen, successor):
            world.kill(node.name)
    world.run_until(world.led, 13.5)
    assert world.holder == frozen, "who lost a lease once can win it again"


def test_a_deleted_lease_is_written_again_within_a_renewal() -> None:
    world = region()
    world.store.lease = None
    world.run(5)
    assert world.led()


def test_a_lease_edited_by_hand_lets_its_holder_run_out_whoever_it_is() -> None:
    for garbage in ("", "garbage \x00 {}", "/ip4/10.9.9.9/tcp/5001/p2p/12D3KooWother"):
        world = region()
        world.store.put(LeaderElectionRecord(garbage, lease_duration_seconds=2**31 - 1), world.now)
        world.run(2.1)
        assert world.heard(EventKind.LOST)
        # a duration of 68 years counts as the longest that is believed
        world.run_until(world.led, 64)


def test_another_regions_lease_is_never_written_and_named() -> None:
    world = World(1)
    world.store.put(LeaderElectionRecord("other", 10, region="west"), 0)
    world.add(["a", "b"], 2)
    world.run(120)
    assert world.holder == "other"
    assert not [verb for _, verb, _ in world.store.requests if verb == "put"]
    assert "west" in world.heard(EventKind.FOREIGN, "a")[0].detail
    assert len(world.heard(EventKind.FOREIGN, "a")) == 1
    assert not world.heard(EventKind.NEW_LEADER)
    assert world.rate("get", 0) < 0.2
    world.store.lease = None  # the operator acts
    world.run_until(world.led, 45)


def test_an_api_that_pauses_leaves_a_leader_each_time_however_often() -> None:
    for late_writes in (False, True):
        world = region(3, late_writes=late_writes)
        for _ in range(8):
            world.store.paused_until = world.now + 15
            world.run(15)
            world.run_until(world.led, 10)
            world.run(5)


def test_an_api_that_is_gone_for_a_minute_finds_its_leader_again() -> None:
    world = region(5)
    world.store.gone_until = world.now + 60
    world.run(59)
    assert world.leaders == [], "nobody leads who could not renew"
    world.run(1)
    world.run_until(world.led, 10)


def test_a_refusal_is_asked_about_slowly() -> None:
    world = World(1)
    world.store.denied = True
    world.add(["a"], 1)
    world.run(120)
    assert 3 <= len(world.store.requests) <= 5
    world.store.denied = False
    world.run_until(world.led, 37)


def test_a_storm_of_foreign_writes_costs_a_leader_a_few_requests_a_second_at_most() -> None:
    world = region(1)

    def scribble() -> None:
        assert world.store.lease is not None
        world.store.put(world.store.lease.record, world.now)
        world.at(world.now + 0.001, scribble)

    since = world.now
    world.at(world.now, scribble)
    world.run(20)
    assert world.rate("get", since) + world.rate("put", since) <= 3


@settings(deadline=None, max_examples=examples(60))
@given(
    seed=st.integers(0, 2**32),
    size=st.integers(2, 6),
    faults=st.lists(
        st.tuples(
            st.sampled_from(["freeze", "pause", "gone", "delete", "garbage", "stop"]),
            st.floats(0, 20),
            st.integers(0, 5),
        ),
        max_size=8,
    ),
)
@example(seed=1, size=2, faults=[("freeze", 6.0, 0), ("freeze", 0.0, 0), ("freeze", 5.0, 1)])
@example(seed=0, size=2, faults=[("pause", 2.0, 0), ("stop", 0.0, 0), ("stop", 0.0, 1)])
def test_nobody_leads_unrenewed_and_when_faults_end_one_leads(
    seed: int, size: int, faults: list[tuple[str, float, int]]
) -> None:
    world, stopped = region(size, seed), set[str]()
    for kind, seconds, number in faults:
        name = f"n{number % size}"
        match kind:
            case "freeze":
                world.freeze(name, seconds)
            case "pause":
                world.store.paused_until = world.now + seconds
            case "gone":
                world.store.gone_until = world.now + seconds
            case "delete":
                world.store.lease = None
            case "garbage":
                world.store.put(LeaderElectionRecord("x"), world.now)
            # one that stops may be alive for a while: its release waits for a store that is paused
            case _ if len(world.nodes) - len(stopped) > 1 and name not in stopped and world.is_running(name):
                stopped.add(name)
                world.stop(name)
                world.run(1)  # the release goes through, so that the next fault sees who is left
        for _ in range(int(seconds / 2 / 0.25)):
            world.run(0.25)
            for leader in world.leaders:
                assert world.now - last_renewal(world, leader) <= world.config.give_up_seconds
    world.run(25)
    world.run_until(world.led, 30)


def test_what_the_leader_tells_newcomers_is_written_with_a_renewal_once_a_minute_and_mended() -> None:
    world = region(2)
    leader = world.nodes[world.leaders[0]].elector
    told = set()
    for second in range(300):
        leader.know(2, (f"/ip4/10.0.0.{second % 250}/tcp/5001",))
        world.run(1)
        assert world.store.lease is not None
        told.add(world.store.lease.record.peers)
    assert 4 <= len(told) <= 6
    assert world.rate("put", world.now - 300) <= 0.52
    leader.know(40, ("/ip4/10.0.0.1/tcp/5001",))
    world.run(2.1)
    assert world.record.nodes == 40, "a region that has doubled is told at once"
    world.store.put(dataclasses.replace(world.record, nodes=9_999_999), world.now)
    world.run(62)
    assert world.record.nodes == 40


def test_actions_are_at_most_one_request() -> None:
    world = region(2)
    elector = world.nodes[world.leaders[0]].elector
    actions = elector.tick(world.now + 3)
    assert [type(action) for action in actions if isinstance(action, (Read, Write))] == [Write]


def last_renewal(world: World, name: str) -> float:
    """When the node's last write was answered."""
    kinds = (EventKind.ACQUIRED, EventKind.RENEWED)
    return max(at for at, node, event in world.events if node == name and event.kind in kinds)
