"""Run the steps of `make check` or `make test`: all of them, whatever fails, and a table of the outcomes at the end.

    scripts/run_tests.py check        static checks, and all tests that need nothing but Python
    scripts/run_tests.py test         the same, then packaging, interop, chart and system tests
    scripts/run_tests.py test --without-check   for whoever has run `check` before

Exits with 1 where a step failed. Tests that fail run once more, alone. A step whose failed tests all pass then is
`flaky`: its tests are named and it does not fail the run. What a machine lacks is skipped and named by pytest
(tests/requirements.py).
"""

from __future__ import annotations

import argparse
import json
import re
import shlex
import shutil
import subprocess
import sys
import time
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
CODE = ("src", "tests", "bench", "scripts")
# Files run side by side, one file in one process: most tests wait for processes, sockets and leases, not for the CPU.
SIDE_BY_SIDE = ("-n", "auto", "--maxprocesses", "4", "--dist", "loadgroup")
ALONE = ("-n", "0")
UNIT_TESTS = ("tests/core", "tests/shell", "tests/conformance")
# More failures than this are no accident: they are not run again.
RETRIED_MAX = 10
TESTS_FAILED = 1  # pytest's exit code; others mean that it could not run them


class Outcome(StrEnum):
    """Of a step, as the table shows it."""

    OK = "ok"
    FLAKY = "flaky"
    FAILED = "FAILED"


@dataclass(frozen=True, slots=True)
class Step:
    """A command that is to end with 0; the first word is a program of the environment."""

    name: str
    argv: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Result:
    """`flaky` are the tests that failed at first and passed alone."""

    step: Step
    outcome: Outcome
    seconds: float
    flaky: tuple[str, ...] = ()


STATIC = (
    Step("format", ("ruff", "format", "--check", "--quiet", *CODE)),
    Step("lint", ("ruff", "check", "--quiet", *CODE)),
    Step("types", ("mypy", "--no-error-summary")),
    Step("import layers", ("lint-imports", "--no-logo")),
)
CHECK = (Step("core, shell, conformance", ("pytest", "-q", *SIDE_BY_SIDE, "-m", "not long")),)
MACHINE = (
    Step("long, packaging", ("pytest", "-q", "-rfE", *SIDE_BY_SIDE, "-m", "long", *UNIT_TESTS, "tests/packaging")),
    Step("interop, chart", ("pytest", "-q", "-rfE", *SIDE_BY_SIDE, "tests/interop", "tests/chart")),
    Step("browser", ("pytest", "-q", "-rfE", "tests/browser")),
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
    static: tuple[Step, ...] = () if chosen.without_check else STATIC
    tests: tuple[Step, ...] = () if chosen.without_check else CHECK
    if chosen.what == "test":
        tests += MACHINE
    # the static checks run beside the tests: those mostly wait
    with ThreadPoolExecutor(max_workers=1) as beside:
        checks = [beside.submit(run_static, step, ROOT) for step in static]
        results = [run_tests(step, ROOT) for step in tests]
        results = [*map(Future.result, checks), *results]
    print("\n" + table(results), flush=True)
    return 1 if any(result.outcome is Outcome.FAILED for result in results) else 0


def table(results: list[Result]) -> str:
    """The outcomes, what to mend, and how to repeat what failed."""
    lines = [f"{result.outcome:8}{result.step.name:28}{result.seconds:6.0f} s" for result in results]
    for result in results:
        lines += [f"flaky: mend it: {name}" for name in result.flaky]
    lines += [
        f"again: .venv/bin/{shlex.join(result.step.argv)}" for result in results if result.outcome is Outcome.FAILED
    ]
    return "\n".join(lines)


def run_static(step: Step, root: Path) -> Result:
    """Run a step that prints only where it fails."""
    started = time.monotonic()
    run = subprocess.run(
        _argv(step), cwd=root, check=False, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    if run.returncode != 0:
        print(f"--- {step.name}\n{run.stdout}", flush=True)
    return Result(step, _outcome(run.returncode), time.monotonic() - started)


def run_tests(step: Step, root: Path) -> Result:
    """Run a pytest step, and the tests that failed once more, alone and in one process."""
    print(f"--- {step.name}", flush=True)
    started = time.monotonic()
    cache = root / ".pytest_cache" / re.sub(r"\W+", "-", step.name)
    shutil.rmtree(cache, ignore_errors=True)  # it may name tests of an earlier run
    own_cache = ("-o", f"cache_dir={cache}")
    code = subprocess.run([*_argv(step), *own_cache], cwd=root, check=False).returncode
    outcome, failed = _outcome(code), _last_failed(cache)
    if code == TESTS_FAILED and 0 < len(failed) <= RETRIED_MAX:
        print(f"--- {step.name}: {len(failed)} failed and run once more, alone", flush=True)
        again = [*_argv(step), *own_cache, *ALONE, "--last-failed", "--last-failed-no-failures", "none"]
        if subprocess.run(again, cwd=root, check=False).returncode == 0:
            outcome = Outcome.FLAKY
    seconds = time.monotonic() - started
    return Result(step, outcome, seconds, failed if outcome is Outcome.FLAKY else ())


def _argv(step: Step) -> list[str]:
    """The command, with the program of the environment that runs this script."""
    return [str(Path(sys.executable).parent / step.argv[0]), *step.argv[1:]]


def _outcome(code: int) -> Outcome:
    return Outcome.OK if code == 0 else Outcome.FAILED


def _last_failed(cache: Path) -> tuple[str, ...]:
    """The ids of the tests that failed, from pytest's cache."""
    try:
        return tuple(json.loads((cache / "v" / "cache" / "lastfailed").read_text()))
    except FileNotFoundError:
        return ()


if __name__ == "__main__":
    sys.exit(main())
