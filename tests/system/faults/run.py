"""Running cases: one after the other in one lab, which is put right after each."""

from __future__ import annotations

from tests.system.faults.cases import CLEAN, CLEAN_SLOW
from tests.system.faults.lab import FaultLab
from tests.system.faults.trial import Case, Outcome, Trial


async def run_case(lab: FaultLab, case: Case) -> Outcome:
    """One row; the lab is as new afterwards."""
    try:
        return await Trial(lab, case).run()
    finally:
        await lab.repair()


async def measure_clean(lab: FaultLab) -> list[Outcome]:
    """What all others are held against; the first pull of a lab is not measured."""
    await run_case(lab, CLEAN)
    outcomes = [await run_case(lab, case) for case in (CLEAN, CLEAN_SLOW)]
    lab.clean_seconds = {outcome.case.is_slow: outcome.seconds for outcome in outcomes}
    return outcomes
