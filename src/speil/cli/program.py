"""The commands of a program, and which of them the arguments name."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

GLOBAL_FLAGS = ("--log-level", "--log-format")  # of LogSettings; a test compares
HELP = ("-h", "--help")
_VERSION = ("-V", "--version")


class UsageError(Exception):
    """The arguments name no command. The message is the line to print; exit code 2."""


class Command(NamedTuple):
    """A command. `module` below `speil.cli` has its `Settings` and `run(settings)`, which returns the exit code."""

    name: str
    module: str
    summary: str

    @property
    def by_hand(self) -> bool:
        """Whether people run it, and not charts or units: see setting.declare."""
        return self.name not in (
            "registry", "configuration", "cleanup", "cleanup-wait", "prepull", "prepull-wait",
        )  # fmt: skip


class Program(NamedTuple):
    """A program's name as people type it, and its commands."""

    name: str
    commands: tuple[Command, ...]

    def group(self, word: str) -> list[Command]:
        """The commands of the group `word`; none where there is no such group."""
        return [command for command in self.commands if command.name.startswith(f"{word} ")]

    def find(self, words: Sequence[str]) -> Command | None:
        """The command of that name."""
        return next((command for command in self.commands if command.name == " ".join(words)), None)


def split_command(program: Program, arguments: list[str]) -> tuple[list[str], list[str], list[str]]:
    """Splits into global flags before the command (as in Spegel), the words of the command, and the rest."""
    before: list[str] = []
    while arguments:
        item = arguments[0]
        if item in HELP:
            return before, ["help"], arguments[1:]
        if item in _VERSION:
            return before, ["version"], []
        if not item.startswith("-"):
            count = 2 if program.group(item) and len(arguments) > 1 and not arguments[1].startswith("-") else 1
            if item == "help":
                return before, ["help"], arguments[1:]
            if count == 2 and arguments[1] == "help":
                return before, ["help", item], arguments[2:]
            return before, arguments[:count], arguments[count:]
        flag, equals, _ = item.partition("=")
        if flag not in GLOBAL_FLAGS:
            raise UsageError(f"unknown flag {flag} before the command{nearest(flag, GLOBAL_FLAGS)}")
        count = 1 if equals else 2
        before += arguments[:count]
        arguments = arguments[count:]
    return before, [], []


def unknown(program: Program, words: Sequence[str]) -> UsageError:
    """The error for an unknown command, with the nearest known one."""
    if len(words) == 1 and (group := program.group(words[0])):
        return UsageError(f"{words[0]} is a group of commands: {', '.join(command.name for command in group)}")
    # `stauts` is near `region status`, `regoin` near the group
    names = {
        form: command.name
        for command in reversed(program.commands)
        for form in (command.name.rpartition(" ")[2], command.name)
    }
    groups = {name.partition(" ")[0]: name.partition(" ")[0] for name in names.values() if " " in name}
    return UsageError(f"unknown command {' '.join(words)!r}{nearest(' '.join(words), {**names, **groups})}")


def nearest(word: str, known: Iterable[str] | Mapping[str, str]) -> str:
    """The end of an error line, with the nearest known word; a mapping gives the name to print."""
    import difflib

    near = difflib.get_close_matches(word, list(known), n=1)
    shown = known[near[0]] if near and isinstance(known, Mapping) else "".join(near)
    return f", did you mean {shown}?" if near else "; --help lists the commands"
