"""Splits the text of a TOML file at its table headers, so that tables can be added or removed without other changes."""

from __future__ import annotations

import re
import tomllib
from dataclasses import dataclass
from typing import Any

_MAY_BE_HEADER = re.compile(r"[ \t]*\[.*\][ \t\r]*(#.*)?\n?")  # cheap check; most lines of long arrays fail it


@dataclass(frozen=True, slots=True)
class Section:
    """A table header and the lines below it. `path` is its key, such as `("host", "https://x", "header")`."""

    path: tuple[str, ...]
    text: str

    @property
    def tail(self) -> str:
        """The comments after the last key; they may belong to the next table."""
        return self.text[self._end() :].lstrip("\r\n")

    def _end(self) -> int:
        end = position = 0
        for line in _lines(self.text):
            position += len(line)
            if line.strip() and not line.lstrip().startswith("#"):
                end = position
        return end


def split(text: str) -> tuple[str, list[Section]]:
    """The text before the first table, and the tables. `text` must be valid TOML.

    A line that begins with a bracket is a header if everything before it is valid TOML. Otherwise it is inside an array
    or a multi-line string.
    """
    parts: list[list[str]] = [[]]
    for line in _lines(text):
        if _MAY_BE_HEADER.fullmatch(line) and _complete("".join(parts[-1])):
            parts.append([])
        parts[-1].append(line)
    root, *tables = ("".join(lines) for lines in parts)
    return root, [Section(_path(table), table) for table in tables]


def _lines(text: str) -> list[str]:
    """Lines by TOML: only a line feed ends a line, unlike in str.splitlines."""
    return [f"{line}\n" for line in text.split("\n")[:-1]] + [text.rpartition("\n")[2]]


def _complete(text: str) -> bool:
    return _parsed(text) is not None


def _path(table: str) -> tuple[str, ...]:
    value: Any = _parsed(table.split("\n", 1)[0].rstrip("\r")) or {}
    keys: list[str] = []
    while isinstance(value, dict) and value:
        ((key, value),) = value.items()
        keys.append(key)
    return tuple(keys)


def _parsed(text: str) -> dict[str, Any] | None:
    try:
        return tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError):
        return None
