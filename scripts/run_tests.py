"""Run the steps of `make check` or `make test`: all of them, whatever fails, and a table of the outcomes at the end.

    scripts/run_tests.py check        static checks, and all tests that need nothing but Python
    scripts/run_tests.py test         the same, then interop, chart and system tests
    scripts/run_tests.py test --without-check   for whoever has run `check` before

Exits with 1 where a step failed. What a machine lacks is skipped and named by pytest (tests/requirements.py).
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BIN = ROOT / ".venv" / "bin"
CODE = ("src", "tests", "bench", "scripts")
# Files run side by side, one file in one process: most tests wait for processes, sockets and leases, not for the CPU.
SIDE_BY_SIDE = ("-n", "auto", "--maxprocesses", "4", "--dist", "loadgroup")


@dataclass(frozen=True, slots=True)
class Step:
    """A command that is to end with 0; the first word is a program of the environment."""

    name: str
    argv: tuple[str, ...]


CHECK: tuple[Step, ...] = (
    Step("format", ("ruff", "format", "--check", "--quiet", *CODE)),
    Step("lint", ("ruff", "check", "--quiet", *CODE)),
    Step("types", ("mypy", "--no-error-summary")),
    Step("import layers", ("lint-imports", "--no-logo")),
    Step("core, shell, conformance", ("pytest", "-q", *SIDE_BY_SIDE)),
)
MACHINE = (
    Step("interop, chart", ("pytest", "-q", "-rfE", *SIDE_BY_SIDE, "tests/interop", "tests/chart")),
    Step("system", ("pytest", "-q", "-rfE", *SIDE_BY_SIDE, "tests/system")),
    # kubelets and what they start take both cores
    Step("cluster", ("pytest", "-q", "-rfE", "--durations=5", "tests/cluster")),
)


def main() -> int:
    """Run the chosen steps; 1 where one failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["check", "test"])
    parser.add_argument("--without-check", action="store_true", help="leave out the steps of `check`")
    chosen = parser.parse_args()
    steps: tuple[Step, ...] = () if chosen.without_check else CHECK
    if chosen.what == "test":
        steps += MACHINE
    outcomes = [(step, *_run(step)) for step in steps]
    print()
    for step, code, seconds in outcomes:
        print(f"{'ok' if code == 0 else 'FAILED':8}{step.name:28}{seconds:6.0f} s")
    failed = [step for step, code, _ in outcomes if code != 0]
    for step in failed:
        print(f"again: .venv/bin/{' '.join(step.argv)}")
    return 1 if failed else 0


def _run(step: Step) -> tuple[int, float]:
    print(f"--- {step.name}", flush=True)
    started = time.monotonic()
    code = subprocess.run([BIN / step.argv[0], *step.argv[1:]], cwd=ROOT, check=False).returncode
    return code, time.monotonic() - started


if __name__ == "__main__":
    sys.exit(main())
