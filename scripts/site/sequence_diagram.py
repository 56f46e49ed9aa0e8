"""Draws Mermaid's sequence diagrams: participants, messages, `alt` with `else`, notes."""

from __future__ import annotations

import re

from scripts.site.drawing import ARROW, DiagramError, Drawing

LANE_WIDTH, MARGIN, HEAD, STEP = 190, 20, 46, 40
_PARTICIPANT = re.compile(r"participant (\w+) as (.+)")
_MESSAGE = re.compile(r"(\w+)(--?)>>(\w+): (.+)")
_NOTE = re.compile(r"Note over (\w+): (.+)")
_DASHED = 'stroke-dasharray="5 4"'


class _Sequence:
    """Draws line by line, from top to bottom."""

    def __init__(self) -> None:
        self.drawing = Drawing()
        self.lanes: dict[str, float] = {}  # the middle of each participant's lane
        self.y: float = MARGIN + HEAD + STEP
        self._frame_top = 0.0

    @property
    def width(self) -> float:
        return 2 * MARGIN + LANE_WIDTH * len(self.lanes)

    def add(self, line: str) -> None:
        """Draw a line of the source. Raises DiagramError."""
        drawing = self.drawing
        if found := _PARTICIPANT.fullmatch(line):
            middle = MARGIN + LANE_WIDTH * (len(self.lanes) + 0.5)
            self.lanes[found[1]] = middle
            drawing.box(middle - LANE_WIDTH * 0.45, MARGIN, LANE_WIDTH * 0.9, HEAD - 10)
            drawing.text(middle, MARGIN + 23, found[2])
        elif (found := _MESSAGE.fullmatch(line)) and {found[1], found[3]} <= self.lanes.keys():
            start, end = self.lanes[found[1]], self.lanes[found[3]]
            drawing.text((start + end) / 2, self.y - 7, found[4])
            drawing.line(start, self.y, end, self.y, f"{ARROW} {_DASHED if found[2] == '--' else ''}")
            self.y += STEP
        elif (found := _NOTE.fullmatch(line)) and found[1] in self.lanes:
            middle = max(self.lanes[found[1]], MARGIN + 110)
            drawing.text(middle, self.y - 4, found[2], 'text-anchor="middle" font-style="italic"')
            self.y += STEP
        elif line.startswith("alt "):
            self._frame_top = self.y - STEP / 2
            self._case(line.removeprefix("alt "))
        elif line.startswith("else "):
            top = self.y - STEP / 2
            drawing.line(MARGIN / 2, top, self.width - MARGIN / 2, top, 'stroke-dasharray="2 3"')
            self._case(line.removeprefix("else "))
        elif line == "end":
            height = self.y - STEP / 2 - self._frame_top
            drawing.box(MARGIN / 2, self._frame_top, self.width - MARGIN, height, 'opacity="0.6"')
            self.y += STEP / 2
        else:
            raise DiagramError(f"no participant, message, case or note: {line}")

    def _case(self, words: str) -> None:
        self.drawing.text(MARGIN, self.y, words, 'font-weight="bold"')
        self.y += STEP


def drawn(lines: list[str], title: str) -> str:
    """The lines behind `sequenceDiagram` as an SVG element. Raises DiagramError."""
    sequence = _Sequence()
    for line in lines:
        sequence.add(line)
    for middle in sequence.lanes.values():
        sequence.drawing.line(middle, MARGIN + HEAD - 10, middle, sequence.y, 'opacity="0.35"')
    return sequence.drawing.svg(sequence.width, sequence.y + MARGIN, title)
