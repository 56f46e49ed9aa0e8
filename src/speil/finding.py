"""What a check found: how good or bad it is, in words, and what to do about it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Level(StrEnum):
    """How good or bad."""

    OK = "ok"
    WARN = "warn"
    FAIL = "fail"


@dataclass(frozen=True, slots=True)
class Finding:
    """The result of one check; `remedy` says what to do, empty where all is well."""

    check: str
    level: Level
    message: str
    remedy: str = ""
