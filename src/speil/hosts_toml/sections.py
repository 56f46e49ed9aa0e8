"""The text of a TOML file cut at its table headers, so that lines can be put in and taken out with all others kept."""

from __future__ import annotations

import re
import tomllib
from dataclasses import dataclass
from typing import Any

_MAY_BE_HEADER = re.compile(r"[ \t]*\[.*\][ \t\r]*(#.*)?\n?")  # most lines of long arrays are none


@dataclass(frozen=True, slots=True)
class Section:
    """A table header with what stands below it; `path` is its key, `("host", "https://x", "header")`."""

    path: tuple[str, ...]
    text: str

    @property
    def tail(self) -> str:
        """Comments behind the last key: they may speak of what follows."""
        return self.text[self._end() :].lstrip("\r\n")

    def _end(self) -> int:
        end = position = 0
        for line in _lines(self.text):
            position += len(line)
            if line.strip() and not line.lstrip().startswith("#"):
                end = position
        return end


def split(text: str) -> tuple[str, list[Section]]:
    """What stands before the first table, and the tables. The text has to be TOML.

    A line that begins with a bracket is a header where all before it is complete: otherwise it is part of an array or
    a text of several lines.
    """
    parts: list[list[str]] = [[]]
    for line in _lines(text):
        if _MAY_BE_HEADER.fullmatch(line) and _complete("".join(parts[-1])):
            parts.append([])
        parts[-1].append(line)
    root, *tables = ("".join(lines) for lines in parts)
    return root, [Section(_path(table), table) for table in tables]


def _lines(text: str) -> list[str]:
    """TOML's lines end with a line feed alone; str.splitlines knows more ends."""
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
