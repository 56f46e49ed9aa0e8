"""The second part of docs/faults.md from outcomes."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Mapping, Sequence

from tests.system.faults.at_once.cases import CASES, CLEAN, CLEAN_MIDDLE
from tests.system.faults.at_once.lab import BYTES_PER_SECOND, LAYERS, NODES
from tests.system.faults.at_once.trial import Outcome

_AT_ONCE = "At once, "
_LINES = "What the log says of shared pulls"
_HEADER = "| fault | pull, s | added, s | copies | took over | pulls |"
_LINES_HEADER = "| fault | line |"


def part(outcomes: Mapping[str, Sequence[Outcome]], before: str) -> str:
    """Behind its title; `outcomes` by the title of the containerd.

    Rows without an outcome are as in the text `before`, so that a row can be measured anew by itself.
    """
    had = _tables(before)
    parts = [_intro()]
    titles = [*outcomes, *(one.removeprefix(_AT_ONCE) for one in had if one.startswith(_AT_ONCE))]
    for title in sorted(dict.fromkeys(titles)):
        rows = {one.case.name: _row(one) for one in outcomes.get(title, ())}
        parts += [f"### {_AT_ONCE}{title}\n", _table(_HEADER, had.get(f"{_AT_ONCE}{title}", {}) | rows)]
    lines = {one.case.name: _line(one) for rows in outcomes.values() for one in rows}
    return "\n".join([*parts, f"### {_LINES}\n", _table(_LINES_HEADER, had.get(_LINES, {}) | lines)])


def _tables(page: str) -> dict[str, dict[str, str]]:
    """The rows of each table by their first cell, by the heading above it."""
    found: dict[str, dict[str, str]] = {}
    heading = ""
    for line in page.splitlines():
        if line.startswith("### "):
            heading = line.removeprefix("### ")
        elif line.startswith("| ") and not line.startswith("| fault "):
            found.setdefault(heading, {})[line.split(" | ")[0].removeprefix("| ")] = line
    return found


def _intro() -> str:
    megabytes = ", ".join(f"{size / 1e6:g}" for size in LAYERS)
    written = f"{time.strftime('%Y-%m-%d')}: {os.cpu_count()} cores, Linux {platform.release()}"
    return f"""Written by `make faults` on {written}.

{NODES} nodes start the same CRI pull at the same instant (3 where the fourth one only decides who downloads). The image
is new in each row: layers of {megabytes} MB. The upstream sends {BYTES_PER_SECOND / 1e6:g} MB/s to all of them
together. Most faults come when the largest layer is on its way to one node, and all others follow
it; "it" is that node.

- **pull**: the slowest of the nodes that the fault did not hit itself. The upstream is slowed down until all nodes are
  where the fault comes in, so this time is no measure between rows.
- **added**: seconds more than without a fault, counted from the fault on, or from the start where the fault was there
  before. The node that took over fetches the rest, so it can be below zero only by chance.
- **copies**: bytes of layers and configs that left the upstream, for all nodes, by the size of the image. Without
  sharing it is {NODES}. With `concurrent_layer_fetch_buffer` containerd asks the upstream for more than it takes.
- **took over**: nodes that fetched the largest layer beside the first one.
- **pulls**: of one node, 1 unless the fault is containerd's own, or wrong bytes in content that is too large to be
  verified before it is passed on.

The pull of a node whose containerd is killed, or which has no power, is not counted. A node that is frozen, or whose
disk or upstream fails, is not counted either, but has the image once the fault is over.
"""


def _table(header: str, rows: Mapping[str, str]) -> str:
    names = [one.name for one in (CLEAN, CLEAN_MIDDLE, *CASES)]
    dashes = "|---" * header.count(" | ") + "|---|"
    return "\n".join([header, dashes, *(rows[name] for name in names if name in rows)]) + "\n"


def _row(one: Outcome) -> str:
    added = "" if one.case.name.startswith("no fault") else f"{one.added_seconds:+.1f}"
    return f"| {one.case.name} | {one.seconds:.1f} | {added} | {one.copies:.2f} | {one.takeovers} | {one.pulls} |"


def _line(one: Outcome) -> str:
    text = one.line.replace("|", "\\|")
    return f"| {one.case.name} | `{text}` |"
