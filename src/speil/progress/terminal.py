"""What a terminal can show: whether there is one, colours, its width, the width of a text.

Colours go only to a terminal, and not where NO_COLOR is set (no-color.org) or TERM is `dumb`.
"""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Mapping
from typing import TextIO

COLUMNS = 80  # where the terminal does not say
RED, GREEN, YELLOW, CYAN = "31", "32", "33", "36"


def can_redraw(stream: TextIO | None, environ: Mapping[str, str] = os.environ) -> bool:
    """Whether the stream is a terminal on which a line can be written over."""
    try:
        return stream is not None and stream.isatty() and environ.get("TERM", "") not in ("", "dumb")
    except ValueError:  # it is closed
        return False


def has_colours(stream: TextIO | None, environ: Mapping[str, str] = os.environ) -> bool:
    """Whether texts for the stream are coloured."""
    return can_redraw(stream, environ) and not environ.get("NO_COLOR")


def coloured(text: str, colour: str, stream: TextIO | None, environ: Mapping[str, str] = os.environ) -> str:
    """The text in a colour, where the stream shows colours."""
    return f"\x1b[{colour}m{text}\x1b[0m" if has_colours(stream, environ) else text


def columns(stream: TextIO) -> int:
    """The terminal's width now: it may be resized at any time."""
    try:
        return os.get_terminal_size(stream.fileno()).columns or COLUMNS
    except (OSError, ValueError):
        return COLUMNS


def cells(text: str) -> int:
    """How many columns a text takes: two for each wide character of East Asian scripts and emoji, none for accents."""
    return sum(map(_cells, text))


def _cells(character: str) -> int:
    if unicodedata.combining(character) or unicodedata.category(character) in ("Cc", "Cf", "Me", "Mn"):
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1


def fitted(text: str, width: int) -> str:
    """The beginning of a text that fits into `width` columns, without control characters."""
    kept, left = [], width
    for character in text:
        if unicodedata.category(character) == "Cc":
            character = " "
        if (left := left - _cells(character)) < 0:
            break
        kept.append(character)
    return "".join(kept)


def shown(text: str, stream: TextIO) -> str:
    """The text with `?` for what the stream's encoding does not have."""
    encoding = stream.encoding or "ascii"
    return text.encode(encoding, "replace").decode(encoding)
