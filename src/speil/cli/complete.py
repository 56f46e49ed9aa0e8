"""`speil __complete WORD…`: the candidates for the last word, for the scripts of shells and for kubectl.

The protocol is Cobra's, which kubectl speaks too: a line for each candidate, with a description behind a tab, then a
line `:NUMBER` that says what the shell is to do. Candidates that are in the cluster (nodes, regions) are asked for
with the kubeconfig and the context of the line; whatever fails leaves no candidates.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from enum import IntEnum

from speil.cli.help import settings_of
from speil.cli.program import GLOBAL_FLAGS, Command, Program, split_command
from speil.setting import Setting

Candidate = tuple[str, str]  # the word and its description
_FILE_KINDS = ("file", "path", "list of files")


class Directive(IntEnum):
    """What the shell does when it has the candidates."""

    FILES = 0  # where there are none: names of files
    NOTHING = 4
    FOLDERS = 16


def complete(program: Program, words: Sequence[str]) -> list[str]:
    """The lines to print. The last word is the one that is being typed."""
    current = words[-1] if words else ""
    candidates, directive = _complete(program, list(words[:-1]), current)
    lines = [f"{word}\t{about}" if about else word for word, about in candidates if word.startswith(current)]
    return [*lines, f":{directive.value}"]


def _complete(program: Program, before: list[str], current: str) -> tuple[list[Candidate], Directive]:
    while before and before[0].partition("=")[0] in GLOBAL_FLAGS:
        before = before[1 if "=" in before[0] else 2 :]
    if command := _typed(program, before):
        return _of_command(command, before[len(command.name.split()) :], current)
    if current.startswith("-"):
        return [(flag, "") for flag in (*GLOBAL_FLAGS, "--help", "--version")], Directive.NOTHING
    return list(_commands(program, " ".join(before))), Directive.NOTHING


def _typed(program: Program, before: list[str]) -> Command | None:
    return program.find(split_command(program, before)[1]) if before and not before[0].startswith("-") else None


def _commands(program: Program, group: str) -> Iterator[Candidate]:
    """The commands of a group; "" those without, and the groups."""
    if group in ("", "help"):
        seen = set[str]()
        for command in program.commands:
            first, space, _ = command.name.partition(" ")
            if first not in seen:
                seen.add(first)
                yield first, f"commands for {first}s" if space else command.summary
        return
    for command in program.group(group.removeprefix("help ")):
        yield command.name.partition(" ")[2], command.summary


def _of_command(command: Command, words: list[str], current: str) -> tuple[list[Candidate], Directive]:
    kind: type = importlib.import_module(f"speil.cli.{command.module}").Settings
    settings = list(settings_of(kind))
    flags = {flag: one for one in settings for flag in one.flags}
    name, equals, typed = current.partition("=")
    if equals and (setting := flags.get(name)):
        found, directive = _values(setting, words, typed)
        return [(f"{name}={word}", about) for word, about in found], directive
    if words and (setting := flags.get(words[-1])) and not setting.kind.is_flag:
        return _values(setting, words, current)
    if current.startswith("-"):
        return [*((flag, one.help) for flag, one in flags.items()), ("--help", "show the help")], Directive.NOTHING
    places = [one for one in settings if one.is_positional]
    count = len(list(_positional(words, flags)))
    return _values(places[count], words, current) if count < len(places) else ([], Directive.NOTHING)


def _positional(words: Iterable[str], flags: dict[str, Setting]) -> Iterator[str]:
    takes_value = False
    for word in words:
        if takes_value:
            takes_value = False
        elif not word.startswith("-"):
            yield word
        elif (setting := flags.get(word)) is not None:
            takes_value = not setting.kind.is_flag


def _values(setting: Setting, words: Sequence[str], typed: str) -> tuple[list[Candidate], Directive]:
    kind = setting.kind
    if kind.choices or kind.is_flag:
        return [(choice, "") for choice in kind.choices or ("true", "false")], Directive.NOTHING
    if kind.name in _FILE_KINDS:
        return [], Directive.FILES
    if kind.name == "directory":
        return [], Directive.FOLDERS
    from speil.cli import complete_cluster

    readers: dict[str, Callable[[Sequence[str]], list[str]]] = {
        "kubeconfig_context": complete_cluster.contexts,
        "node": complete_cluster.nodes,
        "regions": complete_cluster.regions,
        "namespace": complete_cluster.namespaces,
    }
    if (reader := readers.get(setting.name)) is None:
        return [], Directive.NOTHING
    # of a list, the part behind the last comma is being typed
    chosen = typed[: typed.rfind(",") + 1] if kind.is_list else ""
    return [(f"{chosen}{name}", "") for name in reader(words)], Directive.NOTHING
