"""`make herd`: many nodes pull one image at once, with every containerd; prints a table and what missed the goals.

    python -m tests.system.herd [MODE …] [--case TEXT] [--scale FACTOR] [--flag FLAG …] [--all]

Takes root and about twenty minutes. `--scale` slows the links down and makes the images smaller. `--flag` goes to every
speil. `--all` runs the cases too that take minutes each.
"""

from __future__ import annotations

import argparse
import asyncio
import re
import signal
import sys
import traceback
from pathlib import Path

from tests.system.herd.cases import CASES, Case
from tests.system.herd.lab import HerdLab, herd_lab
from tests.system.herd.network import Rates
from tests.system.herd.nodes import MODES, Mode
from tests.system.herd.outcome import measure_links
from tests.system.herd.table import HEADER, row


async def run_cases(lab: HerdLab, cases: list[Case], rates: Rates, scale: float) -> list[str]:
    """Run them and print their rows; what missed a goal."""
    await lab.start()
    missed = []
    for case in cases:
        try:
            outcome = await measure_links(lab, case, rates.scaled(scale), scale)
        except Exception as error:
            traceback.print_exception(error)
            missed.append(f"{lab.mode.key}: {case.name}: failed")
            continue
        print(row(outcome), flush=True)
        missed += [f"{lab.mode.key}: {case.name}: {miss}" for miss in outcome.misses]
    return missed


def run_mode(
    mode: Mode, cases: list[Case], rates: Rates, scale: float, flags: list[str], keep: Path | None
) -> list[str]:
    """All cases with one containerd: first those without zones."""
    missed = []
    for zones in (False, True):
        wanted = [case for case in cases if case.zones == zones and (not case.modes or mode.key in case.modes)]
        if not wanted:
            continue
        count = max(case.nodes for case in wanted)
        with herd_lab(mode, (count // 2, count // 2) if zones else (count,), rates.scaled(scale), *flags) as lab:
            try:
                missed += asyncio.run(run_cases(lab, wanted, rates, scale))
            finally:
                if keep is not None:
                    lab.keep_logs(keep / ("zones" if zones else "one-zone"))
    return missed


RATES = Rates()


def main() -> int:
    """See the module."""
    parser = argparse.ArgumentParser(prog="make herd")
    parser.add_argument("modes", nargs="*", choices=[[], *(mode.key for mode in MODES)])
    parser.add_argument("--case", default="", help="only cases whose name matches this pattern")
    parser.add_argument("--scale", type=float, default=1.0, help="of the rates of links and the sizes of images")
    parser.add_argument("--upstream", type=float, default=RATES.upstream, help="Mbit/s of all that leaves the upstream")
    parser.add_argument("--link", type=float, default=RATES.link, help="Mbit/s of a node's link, each way")
    parser.add_argument(
        "--flag", action="append", default=[], help="a flag for every speil, such as --flag=--share-wait=0"
    )
    parser.add_argument("--all", action="store_true", help="also cases that take minutes")
    parser.add_argument("--logs", type=Path, help="a folder for the logs of the nodes")
    chosen = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # the lab is taken down then too
    cases = [case for case in CASES if re.search(chosen.case, case.name) and (chosen.all or not case.is_long)]
    missed: list[str] = []
    for mode in MODES:
        if not chosen.modes or mode.key in chosen.modes:
            print(f"\n### {mode.title}\n\n{HEADER}", flush=True)
            rates = Rates(chosen.upstream, chosen.link)
            missed += run_mode(mode, cases, rates, chosen.scale, chosen.flag, chosen.logs)
    print()
    for line in missed:
        print(f"missed: {line}")
    return 1 if missed else 0


if __name__ == "__main__":
    raise SystemExit(main())
