"""Nodes pull at once and something goes wrong: each pull succeeds that would without speil, and one node takes over.

A sample of the second part of docs/faults.md; `make faults` runs all cases with all containerds.
"""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import need
from tests.system.faults.at_once.cases import CASES
from tests.system.faults.at_once.lab import SharingLab, sharing_lab
from tests.system.faults.at_once.run import measure_clean, run_case
from tests.system.faults.at_once.trial import Case
from tests.system.faults.lab import MODES, Mode

pytestmark = [pytest.mark.system, pytest.mark.requires("namespaces")]
BUSY_SECONDS = 20.0  # more than the bound of a case: a machine that is busy with other tests

PAIRS = [(mode, case) for mode in MODES for case in CASES if mode.key in case.in_ci]


@pytest.fixture(scope="module")
def lab(request: pytest.FixtureRequest) -> Iterator[SharingLab]:
    """Started once for all cases of a containerd; nothing of it is left afterwards."""
    mode: Mode = request.param
    need(f"containerd-{mode.major}")
    with tempfile.TemporaryDirectory(prefix="speil-faults-") as folder, sharing_lab(mode, Path(folder)) as started:
        asyncio.run(measure_clean(started))
        yield started


@pytest.mark.parametrize(
    ("lab", "case"), PAIRS, indirect=["lab"], ids=[f"{mode.key}-{case.name}" for mode, case in PAIRS], scope="module"
)
def test_every_pull_succeeds_and_one_node_takes_over(lab: SharingLab, case: Case) -> None:
    for name in case.needs:
        need(name)
    outcome = asyncio.run(run_case(lab, case))
    print(f"{case.name}: {outcome.added_seconds:+.1f} s, {outcome.copies:.2f} copies, {outcome.notes}")
    assert not outcome.faults(multipart=lab.mode.multipart)
    assert outcome.added_seconds < case.added_max + BUSY_SECONDS
