"""The election's cost by the size of the region: real electors under virtual time, beside client-go's rule.

python -m bench.election [NODES …]
"""

from __future__ import annotations

import sys
from typing import NamedTuple

from bench.measure import percentile
from bench.table import HEADER, Figure
from speil.election.config import DEFAULT_CONFIG
from speil.election.polling import retry_period_seconds
from speil.testing.election_world import World

SIZES = (3, 10, 20, 100, 1_000, 10_000)
WINDOW_SECONDS = 60.0
CLIENT_GO_WAIT_SECONDS = 3.2  # the mean of two to four and a half
CLIENT_GO_FAILOVER = "9–13 · 0–4"  # Spegel 0.0.28 with 2 to 10 nodes
SPEGEL_RATES = {20: "6.4", 1_000: "320"}  # GETs a second; 0.0.28 too, the last that elected a leader


class Run(NamedTuple):
    """One region: GETs a second when settled; seconds from its leader's death, and from a clean stop, to the next."""

    rate: float
    killed: float
    stopped: float


def measure(nodes: int, seed: int) -> Run:
    """Settle a region, kill its leader, stop the next."""
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
    killed = world.run_until(world.led, 60)
    world.run(WINDOW_SECONDS)
    world.stop(world.leaders[0])
    return Run(rate, killed, world.run_until(world.led, 60))


def figures(sizes: tuple[int, ...] = SIZES) -> list[Figure]:
    """A line for each size of a region."""
    found = []
    for nodes in sizes:
        runs = [measure(nodes, seed) for seed in range(max(3, min(40, 2_000 // nodes)))]
        rate = sum(run.rate for run in runs) / len(runs)
        killed, stopped = sorted(run.killed for run in runs), sorted(run.stopped for run in runs)
        client_go = (nodes - 1) / CLIENT_GO_WAIT_SECONDS
        found.append(
            Figure(
                f"{nodes} nodes: GET/s · next leader after a kill · a stop, s median/max",
                f"{rate:.2f} · {_median_and_max(killed)} · {_median_and_max(stopped)}",
                f"{client_go:.1f} · {CLIENT_GO_FAILOVER} (client-go's rule)",
                "≤ 7 · ≤ 13 · ≤ 3",
                f"{SPEGEL_RATES[nodes]} · {CLIENT_GO_FAILOVER} (0.0.28)" if nodes in SPEGEL_RATES else "–",
            )
        )
    return found


def _median_and_max(seconds: list[float]) -> str:
    return f"{percentile(seconds, 50):.1f}/{seconds[-1]:.1f}"


if __name__ == "__main__":
    print(HEADER.line())
    for figure in figures(tuple(map(int, sys.argv[1:])) or SIZES):
        print(figure.line())
