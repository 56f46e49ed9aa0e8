"""The declaration of a setting, kept in the metadata of a dataclass field.

The field's name is the setting's name: `mirror_resolve_timeout` is `--mirror-resolve-timeout` and
`MIRROR_RESOLVE_TIMEOUT`. Both give the value as text. The setting's kind parses it, or raises SettingError with what
would be right.

Commands that people run by hand share their environment with CI systems and shells, which set variables with common
names (`OUTPUT`, `IMAGE`, `NODES`, `REGION`, `LOG_LEVEL`). These commands read such names only with the prefix `SPEIL_`.
The commands that charts and units run keep Spegel's names.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

PREFIX = "SPEIL_"
# common names of two words; every name of one word counts as common
COMMON_NAMES = frozenset({"log_level", "log_format"})


class SettingError(ValueError):
    """The operator gave a wrong value, or settings that do not fit together. The message says what would be right."""


@dataclass(frozen=True)
class Kind:
    """A type of values: its parser, which raises SettingError, and the way back to text."""

    name: str  # for the docs: "duration", "list of URLs"
    parse: Callable[[str], Any]
    shower: Callable[[Any], str] = str
    is_list: bool = False  # given several times, with commas, or as several values after the flag
    is_flag: bool = False  # may stand alone: `--resolve-tags` is `--resolve-tags=true`
    take: Callable[[list[str]], Any] | None = (
        None  # parses the values of the command line, where a value of this list may hold commas
    )
    choices: tuple[str, ...] = ()  # all values that it takes; () where they can't be listed

    def show(self, value: Any) -> str:
        """The value as text that `parse` takes; "" for None."""
        return "" if value is None else self.shower(value)


@dataclass(frozen=True, slots=True)
class Setting:
    """One declared setting."""

    name: str
    kind: Kind
    default: Any
    help: str
    required: bool = False
    also: tuple[str, ...] = ()  # other spellings of the flag: `--context`, `-o`
    is_positional: bool = False  # the value may stand without a flag before it: `doctor NODE`

    @property
    def flag(self) -> str:
        """`--mirror-resolve-timeout`."""
        return "--" + self.name.replace("_", "-")

    @property
    def flags(self) -> tuple[str, ...]:
        """All spellings, the long one of the name first."""
        return (self.flag, *self.also)

    @property
    def place(self) -> str:
        """How a usage line names the value of a positional setting: `NODE`."""
        return self.name.upper().replace("_", "-")

    @property
    def env(self) -> str:
        """`MIRROR_RESOLVE_TIMEOUT`, as commands that charts and units run read it."""
        return self.name.upper()

    def variable(self, *, by_hand: bool) -> str:
        """The environment variable; `by_hand`: of a command that people run, which reads common names with a prefix."""
        is_common = "_" not in self.name or self.name in COMMON_NAMES
        return f"{PREFIX}{self.env}" if by_hand and is_common else self.env


def setting(
    kind: Kind,
    default: Any = None,
    *,
    help: str,
    required: bool = False,
    also: tuple[str, ...] = (),
    positional: bool = False,
) -> Any:
    """A dataclass field that is a setting. `help` is one sentence with the unit and the reason.

    A `required` setting without a value is refused by `config.build`. `also`: other spellings of the flag, such as
    `-o`. `positional`: the value may stand without a flag before it; values go to such settings in their order.
    """
    metadata = {"kind": kind, "help": help, "required": required, "also": also, "positional": positional}
    return dataclasses.field(default=default, metadata=metadata)


def declared(settings: type) -> list[Setting]:
    """The settings that a dataclass declares itself, in order; not those of dataclasses within it."""
    return [
        Setting(
            field.name,
            field.metadata["kind"],
            field.default,
            field.metadata["help"],
            field.metadata["required"],
            field.metadata["also"],
            field.metadata["positional"],
        )
        for field in dataclasses.fields(settings)
        if "kind" in field.metadata
    ]
