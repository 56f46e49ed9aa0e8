"""The load and the failover of a region, at any size: real electors in a discrete-event world."""

from __future__ import annotations

from random import Random

import pytest

from speil.election.config import DEFAULT_CONFIG, ElectionConfig, ElectionConfigError
from speil.election.polling import NODES_MAX, poll_wait_seconds, retry_period_seconds
from speil.testing.election_world import World

GETS_PER_SECOND_MAX = 7
FAILOVER_SECONDS_MAX = 13.5
# the smaller the region, the more a single draw decides: more seeds
SIZES = [(3, 60), (10, 30), (30, 10), (100, 5), (1_000, 2), pytest.param(10_000, 1, marks=pytest.mark.long)]


def settled(size: int, seed: int) -> World:
    """A region whose followers are all at their pace."""
    world = World(seed)
    names = [f"n{number}" for number in range(size)]
    world.add(names[:1], size)
    world.run(1)
    spread = max(10.0, 2.2 * retry_period_seconds(size, DEFAULT_CONFIG))
    world.add(names[1:], size, spread)
    world.run(spread + 5)
    return world


@pytest.mark.parametrize(("size", "seeds"), SIZES)
def test_load_and_failover_do_not_grow_with_the_region(size: int, seeds: int) -> None:
    for seed in range(seeds):
        world = settled(size, seed)
        since = world.now
        world.run(60)
        assert world.rate("get", since) <= GETS_PER_SECOND_MAX, f"seed {seed}"
        assert world.rate("put", since) == pytest.approx(0.5, abs=0.05), f"seed {seed}"
        world.run(2 * world.rng.random())
        world.kill(world.leaders[0])
        killed = world.now
        took = world.run_until(world.led, 60)
        assert took <= FAILOVER_SECONDS_MAX, f"seed {seed}: {took:.1f} s"
        times = [at for at, _, _ in world.store.requests if at >= killed]
        assert max(sum(second <= at < second + 1 for at in times) for second in times) <= 50, f"seed {seed}"


@pytest.mark.parametrize("size", [2, 3, 10, 30, 1_000])
def test_a_released_lease_is_taken_soon(size: int) -> None:
    for seed in range(40 if size < 1_000 else 3):
        world = settled(size, seed)
        world.run(world.rng.random() * 3)
        world.stop(world.leaders[0])
        took = world.run_until(world.led, 60)
        assert took <= 3.1, f"seed {seed}: {took:.1f} s"


def test_a_region_that_starts_at_once_does_not_storm_the_api_for_long() -> None:
    world = World(1)
    world.add([f"n{number}" for number in range(1_000)], 1_000, spread_seconds=5)
    world.run(10)
    for _ in range(5):  # the first waits, which are long, and those after
        since = world.now
        world.run(60)
        assert world.rate("get", since) <= GETS_PER_SECOND_MAX


@pytest.mark.parametrize("skew", [-600.0, -5.0, 3.0, 600.0])
def test_servers_whose_clocks_differ_neither_unseat_a_leader_nor_raise_the_load_nor_stop_a_failover(
    skew: float,
) -> None:
    world = settled(30, 7)
    world.store.date_skew_seconds = skew
    world.run(60)
    since, leader = world.now, world.leaders
    world.run(120)
    assert world.leaders == leader
    assert world.rate("get", since) <= 2 * GETS_PER_SECOND_MAX
    world.kill(leader[0])
    assert world.run_until(world.led, 60) <= 20


def test_without_ages_it_is_client_gos_rule() -> None:
    world = World(3)
    world.store.tells_age = False
    world.add(["a", "b", "c"], 3)
    world.run(30)
    world.kill(world.leaders[0])
    assert world.run_until(world.led, 60) <= 10 + 4.4 + 1


def test_periods_stay_in_their_bounds() -> None:
    rng = Random(1)
    assert retry_period_seconds(0, DEFAULT_CONFIG) == retry_period_seconds(19, DEFAULT_CONFIG) == 2.0
    assert retry_period_seconds(10_000, DEFAULT_CONFIG) == pytest.approx(10_000 / 9.6)
    assert retry_period_seconds(10**9, DEFAULT_CONFIG) == retry_period_seconds(NODES_MAX, DEFAULT_CONFIG)
    assert all(2.0 <= poll_wait_seconds(3, DEFAULT_CONFIG, rng) <= 3.0 for _ in range(1000))
    assert all(2.0 <= poll_wait_seconds(15, DEFAULT_CONFIG, rng) <= 4.4 for _ in range(1000))


@pytest.mark.parametrize(
    ("timings", "named"),
    [
        ((0, 5.0, 2.0), "lease-duration"),
        ((10, 2.4, 2.0), "renew-deadline"),
        ((7, 5.0, 2.0), "lease-duration"),
        ((10, 5.0, 0.0), "retry-period"),
    ],
)
def test_timings_that_cannot_work_are_refused(timings: tuple[int, float, float], named: str) -> None:
    with pytest.raises(ElectionConfigError, match=named):
        ElectionConfig(*timings)
