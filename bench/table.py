"""One line per figure, and the page that keeps them."""

from __future__ import annotations

import platform
from dataclasses import dataclass
from datetime import date
from pathlib import Path

from speil.version import __version__


@dataclass(frozen=True, slots=True)
class Figure:
    """What was measured on speil, on the baseline beside it, and the goal that design set."""

    name: str
    speil: str
    baseline: str = "–"
    goal: str = "–"

    def line(self) -> str:
        """For the terminal."""
        return f"{self.name:<60}{self.speil:<30}{self.baseline:<72}{self.goal}"


HEADER = Figure("figure", "speil", "baseline, same run", "goal")


def page(figures: dict[str, list[Figure]]) -> str:
    """The Markdown page; `figures` by the case that measured them."""
    lines = [
        "# Benchmarks",
        "",
        f"Measured {date.today().isoformat()} with speil {__version__} on {_machine()}. All processes of a case run on",
        "that machine, client and baseline included, on loopback. Repeat with `make bench`, or one case with the",
        "command in the last column.",
        "",
        "| figure | speil | baseline, same run | goal | command |",
        "|---|---|---|---|---|",
    ]
    for case, rows in figures.items():
        for row in rows:
            lines.append(
                f"| {row.name} | {row.speil} | {row.baseline} | {row.goal} | `python -m bench --only {case}` |"
            )
    return "\n".join(lines) + "\n"


def _machine() -> str:
    model = next(
        (
            line.partition(":")[2].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if "model name" in line
        ),
        platform.machine(),
    )
    cores = Path("/proc/cpuinfo").read_text().count("processor\t:")
    kib = int(Path("/proc/meminfo").read_text().split()[1])
    return f"{cores} cores ({model}), {kib >> 20} GiB, Linux {platform.release()}, Python {platform.python_version()}"
