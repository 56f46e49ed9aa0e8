"""Draws Mermaid's sequence diagrams as SVG, in the colours of the page.

GitHub draws them with Mermaid, which is megabytes of script. The site draws the part of its language that the pages
use: participants, messages, `alt` with `else`, notes. Anything else is an error.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from html import escape

LANE_WIDTH, MARGIN, HEAD, STEP = 190, 20, 46, 40
TEXT = 'font-size="13" fill="currentColor"'
_PARTICIPANT = re.compile(r"participant (\w+) as (.+)")
_MESSAGE = re.compile(r"(\w+)(--?)>>(\w+): (.+)")
_NOTE = re.compile(r"Note over (\w+): (.+)")


class DiagramError(ValueError):
    """A line is of no form that can be drawn."""


@dataclass
class _Drawing:
    lanes: dict[str, float] = field(default_factory=dict)  # the middle of each participant's lane
    parts: list[str] = field(default_factory=list)
    y: float = MARGIN + HEAD + STEP
    frame_top: float = 0.0

    @property
    def width(self) -> float:
        return 2 * MARGIN + LANE_WIDTH * len(self.lanes)

    def text(self, x: float, y: float, words: str, more: str = 'text-anchor="middle"') -> None:
        self.parts.append(f'<text x="{x:g}" y="{y:g}" {TEXT} {more}>{escape(words)}</text>')

    def line(self, x1: float, y1: float, x2: float, y2: float, more: str = "") -> None:
        self.parts.append(f'<path d="M{x1:g} {y1:g}L{x2:g} {y2:g}" stroke="currentColor" fill="none" {more}/>')

    def box(self, x: float, y: float, width: float, height: float, more: str = "") -> None:
        self.parts.append(
            f'<rect x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}" rx="4" fill="none" '
            f'stroke="currentColor" {more}/>'
        )

    def add(self, line: str) -> None:
        """Draw a line of the source. Raises DiagramError."""
        if found := _PARTICIPANT.fullmatch(line):
            middle = MARGIN + LANE_WIDTH * (len(self.lanes) + 0.5)
            self.lanes[found[1]] = middle
            self.box(middle - LANE_WIDTH * 0.45, MARGIN, LANE_WIDTH * 0.9, HEAD - 10)
            self.text(middle, MARGIN + 23, found[2])
        elif (found := _MESSAGE.fullmatch(line)) and found[1] in self.lanes and found[3] in self.lanes:
            start, end = self.lanes[found[1]], self.lanes[found[3]]
            self.text((start + end) / 2, self.y - 7, found[4])
            dashes = ' stroke-dasharray="5 4"' if found[2] == "--" else ""
            self.line(start, self.y, end, self.y, f'marker-end="url(#arrow)"{dashes}')
            self.y += STEP
        elif (found := _NOTE.fullmatch(line)) and found[1] in self.lanes:
            self.text(
                max(self.lanes[found[1]], MARGIN + 110),
                self.y - 4,
                found[2],
                'text-anchor="middle" font-style="italic"',
            )
            self.y += STEP
        elif line.startswith("alt "):
            self.frame_top = self.y - STEP / 2
            self._case(line.removeprefix("alt "))
        elif line.startswith("else "):
            self.line(
                MARGIN / 2, self.y - STEP / 2, self.width - MARGIN / 2, self.y - STEP / 2, 'stroke-dasharray="2 3"'
            )
            self._case(line.removeprefix("else "))
        elif line == "end":
            bottom = self.y - STEP / 2
            self.box(MARGIN / 2, self.frame_top, self.width - MARGIN, bottom - self.frame_top, 'opacity="0.6"')
            self.y += STEP / 2
        else:
            raise DiagramError(f"the site can't draw this line of a sequence diagram: {line}")

    def _case(self, words: str) -> None:
        self.text(MARGIN, self.y, words, 'font-weight="bold"')
        self.y += STEP


def drawn(source: str, title: str) -> str:
    """The diagram as an SVG element. `title` is what a screen reader says of it. Raises DiagramError."""
    drawing = _Drawing()
    lines = [line.strip() for line in source.splitlines() if line.strip()]
    if lines[:1] != ["sequenceDiagram"]:
        raise DiagramError(f"the site draws sequence diagrams only, not: {source[:40]}")
    for line in lines[1:]:
        drawing.add(line)
    bottom = drawing.y
    for middle in drawing.lanes.values():
        drawing.line(middle, MARGIN + HEAD - 10, middle, bottom, 'opacity="0.35"')
    return (
        f'<svg role="img" viewBox="0 0 {drawing.width:g} {bottom + MARGIN:g}" style="max-width: 100%; height: auto" '
        f'xmlns="http://www.w3.org/2000/svg" font-family="inherit"><title>{escape(title)}</title>'
        '<defs><marker id="arrow" markerWidth="9" markerHeight="8" refX="9" refY="4" orient="auto">'
        '<path d="M0 0L9 4L0 8z" fill="currentColor"/></marker></defs>' + "".join(drawing.parts) + "</svg>"
    )
