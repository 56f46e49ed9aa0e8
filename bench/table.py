"""One line per figure, and the page that keeps them."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Protocol

from speil.version import __version__

SPEGEL = "Spegel 0.7.4"


@dataclass(frozen=True, slots=True)
class Figure:
    """What was measured on speil, on the baseline beside it, the goal that design set, and what Spegel reached.

    Spegel's figures are not measured here: they are from a run of 0.7.4 on another machine (see `page`).
    """

    name: str
    speil: str
    baseline: str = "–"
    goal: str = "–"
    spegel: str = "–"

    def line(self) -> str:
        """For the terminal."""
        return f"{self.name:<66} {self.speil:<32} {self.baseline:<72} {self.spegel:<28} {self.goal}"

    def row(self) -> str:
        """For the page."""
        return f"| {self.name} | {self.speil} | {self.baseline} | {self.spegel} | {self.goal} |"


HEADER = Figure("figure", "speil", "baseline, same run", "goal", SPEGEL)


class Section(Protocol):
    """What the page says of a case beside its figures."""

    @property
    def title(self) -> str:
        """Its heading."""

    @property
    def note(self) -> str:
        """A text below the table, "" for none."""


def page(figures: Mapping[str, Sequence[Figure]], sections: Mapping[str, Section]) -> str:
    """The Markdown page: a section for each case that was measured."""
    lines = [
        "# Benchmarks",
        "",
        f"Measured {date.today().isoformat()} with speil {__version__} on {_machine()}.",
        "All processes of a case run on that machine, client and baseline included, on loopback unless the title says",
        "otherwise. The speed of a large blob is the median of nine rounds. Repeat all with `make bench`, or a section",
        "with the command below its title.",
        "",
        f"The column {SPEGEL} was measured elsewhere: another run, 2 cores, network namespaces and veth, containerd",
        "2.4.2. Compare its ratios to the nginx of that run (own store 3.0 · 0.31, proxy_pass 0.55 · 1.6, unbuffered",
        "1.0 · 0.68), not the absolute figures. A goal that is ≤ a fraction is a share of that column.",
    ]
    for case, rows in figures.items():
        lines += [
            "",
            f"## {sections[case].title}",
            f"`python -m bench --only {case}`",
            "",
            HEADER.row(),
            "|---|---|---|---|---|",
        ]
        lines += [row.row() for row in rows]
        if note := sections[case].note:
            lines += ["", note]
    return "\n".join(lines) + "\n"


def _machine() -> str:
    information = Path("/proc/cpuinfo").read_text().splitlines()
    model = next((line.partition(":")[2].strip() for line in information if "model name" in line), platform.machine())
    kib = int(Path("/proc/meminfo").read_text().split()[1])
    python = platform.python_version()
    return f"{os.cpu_count()} cores ({model}), {kib >> 20} GiB, Linux {platform.release()}, Python {python}"
