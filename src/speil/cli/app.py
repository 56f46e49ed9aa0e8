"""`speil COMMAND …`: finds the command, reads its settings, runs it.

Exit codes: 0 success, 1 failure, 2 wrong configuration, 128 plus the signal's number where a signal ended the command.
A failure is one line on stderr, never a traceback. A bug is one line too; --log-level DEBUG logs its traceback.

This module imports only what the list of commands needs. Settings, and with them most packages, are imported when a
command runs.
"""

from __future__ import annotations

import errno
import importlib
import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from types import ModuleType
from typing import Any, NamedTuple

from speil.cli import signals
from speil.version import __version__

_GLOBAL_FLAGS = ("--log-level", "--log-format")  # of LogSettings; a test compares
_HELP = ("-h", "--help")
_VERSION = ("-V", "--version")
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class UsageError(Exception):
    """The arguments name no command. The message is the line to print; exit code 2."""


class CommandError(Exception):
    """The command failed. The message is the line to print; exit code 1."""


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


COMMANDS = (
    Command("registry", "registry", "run a node: serve containerd from this node's and other nodes' content"),
    Command("configuration", "configuration", "put this node's mirror into containerd's hosts.toml files"),
    Command(
        "cleanup", "cleanup", "remove speil from containerd's hosts.toml files; with --addr, serve a probe until ended"
    ),
    Command("cleanup-wait", "cleanup_wait", "wait until all nodes have cleaned up"),
    Command("prepull", "prepull", "run until ended: a node that runs it has the image"),
    Command("prepull-wait", "prepull_wait", "wait until all nodes have the image, or for a time"),
    Command("region plan", "region_plan", "make values for the chart from the names of regions, and check them"),
    Command(
        "region status", "region_status", "show all regions: Lease, holder, nodes, hit ratio, bytes, rejected attempts"
    ),
    Command("region verify", "region_verify", "prove that the regions are isolated: Leases, election, traffic"),
    Command("region web", "region_web", "a page of all regions: map, roll-outs, traffic, border; on loopback"),
    Command("doctor", "doctor", "find out why pulls on this node do or do not go through speil"),
    Command("demo", "demo", "two regions on this machine pull images; a leader is killed; no byte crosses"),
    Command("version", "version", "print the version"),
)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command that `argv` (None: of the process) names. Returns the exit code."""
    signals.end_cleanly()
    try:
        code = _main(list(sys.argv[1:] if argv is None else argv))
        if sys.stdout is not None:
            sys.stdout.flush()
    except UsageError as error:
        print(f"speil: {error}", file=sys.stderr)
        code = 2
    except BrokenPipeError:
        code = _hang_up()
    except OSError as error:  # of the flush: the output was not written
        print(f"speil: the output can't be written: {error.strerror}", file=sys.stderr)
        _hang_up()
        code = 1
    except KeyboardInterrupt:
        code = signals.exit_code()
    return code


def _main(arguments: list[str]) -> int:
    before, words, rest = _split_command(arguments)
    if words and words[0] == "help":
        return _print_help([*words[1:], *(item for item in rest if not item.startswith("-"))])
    if not words:
        print(_overview())
        return 0
    if command := _find(words):
        return _run(command, [*before, *rest])
    if _group(words[0]) and any(item in _HELP for item in rest):
        print(_overview(words[0]))
        return 0
    raise _unknown(words)


def _hang_up() -> int:
    """The reader closed the pipe (`speil -h | head -1`), which needs no message. Returns 128 + SIGPIPE."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # else the interpreter flushes again at its end, and prints an error
    return 141


def _split_command(arguments: list[str]) -> tuple[list[str], list[str], list[str]]:
    """Splits into global flags before the command (as in Spegel), the words of the command, and the rest."""
    before: list[str] = []
    while arguments:
        item = arguments[0]
        if item in _HELP:
            return before, ["help"], arguments[1:]
        if item in _VERSION:
            return before, ["version"], []
        if not item.startswith("-"):
            count = 2 if _group(item) and len(arguments) > 1 and not arguments[1].startswith("-") else 1
            if item == "help":
                return before, ["help"], arguments[1:]
            if count == 2 and arguments[1] == "help":
                return before, ["help", item], arguments[2:]
            return before, arguments[:count], arguments[count:]
        flag, equals, _ = item.partition("=")
        if flag not in _GLOBAL_FLAGS:
            raise UsageError(f"unknown flag {flag} before the command{_nearest(flag, _GLOBAL_FLAGS)}")
        count = 1 if equals else 2
        before += arguments[:count]
        arguments = arguments[count:]
    return before, [], []


def _group(word: str) -> list[Command]:
    """The commands of the group `word`; none where there is no such group."""
    return [command for command in COMMANDS if command.name.startswith(f"{word} ")]


def _find(words: Sequence[str]) -> Command | None:
    return next((command for command in COMMANDS if command.name == " ".join(words)), None)


def _unknown(words: Sequence[str]) -> UsageError:
    """The error for an unknown command, with the nearest known one."""
    if len(words) == 1 and (group := _group(words[0])):
        return UsageError(f"{words[0]} is a group of commands: {', '.join(command.name for command in group)}")
    # `stauts` is near `region status`, `regoin` near the group
    names = {form: command.name for command in COMMANDS for form in (command.name, command.name.rpartition(" ")[2])}
    groups = {name.partition(" ")[0]: name.partition(" ")[0] for name in names.values() if " " in name}
    return UsageError(f"unknown command {' '.join(words)!r}{_nearest(' '.join(words), {**names, **groups})}")


def _nearest(word: str, known: Iterable[str] | Mapping[str, str]) -> str:
    """The end of an error line, with the nearest known word; a mapping gives the name to print."""
    import difflib

    near = difflib.get_close_matches(word, list(known), n=1)
    shown = known[near[0]] if near and isinstance(known, Mapping) else "".join(near)
    return f", did you mean {shown}?" if near else "; --help lists the commands"


def _print_help(words: Sequence[str]) -> int:
    """`speil help`, `speil help region`, `speil help region status`."""
    if not words or words == ["help"]:
        print(_overview())
        return 0
    for count in (2, 1):
        if command := _find(words[:count]):
            return _run(command, ["--help"])
    if not _group(words[0]) or len(words) > 1:
        raise _unknown(words[:2])
    print(_overview(words[0]))
    return 0


def _run(command: Command, argv: list[str]) -> int:
    module = importlib.import_module(f"speil.cli.{command.module}")
    from speil import config
    from speil.config import ConfigError, HelpRequested
    from speil.observe import logs
    from speil.observe.settings import LogSettings
    from speil.setting import declared

    kind: type = module.Settings
    known = [
        *config.all_settings(kind),
        *(one for one in declared(LogSettings) if one not in config.all_settings(kind)),
    ]
    prefix = f"speil {command.name}"
    try:
        arguments = config.split_arguments(command.name, argv, known)
        if arguments.positional:
            raise ConfigError(f"unexpected argument {arguments.positional[0]!r}")
        config.read_old_variables(command.name, arguments, known, os.environ)
        log_settings = config.build(LogSettings, arguments, os.environ, by_hand=command.by_hand)
        settings: Any = config.build(kind, arguments, os.environ, by_hand=command.by_hand)
    except HelpRequested:
        print(_help(command, kind))
        return 0
    except ConfigError as error:
        print(f"{prefix}: {error}", file=sys.stderr)
        return 2
    logs.configure(log_settings.log_level, log_settings.log_format)
    log = logs.get_log("cli")
    for warning in arguments.warnings:
        log.warning(warning)
    for setting in known:
        if (variable := setting.variable(by_hand=command.by_hand)) != setting.env and setting.env in os.environ:
            log.debug(f"environment variable {setting.env} is not read by this command, {variable} is")
    return _call(command, module, settings)


def _call(command: Command, module: ModuleType, settings: Any) -> int:
    from speil.config import ConfigError

    prefix, run = f"speil {command.name}", module.run
    try:
        code: int = run(settings)
        return code
    except ConfigError as error:
        print(f"{prefix}: {error}", file=sys.stderr)
        return 2
    except CommandError as error:
        print(f"{prefix}: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return signals.exit_code()
    except BrokenPipeError:
        raise  # of the command's output; broken connections of a node do not get here
    except OSError as error:
        if error.errno not in _FULL:
            return _bug(prefix, error)
        print(f"{prefix}: {error.filename or 'the output'} can't be written: {error.strerror}", file=sys.stderr)
        _hang_up()
        return 1
    except Exception as error:
        if isinstance(error, ExceptionGroup) and error.split(BrokenPipeError)[1] is None:
            raise BrokenPipeError from error
        return _bug(prefix, error)


def _bug(prefix: str, error: Exception) -> int:
    from speil.observe import logs

    logs.get_log("cli").exception("the command failed", error)
    print(f"{prefix}: {error!r}. This is a bug in speil; --log-level DEBUG shows the traceback.", file=sys.stderr)
    return 1


def _overview(group: str = "") -> str:
    usage = f"{group} COMMAND" if group else "COMMAND"
    lines = [
        f"speil {__version__}: a peer-to-peer OCI registry mirror",
        "",
        f"usage: speil {usage} [--flag value ...]",
        "",
    ]
    lines += [f"  {command.name:<15}{command.summary}" for command in (_group(group) if group else COMMANDS)]
    lines += ["", f"`speil {usage} --help` lists its flags; each is an environment variable too."]
    return "\n".join(lines)


def _help(command: Command, kind: type) -> str:
    import textwrap

    from speil.config import all_settings
    from speil.observe.settings import LogSettings
    from speil.setting import declared

    lines = [f"usage: speil {command.name} [--flag value ...]", "", command.summary, ""]
    shown_flags: set[str] = set()
    for setting in (*all_settings(kind), *declared(LogSettings)):
        if setting.flag in shown_flags:
            continue
        shown_flags.add(setting.flag)
        default = setting.kind.show(setting.default)
        shown = "required" if setting.required else f"default {default}" if default else "empty by default"
        variable = setting.variable(by_hand=command.by_hand)
        lines.append(f"  {setting.flag} <{setting.kind.name}>  ({shown}; {variable})")
        lines += textwrap.wrap(setting.help, 100, initial_indent="      ", subsequent_indent="      ")
    return "\n".join(lines)
