"""Announcing without flooding: a region of nodes under virtual time, and what must hold whatever happens to them."""

from __future__ import annotations

import asyncio
from collections import Counter

import pytest

from speil.kad import coverage
from speil.kad.coverage import ENOUGH, ENOUGH_IN_ZONE
from speil.kad.message import Message
from speil.kad.provide_schedule import REPROVIDE_SECONDS, SWEEP_SECONDS
from speil.kad.provider_records import VALIDITY_SECONDS
from speil.kad.routing_table import K
from speil.multiformats.content_key import content_key
from speil.routing import publisher
from speil.routing.dht import DhtRouter
from speil.routing.publisher import ASK_SECONDS_MAX
from speil.routing.series import DhtSeries
from speil.testing.announce_world import LATENCY_SECONDS, World
from speil.testing.virtual_time import run_virtual

NODES, POPULAR, RARE, RARE_HOLDERS = 45, 40, 20, 3


async def settled(world: World, popular: int, rare: int = 0) -> None:
    """All hold their keys for a while; what a roll-out announced beyond what is needed has run out."""
    for router, keys in world.deal(popular, rare, RARE_HOLDERS).items():
        await router.provide(keys)
        await asyncio.sleep(1)
    await asyncio.sleep(REPROVIDE_SECONDS)


def known(world: World, key: str) -> int:
    """How many living holders half of the nodes closest to a key know of at least."""
    return world.providers(key)[K // 2]


def outcomes(world: World) -> Counter[str]:
    """Keys whose turn came, by what became of them."""
    found: Counter[str] = Counter()
    for metrics in world.metrics:
        for sample in next(iter(metrics.of(DhtSeries).announced_keys.collect())).samples:
            if sample.name.endswith("_total"):
                found[sample.labels["outcome"]] += int(sample.value)
    return found


def time() -> float:
    return asyncio.get_running_loop().time()


@pytest.mark.long
def test_what_is_everywhere_is_announced_by_a_few_what_is_rare_by_all_and_what_is_new_at_once() -> None:
    async def scenario() -> None:
        world = World(1, refreshing=False)
        async with world.running(NODES):
            await settled(world, POPULAR, RARE)
            before = outcomes(world)
            traffic = await world.measure(REPROVIDE_SECONDS)
            records, rare = traffic.records / NODES, RARE * K
            assert rare * 0.9 < records < rare + POPULAR * K * 0.75
            assert sum(traffic.messages.values()) / NODES < (POPULAR + RARE) * K / 3, "lookups and questions included"
            news = outcomes(world) - before
            assert news["skipped"] > news["announced"] / 2
            for key, holders in world.holders.items():
                assert known(world, key) >= (ENOUGH if key.startswith("popular") else len(holders) - 1), key
            for key in list(world.holders)[:20]:
                peers = world.closest(key)[0]._records.live(content_key(key), time())
                zones = Counter(peer.zone for peer in peers)
                assert len(zones) == 3
                assert min(zones.values()) >= ENOUGH_IN_ZONE
            found = await world.look(
                [*(f"popular {number}" for number in range(20)), *(f"rare {n}" for n in range(20))]
            )
            assert found.share == 1.0
            assert found.trips < 2.5

            holder = world.routers[7]
            holder._publisher._schedule.failed(list(holder._publisher._schedule), time() - 100)
            holder._publisher._planned.set()  # all of its keys are due now
            for number in range(10):
                key, started = f"new {number}", time()
                world.holders[key] = [holder]
                await holder.provide([key])
                while world.providers(key)[-1 - (holder in world.closest(key))] == 0:
                    await asyncio.sleep(LATENCY_SECONDS)
                # a lookup of up to four round trips, a question, a message
                assert time() - started < 16 * LATENCY_SECONDS

    run_virtual(scenario())


@pytest.mark.long
def test_when_those_who_announced_are_gone_others_step_in(monkeypatch: pytest.MonkeyPatch) -> None:
    enough = 7  # so that a small mesh can lose that many again and again
    for name in ("ENOUGH", "ENOUGH_FOR_NEW"):
        monkeypatch.setattr(coverage, name, enough)
    monkeypatch.setattr(publisher, "ENOUGH", enough)
    keys = [f"popular {number}" for number in range(5)]

    async def scenario() -> None:
        world = World(2, zones=0, refreshing=False)

        def who_announced() -> list[DhtRouter]:
            closest = world.closest(keys[0])
            ids = [peer.peer_id for one in closest for peer in one._records.live(content_key(keys[0]), time())]
            count = Counter(ids)
            return sorted(world.alive, key=lambda one: count[one.local.peer_id], reverse=True)[:enough]

        async with world.running(42):
            await settled(world, len(keys))
            assert all(enough <= known(world, key) < 30 for key in keys)
            for router in who_announced():
                world.kill(router)
            await asyncio.sleep(VALIDITY_SECONDS)
            assert all(known(world, key) >= enough for key in keys), "others saw them leave"
            for router in who_announced():
                world.wire.dead.add(router.local.peer_id)  # as when a machine loses its power: no connection ends
            await asyncio.sleep(VALIDITY_SECONDS)
            assert all(known(world, key) >= enough for key in keys), "their records ran out"
            for router in who_announced():
                router.withdraw(keys)
                for key in keys:
                    world.holders[key].remove(router)
            await asyncio.sleep(VALIDITY_SECONDS)
            assert all(known(world, key) >= enough for key in keys), "they announce no more"
            newcomer = world.join()
            await asyncio.sleep(2 * SWEEP_SECONDS)
            near = [key for key in keys if newcomer in world.closest(key)]
            told = [len(newcomer._records.live(content_key(key), time())) >= enough for key in near]
            assert near
            assert all(told), "a node that has joined is told, though all the others know"

    run_virtual(scenario())


def test_where_nobody_knows_the_question_everything_is_announced(monkeypatch: pytest.MonkeyPatch) -> None:
    # as go-libp2p does: the fields are passed over, the message is answered
    monkeypatch.setattr(DhtRouter, "_count", lambda self, asker, zone, question: Message(question.type, question.key))

    async def scenario() -> None:
        world = World(4)
        world.wire.packed = False
        async with world.running(25):
            await settled(world, 2)
            assert outcomes(world)["skipped"] == 0
            assert known(world, "popular 1") == 25

    run_virtual(scenario())


def test_a_peer_that_hangs_costs_a_lookup_and_a_question_their_time_and_no_more() -> None:
    async def scenario() -> None:
        world = World(6)
        async with world.running(30):
            world.wire.frozen.add(world.routers[3].local.peer_id)
            holder, started = world.routers[9], time()
            world.holders["new"] = [holder]
            await holder.provide(["new"])
            while known(world, "new") == 0:
                await asyncio.sleep(0.01)
            assert time() - started < 3 + 2 * ASK_SECONDS_MAX

    run_virtual(scenario())
