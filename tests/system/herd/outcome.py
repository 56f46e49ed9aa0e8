"""What a case came to, against the goals."""

from __future__ import annotations

from dataclasses import dataclass

from tests.system.herd.cases import Case
from tests.system.herd.lab import HerdLab, Run
from tests.system.herd.network import Rates

COPIES_MAX = 1.02
MANIFEST_GETS_MAX = 2
SLOWEST_MAX = 1.2  # times one node alone
BORDER_MAX = 1.05  # copies
BUSY_MAX = 0.9  # above it the cores are the bottleneck and not the links
SLOWER = 0.5  # the rates of another try where they were
# containerd writes 1 MiB at a time: with ten layers at once a slower upstream has no byte of any within the share wait
UPSTREAM_MEGABITS_MIN = 40.0


@dataclass(frozen=True, slots=True)
class Outcome:
    """A case: one node alone, then all."""

    case: Case
    alone: Run
    herd: Run
    rates: Rates

    @property
    def slowest(self) -> float:
        """The slowest pull, in times of one node alone."""
        return max(self.herd.seconds) / self.alone.wall_seconds

    @property
    def border_copies(self) -> float:
        """What passed between zones, in sizes of what was needed."""
        return self.herd.border_bytes / self.herd.needed_bytes

    @property
    def is_cpu_bound(self) -> bool:
        """Whether it was slow, and this machine's cores were the bottleneck: then it says nothing about the links."""
        return self.slowest > SLOWEST_MAX and self.herd.busy > BUSY_MAX

    @property
    def misses(self) -> list[str]:
        """The goals that were missed. Times are not judged where the cores were the bottleneck."""
        found = []
        if self.herd.copies > COPIES_MAX:
            found.append(f"{self.herd.copies:.2f} copies")
        if self.herd.manifest_gets_max > MANIFEST_GETS_MAX:
            found.append(f"{self.herd.manifest_gets_max} GETs of a manifest")
        if self.slowest > SLOWEST_MAX and not self.is_cpu_bound:
            found.append(f"slowest {self.slowest:.2f}×")
        if self.case.zones and self.border_copies > BORDER_MAX:
            found.append(f"{self.border_copies:.2f} copies over the border of zones")
        return found


async def measure(lab: HerdLab, case: Case, rates: Rates, scale: float) -> Outcome:
    """One node alone and then all, one after the other, with images of the same shape."""
    lab.network.limit(rates)
    nodes = lab.nodes[: case.nodes]
    alone = await lab.run(case.make(case.nodes, scale).alone(), nodes[-1:])
    herd = await lab.run(case.make(case.nodes, scale), nodes)
    return Outcome(case, alone, herd, rates)


async def measure_links(lab: HerdLab, case: Case, rates: Rates, scale: float) -> Outcome:
    """As `measure`; where the cores were the bottleneck once more, with slower links."""
    outcome = await measure(lab, case, rates, scale)
    if outcome.is_cpu_bound:
        slower = max(SLOWER, min(1.0, UPSTREAM_MEGABITS_MIN / rates.upstream))
        return await measure(lab, case, rates.scaled(slower), scale)
    return outcome
