"""Registry filters: regular expressions in Go's syntax (RE2), as in Spegel.

RE2's own library compiles them: Python's `re` reads `[[:digit:]]`, `\\pL` or `\\z` in another way without an error, and
accepts lookaheads that Spegel refuses. The library is imported only where a filter is set.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import TYPE_CHECKING

from speil.observe.logs import get_log
from speil.setting import Kind, SettingError

if TYPE_CHECKING:
    from speil.oci.selection import Pattern

log = get_log("mirror")


def compile_filter(text: str) -> Pattern:
    """One filter. Raises SettingError with what RE2 says."""
    import re2

    options = re2.Options()
    options.log_errors = False
    try:
        pattern: Pattern = re2.compile(text, options)
    except re2.error as error:
        said = error.args[0] if error.args else error
        reason = said.decode(errors="replace") if isinstance(said, bytes) else str(said)
        raise SettingError(
            f"{text!r} is not a regular expression of Go's syntax (github.com/google/re2/wiki/Syntax): {reason}"
        ) from error
    return pattern


def split_filters(text: str) -> list[str]:
    """The filters in one environment variable: between commas or line breaks.

    A comma within brackets, braces or parentheses, behind a backslash, between `\\Q` and `\\E`, or within a field in
    double quotes (CSV, as Spegel reads the variable) belongs to its filter.
    """
    found = [""]
    depth, at = 0, 0
    while at < len(text):
        char = text[at]
        if not found[-1].strip() and char == '"' and (end := _closing_quote(text, at)) is not None:
            found[-1] = text[at + 1 : end].replace('""', '"')
            at = end + 1
            continue
        if char == "\n" or (char == "," and not depth):
            found.append("")
            depth, at = 0, at + 1
            continue
        if char in "({":
            depth += 1
        elif char in ")}":
            depth = max(depth - 1, 0)
        end = _atom_end(text, at)
        found[-1] += text[at:end]
        at = end
    return [one.strip() for one in found if one.strip()]


# RE2 reads each of these as one unit; a "]" at the start of a class belongs to it, and a class has no line break here
_QUOTED = re.compile(r"\\Q.*?(?:\\E|$)", re.MULTILINE)
_ESCAPED = re.compile(r"\\[^\n]?")
_CLASS = re.compile(r"\[\^?\]?(?:\[:\^?\w+:\]|\\[^\n]|[^\]\\\n])*\]")


def _atom_end(text: str, at: int) -> int:
    """Where the quotation, escape, class or character that begins at `at` ends."""
    for shape in (_QUOTED, _ESCAPED, _CLASS):
        if match := shape.match(text, at):
            return match.end()
    return at + 1


def _closing_quote(text: str, start: int) -> int | None:
    """Where the field in quotes that starts at `start` ends; None where it is no such field."""
    at = start + 1
    while (at := text.find('"', at)) >= 0:
        if text[at + 1 : at + 2] == '"':
            at += 2
            continue
        return at if text[at + 1 :].lstrip(" ")[:1] in ("", ",", "\n") else None
    return None


def _parse(text: str) -> tuple[Pattern, ...]:
    return tuple(compile_filter(one) for one in split_filters(text))


def _take(values: list[str]) -> tuple[Pattern, ...]:
    return tuple(compile_filter(value) for value in values if value)


filters = Kind(
    "list of regular expressions",
    _parse,
    lambda patterns: ",".join(_quoted(pattern.pattern) for pattern in patterns),
    is_list=True,
    take=_take,
)


def _quoted(pattern: str) -> str:
    if split_filters(pattern) == [pattern]:
        return pattern
    doubled = pattern.replace('"', '""')
    return f'"{doubled}"'


def warn_about_commas(patterns: Iterable[Pattern]) -> None:
    """Log a warning for each filter that holds a comma: no name does, so it was probably meant as two filters."""
    for pattern in patterns:
        if len(split_filters(pattern.pattern)) > 1:
            log.warning(
                "registry filter holds a comma, which no name does: give --registry-filters once for each pattern",
                filter=pattern.pattern,
            )
