"""What announcing costs a region, and what it is worth.

python -m bench.announce [NODES POPULAR RARE]

Real routers under virtual time (`speil.testing.announce_world`). POPULAR keys are on every node, RARE ones a node are
on three. All nodes run, but only a part of the key space is filled and the cost of its keys is multiplied: each part of
the space has its own nodes, and announcing goes from one to the next. What the mesh costs without any key is measured
apart. The cost is measured over a sweep, after the nodes started one after the other within an interval. Bytes are
those of the messages.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from bench.table import Figure
from speil.kad.message import MessageType
from speil.kad.provide_schedule import REPROVIDE_SECONDS, SWEEP_SECONDS
from speil.kad.provider_records import ProviderRecords
from speil.routing.dht import REFRESH_SECONDS
from speil.testing.announce_world import Found, Traffic, World, deep_size
from speil.testing.virtual_time import run_virtual

NODES, POPULAR, RARE, RARE_HOLDERS = 300, 1_500, 500, 3
START_SECONDS = REPROVIDE_SECONDS  # in which the nodes take up their keys, one after the other
PARTS = 4  # of the key space; one is filled
LOOKUPS = 100
SAMPLES = 20  # keys whose providers are looked into


class Rates(NamedTuple):
    """What goes over the wire, a second and node."""

    messages: float
    announcements: float
    records: float
    bytes: float


@dataclass(frozen=True, slots=True)
class Measured:
    """The figures of one node."""

    idle: Rates
    announcing: Rates
    records: float
    store_bytes: float
    popular: Found
    rare: Found
    providers: int  # the least that a popular key has at half of the nodes closest to it
    took: float  # seconds of this process

    def lines(self) -> Iterator[tuple[str, str]]:
        """Names and values, as they are printed."""
        yield "messages a second and node", f"{self.idle.messages + self.announcing.messages:.1f}"
        yield "of them without any key to announce", f"{self.idle.messages:.1f}"
        yield "of them ADD_PROVIDER", f"{self.announcing.announcements:.2f}"
        yield "records told a second and node", f"{self.announcing.records:.1f}"
        yield "bytes a second and node", f"{self.idle.bytes + self.announcing.bytes:,.0f}"
        yield "records kept by a node", f"{self.records:,.0f}"
        yield "memory of its record store", f"{self.store_bytes / 2**20:.2f} MiB"
        yield "providers known of a popular key, least", f"{self.providers}"
        for name, found in (("popular", self.popular), ("rare", self.rare)):
            value = f"{found.share:.0%} · {found.trips:.2f} · {found.messages:.0f}"
            yield f"lookup, {name} key: found · round trips to the first · messages", value
        yield "lookup, popular key: answers name a provider of the asker's zone", f"{self.popular.in_zone:.0%}"


async def measure_idle(nodes: int) -> Rates:
    """What keeping the tables fresh costs."""
    world = World(1)
    async with world.running(nodes):
        await asyncio.sleep(REFRESH_SECONDS)
        return _rates(await world.measure(2 * REFRESH_SECONDS), 2 * REFRESH_SECONDS * nodes)


async def measure(nodes: int, popular: int, rare: int, idle: Rates, *, parts: int = PARTS) -> Measured:
    """All figures, in virtual time; `idle` are the rates without any key."""
    started = time.process_time()
    world = World(1, refreshing=False)
    async with world.running(nodes):
        held = world.deal(popular, rare, RARE_HOLDERS, parts)
        for router, keys in held.items():
            await router.provide(keys)
            await asyncio.sleep(START_SECONDS / nodes)
        await asyncio.sleep(SWEEP_SECONDS)
        traffic = await world.measure(SWEEP_SECONDS)
        return Measured(
            idle,
            _rates(traffic, SWEEP_SECONDS * nodes / parts),
            sum(len(router._records) for router in world.routers) / nodes * parts,
            sum(_store_bytes(router._records, parts) for router in world.routers) / nodes,
            await world.look(world.rng.sample(world.popular, min(LOOKUPS, len(world.popular)))),
            await world.look(world.rng.sample(world.rare, min(LOOKUPS, len(world.rare)))),
            min(_middle(world.providers(name)) for name in world.popular[:SAMPLES]),
            time.process_time() - started,
        )


def _rates(traffic: Traffic, whole: float) -> Rates:
    sent, size = traffic.messages, traffic.bytes
    added = sent[MessageType.ADD_PROVIDER]
    return Rates(sum(sent.values()) / whole, added / whole, traffic.records / whole, sum(size.values()) / whole)


def _store_bytes(records: ProviderRecords, parts: int) -> float:
    """The records of all parts, and once the providers and their addresses."""
    providers = deep_size([getattr(records, name) for name in ("_providers", "_numbers")])
    # their lists of places are as long as the parts have records
    providers -= sum(sys.getsizeof(one.places) for one in records._providers.values())
    return providers + parts * (deep_size(records) - providers)


def _middle(values: list[int]) -> int:
    return values[len(values) // 2]


def figures(nodes: int = NODES, popular: int = POPULAR, rare: int = RARE) -> list[Figure]:
    """All figures, as lines of the benchmarks page."""
    idle = run_virtual(measure_idle(nodes))
    measured = run_virtual(measure(nodes, popular, rare, idle))
    size = f"{nodes} nodes × {popular + rare} keys"
    return [Figure(f"announcing, {size}: {name}", value) for name, value in measured.lines()]


def main(nodes: int, popular: int, rare: int) -> None:
    """Print the figures."""
    print(f"{nodes} nodes, {popular} keys on each of them and {rare} a node that are on {RARE_HOLDERS}")
    idle = run_virtual(measure_idle(nodes))
    measured = run_virtual(measure(nodes, popular, rare, idle))
    print(f"took {measured.took:.0f} s")
    for name, value in measured.lines():
        print(f"{name:66}  {value:>18}")


if __name__ == "__main__":
    main(*(map(int, sys.argv[1:]) if len(sys.argv) > 1 else (NODES, POPULAR, RARE)))
