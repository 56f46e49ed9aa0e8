"""The declaration of a setting, kept in the metadata of a dataclass field.

The field's name is the setting's name: `mirror_resolve_timeout` is `--mirror-resolve-timeout` and
`MIRROR_RESOLVE_TIMEOUT`. A value arrives as text from either and goes through the setting's kind, which returns the
typed value or raises SettingError with words that tell the operator what would be right.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, Protocol


class SettingError(ValueError):
    """A value that is not of its setting's kind: the operator erred; the message says what would be right."""


class Kind(Protocol):
    """Turns text into a value and a default into text for the docs."""

    name: str  # for the docs: "duration", "list of URLs"
    is_list: bool  # a list flag may be given several times, with commas, or with several values behind it
    is_flag: bool  # a flag may stand alone: `--resolve-tags` is `--resolve-tags=true`

    def parse(self, value: str) -> Any:
        """The typed value. Raises SettingError."""

    def show(self, value: Any) -> str:
        """The value as an operator would write it."""


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
        """`MIRROR_RESOLVE_TIMEOUT`."""
        return self.name.upper()


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
