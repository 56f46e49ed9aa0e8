"""Whatever goes wrong with peers, the network or speil itself: the pull succeeds, and soon.

The same cases as docs/faults.md, each with one containerd at least; `make faults` runs all with all.
"""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import need
from tests.system.faults.cases import CASES
from tests.system.faults.lab import MODES, FaultLab, Mode, fault_lab
from tests.system.faults.run import measure_clean, run_case
from tests.system.faults.trial import Case

pytestmark = [pytest.mark.system, pytest.mark.requires("namespaces", "registry")]
ADDED_SECONDS_MAX = 30.0  # measured are eight at most, on a machine that had nothing else to do


PAIRS = [(mode, case) for mode in MODES for case in CASES if mode.key in case.in_ci]


@pytest.fixture(scope="module")
def lab(request: pytest.FixtureRequest) -> Iterator[FaultLab]:
    """Started once for all cases of a containerd; nothing of it is left afterwards."""
    mode: Mode = request.param
    need(f"containerd-{mode.major}")
    with tempfile.TemporaryDirectory(prefix="speil-faults-") as folder, fault_lab(mode, Path(folder)) as started:
        asyncio.run(measure_clean(started))
        yield started


@pytest.mark.parametrize(
    ("lab", "case"), PAIRS, indirect=["lab"], ids=[f"{mode.key}-{case.name}" for mode, case in PAIRS], scope="module"
)
def test_the_pull_succeeds(lab: FaultLab, case: Case) -> None:
    for name in case.needs:
        need(name)
    outcome = asyncio.run(run_case(lab, case))
    print(f"{lab.mode.key}: {case.name}: {outcome.added_seconds:+.1f} s, {outcome.twice_bytes} bytes twice")
    assert outcome.added_seconds < ADDED_SECONDS_MAX
