"""Parts of a picture, as SVG in the colours of the page."""

from __future__ import annotations

import zlib
from dataclasses import dataclass, field
from html import escape

_TEXT = 'font-size="13" fill="currentColor"'
ARROW = 'marker-end="url(#arrow)"'
_HEAD = (
    '<defs><marker id="arrow" markerWidth="9" markerHeight="8" refX="9" refY="4" orient="auto">'
    '<path d="M0 0L9 4L0 8z" fill="currentColor"/></marker></defs>'
)


class DiagramError(ValueError):
    """The diagram, or a line of it, is of a form that can't be drawn."""


@dataclass
class Drawing:
    """Collects the parts; `more` are further attributes of a part."""

    parts: list[str] = field(default_factory=list)

    def text(self, x: float, y: float, words: str, more: str = 'text-anchor="middle"') -> None:
        """Words with their middle at `x`."""
        self.parts.append(f'<text x="{x:g}" y="{y:g}" {_TEXT} {more}>{escape(words)}</text>')

    def line(self, x1: float, y1: float, x2: float, y2: float, more: str = "") -> None:
        """A straight line."""
        self.parts.append(f'<path d="M{x1:g} {y1:g}L{x2:g} {y2:g}" stroke="currentColor" fill="none" {more}/>')

    def box(self, x: float, y: float, width: float, height: float, more: str = "") -> None:
        """A frame with round corners."""
        self.parts.append(
            f'<rect x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}" rx="4" fill="none" '
            f'stroke="currentColor" {more}/>'
        )

    def svg(self, width: float, height: float, title: str) -> str:
        """The element. `title` is what a screen reader says of it."""
        parts = "".join(self.parts)
        # a page may have several pictures, and an id only once
        arrow = f"arrow-{zlib.crc32(parts.encode()):08x}"
        return (
            (
                f'<svg role="img" viewBox="0 0 {width:g} {height:g}" style="max-width: 100%; width: {width:g}px" '
                f'xmlns="http://www.w3.org/2000/svg" font-family="inherit"><title>{escape(title)}</title>'
                f"{_HEAD}{parts}</svg>"
            )
            .replace('id="arrow"', f'id="{arrow}"')
            .replace("url(#arrow)", f"url(#{arrow})")
        )
