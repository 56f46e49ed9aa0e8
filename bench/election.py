"""The election's cost by the size of the region: real electors under virtual time, beside client-go's rule.

python -m bench.election [NODES …]
"""

from __future__ import annotations

import sys

from bench.table import HEADER, Figure
from speil.election.config import DEFAULT_CONFIG
from speil.election.pace import retry_period_seconds
from speil.testing.election_world import World

SIZES = (3, 10, 20, 100, 1_000, 10_000)
WINDOW_SECONDS = 60.0
CLIENT_GO_WAIT_SECONDS = 3.2  # the mean of two to four and a half
CLIENT_GO_FAILOVER = "9–13"  # Spegel 0.0.28 with 2 to 10 nodes
SPEGEL_RATES = {20: "6.4", 1_000: "320"}  # GETs a second; 0.0.28 too, the last that elected a leader


def measure(nodes: int, seed: int) -> tuple[float, float]:
    """GETs a second of a settled region, and the seconds from its leader's death to the next."""
    world = World(seed)
    names = [f"n{number}" for number in range(nodes)]
    world.add(names[:1], nodes)
    world.run(1)
    spread = max(10.0, 2.2 * retry_period_seconds(nodes, DEFAULT_CONFIG))
    world.add(names[1:], nodes, spread)
    world.run(spread + 5)
    since = world.now
    world.run(WINDOW_SECONDS)
    rate = world.rate("get", since)
    world.run(2 * world.rng.random())
    world.kill(world.leaders[0])
    return rate, world.run_until(world.led, 60)


def figures(sizes: tuple[int, ...] = SIZES) -> list[Figure]:
    """A line for each size of a region."""
    found = []
    for nodes in sizes:
        runs = [measure(nodes, seed) for seed in range(max(3, min(40, 2_000 // nodes)))]
        rate = sum(run[0] for run in runs) / len(runs)
        took = sorted(run[1] for run in runs)
        client_go = (nodes - 1) / CLIENT_GO_WAIT_SECONDS
        found.append(
            Figure(
                f"election, {nodes} nodes: GET/s · failover s, median/max",
                f"{rate:.2f} · {took[len(took) // 2]:.1f}/{took[-1]:.1f}",
                f"{client_go:.1f} · {CLIENT_GO_FAILOVER} (client-go's rule)",
                "≤ 7 · ≤ 13",
                f"{SPEGEL_RATES[nodes]} · {CLIENT_GO_FAILOVER} (0.0.28)" if nodes in SPEGEL_RATES else "–",
            )
        )
    return found


if __name__ == "__main__":
    print(HEADER.line())
    for figure in figures(tuple(map(int, sys.argv[1:])) or SIZES):
        print(figure.line())
