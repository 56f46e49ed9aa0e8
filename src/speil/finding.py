"""The result of a check of `speil doctor` or `speil region`."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Level(StrEnum):
    """WARN does not fail the command, FAIL does."""

    OK = "ok"
    WARN = "warn"
    FAIL = "fail"


@dataclass(frozen=True, slots=True)
class Finding:
    """`check` is what was checked, `message` what was found, `remedy` what to do about it ("" where nothing)."""

    check: str
    level: Level
    message: str
    remedy: str = ""
