"""`make faults`: all cases with every containerd; writes docs/faults.md.

    python -m tests.system.faults [MODE …] [--part one|at-once] [--case TEXT] [--dry]

With MODEs or --case only those are run; a part that is not run stays on the page as it was,
and of the second part each row that is not run. With --dry the table is
printed and not written.
"""

from __future__ import annotations

import argparse
import asyncio
import re
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Coroutine, Iterable
from pathlib import Path
from typing import Any, Protocol, TypeVar

from tests.system.faults.at_once import cases as at_once_cases
from tests.system.faults.at_once import run as at_once_run
from tests.system.faults.at_once import trial as at_once
from tests.system.faults.at_once.lab import sharing_lab
from tests.system.faults.cases import CASES
from tests.system.faults.lab import MODES, Mode, fault_lab
from tests.system.faults.run import measure_clean, run_case
from tests.system.faults.table import PAGE, Parts
from tests.system.faults.trial import Outcome

Row = TypeVar("Row")
Rows = tuple[list[Row], list[str]]  # the rows of a table, and the names of those that failed


def run_mode(mode: Mode, wanted: str) -> Rows[Outcome]:
    """All rows with one containerd."""

    def shown(outcome: Outcome) -> str:
        return (
            f"{outcome.seconds:.1f} s, {outcome.added_seconds:+.1f} s, "
            f"{outcome.upstream_bytes} from upstream, {outcome.twice_bytes} twice, {outcome.pulls} pulls\n"
            f"    {outcome.line}"
        )

    with tempfile.TemporaryDirectory(prefix="speil-faults-") as folder, fault_lab(mode, Path(folder)) as lab:
        clean = asyncio.run(measure_clean(lab))
        rows, failed = run_cases(mode, CASES, wanted, lambda case: run_case(lab, case), shown)
    return [*clean, *rows], failed


def run_at_once(mode: Mode, wanted: str) -> Rows[at_once.Outcome]:
    """The rows of simultaneous pulls with one containerd; those that exceeded a bound failed, too."""
    exceeded: list[str] = []

    def shown(outcome: at_once.Outcome) -> str:
        if found := outcome.faults(multipart=mode.multipart):
            exceeded.append(f"{mode.key}: {outcome.case.name}: {', '.join(found)}")
        return (
            f"{outcome.seconds:.1f} s, {outcome.added_seconds:+.1f} s, "
            f"{outcome.copies:.2f} copies, {outcome.takeovers} took over, {outcome.pulls} pulls {found}\n"
            f"    {outcome.line}\n    {outcome.notes}"
        )

    with tempfile.TemporaryDirectory(prefix="speil-faults-") as folder, sharing_lab(mode, Path(folder)) as lab:
        clean = asyncio.run(at_once_run.measure_clean(lab))
        rows, failed = run_cases(mode, at_once_cases.CASES, wanted, lambda case: at_once_run.run_case(lab, case), shown)
    return [*clean, *rows], failed + exceeded


class Named(Protocol):
    """A case."""

    @property
    def name(self) -> str:
        """As in the table."""


Tried = TypeVar("Tried", bound=Named)


def run_cases(
    mode: Mode,
    cases: Iterable[Tried],
    wanted: str,
    run: Callable[[Tried], Coroutine[Any, Any, Row]],
    shown: Callable[[Row], str],
) -> Rows[Row]:
    """The rows of the cases whose name matches the pattern `wanted`; each is printed."""
    rows, failed = list[Row](), list[str]()
    for case in cases:
        if not re.search(wanted, case.name):
            continue
        started = time.monotonic()
        try:
            row = asyncio.run(run(case))
        except Exception as error:
            failed.append(f"{mode.key}: {case.name}")
            traceback.print_exception(error)
            print(f"{mode.key}: {case.name}: FAILED")
            continue
        rows.append(row)
        print(f"{mode.key}: {case.name}, {time.monotonic() - started:.1f} s in all: {shown(row)}", flush=True)
    return rows, failed


def main() -> int:
    """See the module."""
    parser = argparse.ArgumentParser(prog="make faults")
    parser.add_argument("modes", nargs="*", choices=[[], *(mode.key for mode in MODES)])
    parser.add_argument("--case", default="", help="only cases whose name matches this pattern")
    parser.add_argument("--part", choices=["one", "at-once"], help="only one part of the table")
    parser.add_argument("--dry", action="store_true", help="print the table, do not write it")
    chosen = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # the lab is taken down then too
    parts, failed = Parts(), list[str]()
    for mode in MODES:
        if chosen.modes and mode.key not in chosen.modes:
            continue
        if chosen.part != "at-once":
            parts.one[mode.title], broken = run_mode(mode, chosen.case)
            failed += broken
        if chosen.part != "one":
            parts.at_once[mode.title], broken = run_at_once(mode, chosen.case)
            failed += broken
    if chosen.dry or (failed and parts.one):
        print(parts.page(""))
    else:
        PAGE.write_text(parts.page(PAGE.read_text()))
    for name in failed:
        print(f"failed: {name}")
    return 1 if failed else 0


if __name__ == "__main__":
    raise SystemExit(main())
