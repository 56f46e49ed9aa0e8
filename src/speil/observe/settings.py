"""The settings of the log, which every command has."""

from __future__ import annotations

from dataclasses import dataclass

from speil.observe.logs import LEVELS
from speil.setting import Kind, SettingError, one_of, setting


def _level(value: str) -> str:
    level = {"WARNING": "WARN"}.get(value.upper(), value.upper())
    if level not in LEVELS:
        raise SettingError(f"{value!r} is not a log level: use one of {', '.join(LEVELS)}")
    return level


@dataclass(frozen=True, slots=True)
class LogSettings:
    """See the help of each setting."""

    log_level: str = setting(Kind("|".join(LEVELS), _level), "INFO", help="From which level on lines are written.")
    log_format: str = setting(one_of("json", "text"), "json", help="JSON for machines, text for people.")
