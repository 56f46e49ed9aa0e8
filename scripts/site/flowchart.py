"""Draws the trees among Mermaid's flowcharts: `flowchart LR`, boxes, arrows with or without words."""

from __future__ import annotations

import re

from scripts.site.drawing import ARROW, DiagramError, Drawing

COLUMN, ROW, BOX_WIDTH, BOX_HEIGHT, MARGIN = 250, 50, 150, 34, 10
_BOX = r"(\w+)(?:\[(.+?)\])?"
_EDGE = re.compile(rf"{_BOX} -->(?:\|(.+?)\|)? ?{_BOX}")


class _Tree:
    """Boxes by column (steps from the root) and row: leaves in their order, a parent in the middle of its children."""

    def __init__(self, lines: list[str]) -> None:
        self.labels: dict[str, str] = {}
        self.edges: list[tuple[str, str, str]] = []
        for line in lines:
            if not (found := _EDGE.fullmatch(line)):
                raise DiagramError(f"not an arrow between two boxes: {line}")
            for name, label in ((found[1], found[2]), (found[4], found[5])):
                self.labels[name] = label or self.labels.get(name, name)
            self.edges.append((found[1], found[4], found[3] or ""))
        children = [target for _, target, _ in self.edges]
        if len(set(children)) != len(children) or not (roots := set(self.labels) - set(children)):
            raise DiagramError("a box with two parents, or a circle: only trees are drawn")
        self.places: dict[str, tuple[int, float]] = {}
        self.rows = 0
        for root in (name for name in self.labels if name in roots):
            self._place(root, 0)
        self.columns = 1 + max(column for column, _ in self.places.values())

    def _place(self, name: str, column: int) -> float:
        below = [self._place(target, column + 1) for source, target, _ in self.edges if source == name]
        if below:
            row = sum(below) / len(below)
        else:
            row, self.rows = float(self.rows), self.rows + 1
        self.places[name] = (column, row)
        return row


def drawn(lines: list[str], title: str) -> str:
    """The lines behind `flowchart LR` as an SVG element. Raises DiagramError."""
    tree, drawing = _Tree(lines), Drawing()
    at = {name: (MARGIN + column * COLUMN, MARGIN + row * ROW) for name, (column, row) in tree.places.items()}
    for name, (x, y) in at.items():
        drawing.box(x, y, BOX_WIDTH, BOX_HEIGHT)
        drawing.text(x + BOX_WIDTH / 2, y + 22, tree.labels[name])
    for source, target, words in tree.edges:
        (x1, y1), (x2, y2) = at[source], at[target]
        drawing.line(x1 + BOX_WIDTH, y1 + BOX_HEIGHT / 2, x2, y2 + BOX_HEIGHT / 2, ARROW)
        if words:
            drawing.text((x1 + BOX_WIDTH + x2) / 2, (y1 + y2 + BOX_HEIGHT) / 2 - 6, words)
    width = 2 * MARGIN + (tree.columns - 1) * COLUMN + BOX_WIDTH
    return drawing.svg(width, 2 * MARGIN + (tree.rows - 1) * ROW + BOX_HEIGHT, title)
