"""Running cases one after the other in one lab, which is put right after each."""

from __future__ import annotations

from tests.system.faults.at_once.cases import CLEAN, CLEAN_MIDDLE
from tests.system.faults.at_once.lab import SharingLab
from tests.system.faults.at_once.trial import Case, Outcome, Trial


async def run_case(lab: SharingLab, case: Case) -> Outcome:
    """One row; the lab is as new afterwards."""
    try:
        return await Trial(lab, case).run()
    finally:
        await lab.repair()


async def measure_clean(lab: SharingLab) -> list[Outcome]:
    """What all others are held against; the first pull of a lab is not measured."""
    await run_case(lab, CLEAN)
    lab.clean_seconds.clear()
    outcomes = []
    for case in (CLEAN, CLEAN_MIDDLE):
        trial = Trial(lab, case)
        try:
            outcomes.append(await trial.run())
        finally:
            await lab.repair()
        lab.clean_seconds[case.during is not None] = trial.counted_seconds
    return outcomes
