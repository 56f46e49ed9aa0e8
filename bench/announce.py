"""What announcing costs a region, and what it is worth: the policy as it is beside the one speil began with.

python -m bench.announce [NODES POPULAR RARE]

Real routers under virtual time (`speil.testing.announce_world`). POPULAR keys are on every node, RARE ones a node are
on three. The old policy is measured in a short window of a region that has announced for long (a whole interval of it
would take an hour); the new one over a sweep, after the nodes started one after the other within an interval. Bytes
are those of the messages.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass

from bench.announce_before import RouterBefore, before, fill
from bench.table import Figure
from speil.kad.message import MessageType
from speil.kad.provide_schedule import REPROVIDE_SECONDS, SWEEP_SECONDS
from speil.testing.announce_world import Found, Traffic, World, deep_size
from speil.testing.virtual_time import run_virtual

NODES, POPULAR, RARE, RARE_HOLDERS = 300, 1_500, 500, 3
WINDOW_SECONDS = 5.0  # of the old policy
START_SECONDS = REPROVIDE_SECONDS  # in which the nodes take up their keys, one after the other
LOOKUPS = 100
SAMPLES = 20  # nodes, and keys, that are looked into


@dataclass(frozen=True, slots=True)
class Measured:
    """One policy's figures; sizes are of one node."""

    traffic: Traffic
    seconds: float
    nodes: int
    records: float
    store_bytes: float
    popular: Found
    rare: Found
    providers: int  # the least that a popular key has at half of the nodes closest to it
    took: float  # seconds of this process

    def rates(self) -> Iterator[tuple[str, str]]:
        """Names and values, as they are printed."""
        whole = self.seconds * self.nodes
        sent, size = self.traffic.messages, self.traffic.bytes
        yield "messages a second and node", f"{sum(sent.values()) / whole:.1f}"
        yield "of them ADD_PROVIDER", f"{sent[MessageType.ADD_PROVIDER] / whole:.2f}"
        yield "records told a second and node", f"{self.traffic.records / whole:.1f}"
        yield "bytes a second and node", f"{sum(size.values()) / whole:,.0f}"
        yield "records kept by a node", f"{self.records:,.0f}"
        yield "memory of its record store", f"{self.store_bytes / 2**20:.2f} MiB"
        yield "providers known of a popular key, least", f"{self.providers}"
        for name, found in (("popular", self.popular), ("rare", self.rare)):
            value = f"{found.share:.0%} · {found.trips:.2f} · {found.messages:.0f}"
            yield f"lookup, {name} key: found · round trips to the first · messages", value
        yield "lookup, popular key: answers name a provider of the asker's zone", f"{self.popular.in_zone:.0%}"


async def measure(nodes: int, popular: int, rare: int, *, old: bool) -> Measured:
    """One policy, in virtual time."""
    started = time.process_time()
    world = World(1, make=before, packed=False) if old else World(1)
    async with world.running(nodes):
        held = world.deal(popular, rare, RARE_HOLDERS)
        for router, keys in held.items():
            if isinstance(router, RouterBefore):
                router.take_up(keys)
            else:
                await router.provide(keys)
                await asyncio.sleep(START_SECONDS / nodes)
        if old:
            fill(world.routers, world.holders, world.rng)
        else:
            await asyncio.sleep(SWEEP_SECONDS)
        seconds = WINDOW_SECONDS if old else SWEEP_SECONDS
        traffic = await world.measure(seconds)
        some = world.rng.sample(world.routers, min(SAMPLES, nodes))
        return Measured(
            traffic,
            seconds,
            nodes,
            sum(len(router._records) for router in some) / len(some),
            sum(deep_size(router._records) for router in some) / len(some),
            await world.look(f"popular {number}" for number in range(min(LOOKUPS, popular))),
            await world.look(f"rare {number}" for number in range(min(LOOKUPS, rare))),
            min(_middle(world.providers(f"popular {number}")) for number in range(min(SAMPLES, popular))),
            time.process_time() - started,
        )


def _middle(values: list[int]) -> int:
    return values[len(values) // 2]


def figures(nodes: int = NODES, popular: int = POPULAR, rare: int = RARE) -> list[Figure]:
    """Both policies side by side; the old one is the baseline."""
    old = run_virtual(measure(nodes, popular, rare, old=True))
    new = run_virtual(measure(nodes, popular, rare, old=False))
    size = f"{nodes} nodes × {popular + rare} keys"
    return [
        Figure(f"announcing, {size}: {name}", value, f"{was} (each holder announces all)")
        for (name, value), (_, was) in zip(new.rates(), old.rates(), strict=True)
    ]


def main(nodes: int, popular: int, rare: int) -> None:
    """Print both policies side by side."""
    print(f"{nodes} nodes, {popular} keys on each of them and {rare} a node that are on {RARE_HOLDERS}")
    old = run_virtual(measure(nodes, popular, rare, old=True))
    print(f"before: took {old.took:.0f} s", flush=True)
    new = run_virtual(measure(nodes, popular, rare, old=False))
    print(f"now: took {new.took:.0f} s")
    print(f"{'':66}  {'before':>18}  {'now':>18}")
    for (name, was), (_, value) in zip(old.rates(), new.rates(), strict=True):
        print(f"{name:66}  {was:>18}  {value:>18}")


if __name__ == "__main__":
    main(*(map(int, sys.argv[1:]) if len(sys.argv) > 1 else (NODES, POPULAR, RARE)))
