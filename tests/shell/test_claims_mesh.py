"""Regions that pull at once, with umpires and messages on the DHT: copies, time and messages, as in the simulation."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from speil.testing.eventually import eventually
from speil.testing.network import MemoryWire
from speil.testing.virtual_time import run_virtual
from tests.conformance.test_routers import memory_dht
from tests.shell.claims_mesh import HUNDRED_MEGABIT, MeshWorld, Puller

MIB = 1 << 20
LAYERS = (25 * MIB,) * 6
SECONDS_LOST_MAX = 4.0  # what a claim that fails may cost


async def pulled(
    nodes: int,
    layers: tuple[int, ...] = LAYERS,
    *,
    seed: int = 1,
    spread_seconds: float = 0.0,
    wrong: float = 0.0,
    fault: Callable[[MeshWorld], object] = lambda world: None,
) -> MeshWorld:
    """A region that has pulled; `fault` happens a second after its start."""
    wire = MemoryWire(seed=seed)
    async with memory_dht(wire, nodes) as routers:
        await eventually(lambda: all(len(one.peers()) >= min(nodes - 1, 20) for one in routers), what="they have met")
        world = MeshWorld(wire, routers, layers, wrong=wrong, seed=seed)
        asyncio.get_running_loop().call_later(1.0, fault, world)
        await world.pull(spread_seconds)
        return world


def seconds(world: MeshWorld) -> float:
    """How long the image takes at the upstream's rate."""
    return world.image / HUNDRED_MEGABIT


@pytest.mark.parametrize(("nodes", "spread_seconds"), [(1, 0.0), (2, 0.0), (12, 0.0), (50, 0.0), (50, 3.0)])
def test_one_copy_leaves_the_upstream_and_three_messages_are_enough(nodes: int, spread_seconds: float) -> None:
    world = run_virtual(pulled(nodes, spread_seconds=spread_seconds))
    assert world.copies == 1.0
    assert world.messages_each <= 3
    assert world.alone_count == 0
    assert world.slowest_seconds <= 1.2 * seconds(world)


@pytest.mark.parametrize(("wrong", "copies_max"), [(0.02, 1.02), (0.1, 1.1)])
def test_wrong_views_of_who_is_closest_cost_few_copies(wrong: float, copies_max: float) -> None:
    layers = (MIB // 16,) * 40
    worlds = [run_virtual(pulled(12, layers, seed=seed, wrong=wrong)) for seed in range(5)]
    assert sum(world.copies for world in worlds) / len(worlds) <= copies_max


def umpire_of_the_first_layer(world: MeshWorld) -> Puller:
    key = world.layers[0][0]
    return world.by_id[world.pullers[0].claims.closest(key)[0].peer_id]


def test_an_umpire_that_dies_while_nodes_come_costs_no_copy_of_its_own_content() -> None:
    world = run_virtual(
        pulled(12, LAYERS, spread_seconds=3.0, fault=lambda world: world.kill(umpire_of_the_first_layer(world)))
    )
    assert world.copies <= 1.1  # what it had fetched itself comes again, from where it was
    assert world.alone_count == 0
    assert world.slowest_seconds <= 1.2 * seconds(world) + SECONDS_LOST_MAX


def test_where_a_fetcher_dies_one_takes_over_and_not_all() -> None:
    def kill_fetcher(world: MeshWorld) -> None:
        key = world.layers[0][0]
        world.kill(next(one for one in world.pullers if one.node.peer.peer_id in _fetchers(world, key)))

    world = run_virtual(pulled(12, fault=kill_fetcher))
    assert world.copies <= 1.1
    assert world.alone_count == 0
    assert world.slowest_seconds <= 1.2 * seconds(world) + SECONDS_LOST_MAX


def _fetchers(world: MeshWorld, key: bytes) -> set[object]:
    return {node.peer.peer_id for node in world.fetchers(key)}
