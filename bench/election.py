"""The election's cost by the size of the region: real electors under virtual time, beside client-go's rule.

python -m bench.election [NODES …]
"""

from __future__ import annotations

import sys

from speil.election.config import DEFAULT_CONFIG
from speil.election.pace import retry_period_seconds
from speil.testing.election_world import World

SIZES = (3, 10, 30, 100, 1_000, 10_000)
WINDOW_SECONDS = 60.0
CLIENT_GO_WAIT_SECONDS = 3.2  # the mean of two to four and a half
CLIENT_GO_FAILOVER = "9–13 s"  # Spegel 0.0.28 with 2 to 10 nodes


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


def main(sizes: tuple[int, ...]) -> None:
    """Print the table."""
    print(f"{'nodes':>6}  {'GET/s':>6}  {'client-go':>9}  failover min/median/max, s (client-go: {CLIENT_GO_FAILOVER})")
    for nodes in sizes:
        runs = [measure(nodes, seed) for seed in range(max(3, min(40, 2_000 // nodes)))]
        rate = sum(run[0] for run in runs) / len(runs)
        took = sorted(run[1] for run in runs)
        client_go = (nodes - 1) / CLIENT_GO_WAIT_SECONDS
        middle = took[len(took) // 2]
        print(f"{nodes:>6}  {rate:>6.2f}  {client_go:>9.1f}  {took[0]:.1f} / {middle:.1f} / {took[-1]:.1f}")


if __name__ == "__main__":
    main(tuple(map(int, sys.argv[1:])) or SIZES)
