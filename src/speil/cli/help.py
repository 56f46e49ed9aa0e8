"""The help of a command, from its declared settings."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator

from speil.config import all_settings
from speil.observe.settings import LogSettings
from speil.setting import Setting, declared


def settings_of(kind: type) -> Iterator[Setting]:
    """The settings of a command and those that all commands have, each once."""
    seen: set[str] = set()
    for setting in (*all_settings(kind), *declared(LogSettings)):
        if setting.flag not in seen:
            seen.add(setting.flag)
            yield setting


def usage(program: str, command: str, kind: type) -> str:
    """`kubectl speil doctor NODE [--flag value ...]`."""
    places = [one.place if one.required else f"[{one.place}]" for one in settings_of(kind) if one.is_positional]
    return " ".join([program, command, *places, "[--flag value ...]"])


def default_of(setting: Setting) -> str:
    """`required`, `default 5s` or `empty by default`."""
    default = setting.kind.show(setting.default)
    return "required" if setting.required else f"default {default}" if default else "empty by default"


def spellings(setting: Setting) -> str:
    """`NODE`, or `--output, -o <table|json>`."""
    return setting.place if setting.is_positional else f"{', '.join(setting.flags)} <{setting.kind.name}>"


def command_help(program: str, command: str, summary: str, kind: type, *, by_hand: bool) -> str:
    """The text of `--help`."""
    lines = [f"usage: {usage(program, command, kind)}", "", summary, ""]
    for setting in settings_of(kind):
        lines.append(f"  {spellings(setting)}  ({default_of(setting)}; {setting.variable(by_hand=by_hand)})")
        lines += textwrap.wrap(setting.help, 100, initial_indent="      ", subsequent_indent="      ")
    return "\n".join(lines)
