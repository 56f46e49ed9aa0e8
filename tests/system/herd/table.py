"""The table of the herd lab."""

from __future__ import annotations

from tests.system.herd.outcome import Outcome

_COLUMNS = (
    "case", "upstream, links (Mbit/s)", "copies", "GETs of a manifest, at most", "alone, s", "first · last, s",
    "last ÷ alone", "most sent by a node, images", "over the border of zones", "cores busy",
)  # fmt: skip
HEADER = f"| {' | '.join(_COLUMNS)} |\n{'|---' * len(_COLUMNS)}|"


def row(outcome: Outcome) -> str:
    """One line of the Markdown table."""
    herd = outcome.herd
    border = f"{outcome.border_copies:.2f}" if outcome.case.zones else "–"
    time = f"{outcome.slowest:.2f}" + (" (CPU-bound)" if outcome.is_cpu_bound else "")
    return (
        f"| {outcome.case.name} | {outcome.rates.upstream:g}, {outcome.rates.link:g} | {herd.copies:.3f} "
        f"| {herd.manifest_gets_max} | {outcome.alone.wall_seconds:.2f} "
        f"| {min(herd.seconds):.2f} · {max(herd.seconds):.2f} | {time} | {max(herd.sent_images):.1f} | {border} "
        f"| {herd.busy:.0%} |"
    )
