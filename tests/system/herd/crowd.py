"""Many real speil processes on one machine, all of which pull one image.

    python -m tests.system.herd.crowd [--nodes NUMBER] [--spread SECONDS] [--layers COUNT] [--layer-mb MB] …

Each has a namespace, an address and a link of its own, and a runtime that downloads as containerd does. The ratio of
upstream to link is that of the goal, 100 Mbit/s to 1 Gbit/s, but all is slower, so that two cores are enough. The
searches and questions of many nodes at one instant take two cores for longer than any node waits for an answer: there
48 nodes that begin within ten seconds keep both busy. 200 that begin within two minutes are too many, also with an
image that takes as long (`--layers 1 --layer-mb 60 --scale 0.5`): their keepalives and handshakes alone take more than
half of two cores, and a process that gets no CPU for a second counts as silent. Takes root; 200 nodes take 16 GiB, and
as many images on the disk.
"""

from __future__ import annotations

import argparse
import asyncio
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from tests.system.herd.cases import Case, same
from tests.system.herd.lab import herd_lab
from tests.system.herd.network import Rates
from tests.system.herd.nodes import SIMULATED
from tests.system.herd.outcome import BUSY_MAX, Outcome, measure

COPIES_MAX = 1.05
SLOWEST_MAX = 1.5
MESSAGES_MAX = 3.0  # a node and content: layers, config, manifests
SENT_IMAGES_MAX = 2.0
HEADERS = 1.1  # what a link carries beside the content
# larger than what is verified before it is passed on; each comes several times faster than what counts as crawling
LAYERS = (6_000_000,) * 3
RATES = Rates(upstream=8.0, link=80.0)
PIECE_BYTES = 64 << 10  # as containerd's 1 MiB is to layers of 100 MB


def case_of(nodes: int, spread_seconds: float, layers: Sequence[int] = LAYERS) -> Case:
    """All nodes begin within so many seconds."""
    within = f"within {spread_seconds:g} s" if spread_seconds else "at once"
    return Case(f"{nodes} nodes {within}", nodes, same(layers, spread_seconds=spread_seconds))


async def crowd(folder_of_logs: Path | None, case: Case, flags: Sequence[str], rates: Rates = RATES) -> Outcome:
    """One node alone, then all."""
    with herd_lab(SIMULATED, (case.nodes,), rates, *flags, piece_bytes=PIECE_BYTES) as lab:
        try:
            await lab.start()
            return await measure(lab, case, rates, 1.0)
        finally:
            if folder_of_logs is not None:
                lab.keep_logs(folder_of_logs)


def misses(outcome: Outcome) -> list[str]:
    """The goals of a large region that were missed."""
    herd = outcome.herd
    messages = herd.messages_each
    sent = max(herd.sent_images) / HEADERS
    found = [f"{herd.copies:.3f} copies"] if herd.copies > COPIES_MAX else []
    found += [f"{messages:.1f} messages a node and content"] if messages > MESSAGES_MAX else []
    # an umpire that answers late has places for two followers, and the next one that is asked then too
    sent_max = SENT_IMAGES_MAX * (2 if herd.busy > BUSY_MAX else 1)
    found += [f"a node sent {sent:.1f} images"] if sent > sent_max else []
    if outcome.slowest > SLOWEST_MAX and not outcome.is_cpu_bound:
        found.append(f"slowest {outcome.slowest:.2f}×")
    return found


def report(outcome: Outcome) -> str:
    """What was measured."""
    herd, alone = outcome.herd, outcome.alone
    lines = [
        f"{outcome.case.name}, {herd.needed_bytes / 1e6:.1f} MB, "
        f"{outcome.rates.upstream:g} Mbit/s upstream, {outcome.rates.link:g} Mbit/s links",
        f"copies: {herd.copies:.3f}, from the upstream to {herd.fetchers} nodes",
        f"seconds: {alone.wall_seconds:.1f} alone; first {min(herd.seconds):.1f}, last {max(herd.seconds):.1f}: "
        f"{outcome.slowest:.2f} times",
        f"messages a node and content (layers, config, manifests): {herd.messages_each:.2f}",
        f"most sent by a node: {max(herd.sent_images):.2f} images, headers included",
        f"cores busy: {alone.busy:.0%} alone, {herd.busy:.0%} all",
    ]
    if outcome.is_cpu_bound:
        lines.append(f"above {BUSY_MAX:.0%} the cores were the bottleneck: the time says nothing about the links")
    return "\n".join(lines)


def main() -> int:
    """See the module."""
    parser = argparse.ArgumentParser(prog="python -m tests.system.herd.crowd")
    parser.add_argument("--nodes", type=int, default=48)
    parser.add_argument("--spread", type=float, default=10.0, help="seconds within which the nodes begin")
    parser.add_argument("--layers", type=int, default=len(LAYERS))
    parser.add_argument("--layer-mb", type=float, default=LAYERS[0] / 1e6, help="of each of the layers")
    parser.add_argument("--scale", type=float, default=1.0, help="of the rates of links")
    parser.add_argument("--flag", action="append", default=[], help="a flag for every speil")
    parser.add_argument("--logs", type=Path, help="a folder for the logs of the nodes")
    chosen = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # the lab is taken down then too
    case = case_of(chosen.nodes, chosen.spread, [int(chosen.layer_mb * 1e6)] * chosen.layers)
    outcome = asyncio.run(crowd(chosen.logs, case, chosen.flag, RATES.scaled(chosen.scale)))
    print(report(outcome))
    missed = misses(outcome)
    for line in missed:
        print(f"missed: {line}")
    return 1 if missed else 0


if __name__ == "__main__":
    raise SystemExit(main())
