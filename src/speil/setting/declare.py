"""The declaration of a setting, kept in the metadata of a dataclass field.

The field's name is the setting's name: `mirror_resolve_timeout` is `--mirror-resolve-timeout` and
`MIRROR_RESOLVE_TIMEOUT`. A value arrives as text from either and goes through the setting's kind, which returns the
typed value or raises SettingError with words that tell the operator what would be right.

Commands that people run by hand share their environment with CI systems and shells, which set variables of their own
under common names (`OUTPUT`, `IMAGE`, `NODES`, `REGION`, `LOG_LEVEL`). There such names are read with `SPEIL_` before
them, and only so; the commands that charts and units run keep Spegel's names.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

PREFIX = "SPEIL_"
# of two words and common all the same; every name of one word is taken for common
COMMON_NAMES = frozenset({"log_level", "log_format"})


class SettingError(ValueError):
    """A value that is not of its setting's kind: the operator erred; the message says what would be right."""


@dataclass(frozen=True)
class Kind:
    """What a value is: its parser, which raises SettingError, and how an operator would write it."""

    name: str  # for the docs: "duration", "list of URLs"
    parse: Callable[[str], Any]
    shower: Callable[[Any], str] = str
    is_list: bool = False  # may be given several times, with commas, or with several values behind the flag
    is_flag: bool = False  # may stand alone: `--resolve-tags` is `--resolve-tags=true`
    take: Callable[[list[str]], Any] | None = None  # of a list whose values on the command line may hold commas

    def show(self, value: Any) -> str:
        """The value as an operator would write it."""
        return "" if value is None else self.shower(value)


@dataclass(frozen=True, slots=True)
class Setting:
    """One declared setting, as `config` and the docs see it."""

    name: str
    kind: Kind
    default: Any
    help: str
    required: bool = False

    @property
    def flag(self) -> str:
        """`--mirror-resolve-timeout`."""
        return "--" + self.name.replace("_", "-")

    @property
    def env(self) -> str:
        """`MIRROR_RESOLVE_TIMEOUT`: the variable of commands that charts and units run."""
        return self.name.upper()

    def variable(self, *, by_hand: bool) -> str:
        """The environment variable, for a command that people run `by_hand`, or for one that they don't."""
        is_common = "_" not in self.name or self.name in COMMON_NAMES
        return f"{PREFIX}{self.env}" if by_hand and is_common else self.env


def setting(kind: Kind, default: Any = None, *, help: str, required: bool = False) -> Any:
    """A dataclass field that is a setting. `help` is one sentence with the unit and the reason."""
    return dataclasses.field(default=default, metadata={"kind": kind, "help": help, "required": required})


def declared(settings: type) -> list[Setting]:
    """The settings that a dataclass declares, in order."""
    return [
        Setting(
            field.name,
            field.metadata["kind"],
            field.default,
            field.metadata["help"],
            field.metadata["required"],
        )
        for field in dataclasses.fields(settings)
        if "kind" in field.metadata
    ]
