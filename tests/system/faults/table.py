"""docs/faults.md from outcomes."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from speil.version import __version__
from tests.system.faults.at_once import table as at_once_table
from tests.system.faults.at_once import trial as at_once
from tests.system.faults.lab import LAYERS
from tests.system.faults.trial import SLOW_LINK, Outcome

PAGE = Path(__file__).parent.parent.parent.parent / "docs" / "faults.md"
AT_ONCE = "## Several nodes pull at once"


@dataclass(slots=True)
class Parts:
    """Outcomes by the title of the containerd: of one node that pulls, and of several that pull at once."""

    one: dict[str, list[Outcome]] = field(default_factory=dict)
    at_once: dict[str, list[at_once.Outcome]] = field(default_factory=dict)

    def page(self, before: str) -> str:
        """The whole page. A part without outcomes is taken from the page as it was `before`."""
        had_one, _, had_at_once = before.partition(f"{AT_ONCE}\n")
        one = page(self.one) if self.one else had_one
        second = f"{AT_ONCE}\n" + (at_once_table.part(self.at_once, had_at_once) if self.at_once else had_at_once)
        return f"{one.rstrip()}\n\n{second.rstrip()}\n"


def page(outcomes: Mapping[str, Sequence[Outcome]]) -> str:
    """The first part; `outcomes` by the title of the containerd."""
    parts = [_intro()]
    for title, rows in outcomes.items():
        parts += [f"## {title}\n", _table(rows)]
    first = next(iter(outcomes.values()))
    return "\n".join([*parts, "## What the log says\n", _lines(first)]).rstrip() + "\n"


def _intro() -> str:
    megabytes = ", ".join(f"{size / 1e6:g}" for size in LAYERS)
    return f"""# Faults
Written by `make faults` on {time.strftime("%Y-%m-%d")}: speil {__version__}, {os.cpu_count()} cores, Linux \
{platform.release()}.

A node pulls an image through CRI while something goes wrong: the whole pull as the kubelet makes it, with real
containerds in network namespaces, one or two peers that hold the image, and an upstream registry. The image is new in
each row: layers of {megabytes} MB. Where the fault comes in mid-pull the holders' links are limited to
{SLOW_LINK} and it comes when the first layers are on their way; what is added is counted against a clean pull over the
same links. Where a holder is slower than a liar, its link is delayed by 200 ms.

- **added**: seconds more than the clean pull took (below zero: the upstream was quicker than the slow link).
- **upstream**: bytes that came from the upstream registry. Where nobody else holds the image, what was missing.
- **twice**: bytes that came more often than once, from peers or the upstream. With `concurrent_layer_fetch_buffer`
  containerd asks the upstream for more than it takes, and hangs up: that is counted here too, and would be the same
  without speil. From speil it gets each layer in one stream.
- **pulls**: 1 unless the fault is containerd's own restart, or wrong bytes in content that is too large to be verified
  before it is passed on: that pull fails in containerd's own check, and the kubelet's next one succeeds (eight seconds
  in between are counted; the kubelet waits for ten).
"""


def _table(rows: Sequence[Outcome]) -> str:
    lines = ["| fault | pull, s | added, s | upstream, MB | twice, MB | pulls |", "|---|---|---|---|---|---|"]
    for one in rows:
        added = "" if one.case.name.startswith("no fault") else f"{one.added_seconds:+.1f}"
        upstream, twice = one.upstream_bytes / 1e6, max(one.twice_bytes, 0) / 1e6
        lines.append(f"| {one.case.name} | {one.seconds:.1f} | {added} | {upstream:.1f} | {twice:.1f} | {one.pulls} |")
    return "\n".join(lines) + "\n"


def _lines(rows: Sequence[Outcome]) -> str:
    lines = ["| fault | log of | line |", "|---|---|---|"]
    for one in rows:
        text = one.line.replace("|", "\\|")
        lines.append(f"| {one.case.name} | {one.case.logged_by} | `{text}` |")
    return "\n".join(lines) + "\n"
