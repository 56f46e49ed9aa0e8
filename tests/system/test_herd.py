"""Nodes that pull one image at once, over links with a limit: a sample of `make herd`, and of its large region."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from tests.conftest import need
from tests.system.herd.cases import CASES, Case
from tests.system.herd.crowd import PIECE_BYTES, RATES, case_of, misses
from tests.system.herd.lab import HerdLab, herd_lab
from tests.system.herd.network import Rates
from tests.system.herd.nodes import MODES, SIMULATED, Mode
from tests.system.herd.outcome import BUSY_MAX, Outcome, measure
from tests.system.herd.table import row

pytestmark = [pytest.mark.system, pytest.mark.requires("namespaces", "registry")]
SCALE = 0.2  # 40 Mbit/s upstream, 200 Mbit/s links
CROWD = 12
CROWD_SCALE = 2.0
TRIES = 3  # other tests run beside this one: a node that gets no CPU for a second is one that is gone


def _named(mode: str, name: str) -> tuple[Mode, Case]:
    return (
        next(one for one in MODES if one.key == mode),
        next(case for case in CASES if case.name == name),
    )


SAMPLE = (
    _named("containerd-1.6", "ten layers, 3 nodes at once"),
    _named("containerd-2-multipart", "ten layers, 3 nodes at once"),
)


@pytest.mark.parametrize(("mode", "case"), SAMPLE, ids=[f"{mode.key}-{case.name}" for mode, case in SAMPLE])
def test_one_copy_leaves_the_upstream(mode: Mode, case: Case) -> None:
    need(f"containerd-{mode.major}")
    rates = Rates().scaled(SCALE)
    with herd_lab(mode, (case.nodes,), rates) as lab:
        outcome = asyncio.run(measured(lab, case, rates, SCALE, lambda outcome: outcome.misses))
    assert not outcome.misses


def test_a_crowd_gets_one_copy_with_few_messages() -> None:
    rates = RATES.scaled(CROWD_SCALE)
    with herd_lab(SIMULATED, (CROWD,), rates, piece_bytes=PIECE_BYTES) as lab:
        outcome = asyncio.run(measured(lab, case_of(CROWD, 0.0), rates, 1.0, misses))
    assert not misses(outcome)


async def measured(
    lab: HerdLab, case: Case, rates: Rates, scale: float, judge: Callable[[Outcome], list[str]]
) -> Outcome:
    """The first run that missed nothing. Where this machine's cores had time for it, the first run counts."""
    await lab.start()
    for _ in range(TRIES):
        outcome = await measure(lab, case, rates, scale)
        print(row(outcome), *judge(outcome))
        if not judge(outcome) or outcome.herd.busy < BUSY_MAX:
            break
    return outcome
