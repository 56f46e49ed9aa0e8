"""`speil COMMAND …`: finds the command, reads its settings, runs it.

Exit codes: 0 done, 1 it did not work, 2 the configuration is wrong. A traceback never reaches a user: what is expected
is one line, and a bug is one line that says so, with the traceback in the log at debug level.
"""

from __future__ import annotations

import difflib
import importlib
import os
import sys
import textwrap
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from speil import config
from speil.config import ConfigError, HelpRequested
from speil.observe import logs
from speil.observe.settings import LogSettings
from speil.setting import declared
from speil.version import __version__


class CommandError(Exception):
    """The command could not do its work; the message is the one line to show. Exit code 1."""


@dataclass(frozen=True, slots=True)
class Command:
    """A command: the module below `speil.cli` that has its `Settings` and `run`."""

    name: str
    module: str
    summary: str


COMMANDS = (
    Command("registry", "registry", "run a node: serve containerd from this node's and other nodes' content"),
    Command("configuration", "configuration", "put this node's mirror into containerd's hosts.toml files"),
    Command("cleanup", "cleanup", "take speil out of containerd's hosts.toml files; with --addr, wait to be ended"),
    Command("cleanup-wait", "cleanup_wait", "wait until all nodes have cleaned up"),
    Command("region plan", "region_plan", "from the names of regions to values for the chart, checked"),
    Command("region status", "region_status", "all regions: Lease, holder, nodes, hit ratio, bytes, who was kept out"),
    Command("region verify", "region_verify", "prove that the regions are isolated: Leases, election, traffic"),
    Command("doctor", "doctor", "say why pulls on this node do or don't go through speil"),
    Command("demo", "demo", "two regions on this machine pull images; a leader is killed; no byte crosses"),
    Command("version", "version", "print the version"),
)


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; the exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    try:
        before, name, rest = _split_command(arguments)
        if name is None:
            print(_overview())
            return 0
        command = _find(name)
        return _run(command, [*before, *rest])
    except ConfigError as error:
        print(f"speil: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130


def _split_command(arguments: list[str]) -> tuple[list[str], str | None, list[str]]:
    """Global flags may stand before the command, as in Spegel."""
    before: list[str] = []
    global_flags = {setting.flag for setting in declared(LogSettings)}
    while arguments:
        item = arguments[0]
        if item in ("-h", "--help"):
            return before, None, []
        if item == "--version":
            return before, "version", []
        if not item.startswith("-"):
            group = any(command.name.startswith(f"{item} ") for command in COMMANDS)
            count = 2 if group and len(arguments) > 1 and not arguments[1].startswith("-") else 1
            return before, " ".join(arguments[:count]), arguments[count:]
        flag, equals, _ = item.partition("=")
        if flag not in global_flags:
            raise ConfigError(f"unknown flag {flag} before the command; --help lists the commands")
        count = 1 if equals else 2
        before += arguments[:count]
        arguments = arguments[count:]
    return before, None, []


def _find(name: str) -> Command:
    for command in COMMANDS:
        if command.name == name:
            return command
    if group := [command.name for command in COMMANDS if command.name.startswith(f"{name} ")]:
        raise ConfigError(f"{name} is a group of commands: {', '.join(group)}")
    near = difflib.get_close_matches(name, [command.name for command in COMMANDS], n=1)
    hint = f", did you mean {near[0]}?" if near else "; --help lists the commands"
    raise ConfigError(f"unknown command {name!r}{hint}")


def _run(command: Command, argv: list[str]) -> int:
    module = importlib.import_module(f"speil.cli.{command.module}")
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
        log_settings = config.build(LogSettings, arguments, os.environ)
        settings: Any = config.build(kind, arguments, os.environ)
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
    run: Callable[[Any], int] = module.run
    try:
        return run(settings)
    except ConfigError as error:
        print(f"{prefix}: {error}", file=sys.stderr)
        return 2
    except CommandError as error:
        print(f"{prefix}: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    except Exception as error:
        log.exception("the command failed", error)
        print(f"{prefix}: {error!r}. This is a bug in speil; --log-level DEBUG shows more.", file=sys.stderr)
        return 1


def _overview() -> str:
    lines = [
        f"speil {__version__}: a peer-to-peer OCI registry mirror",
        "",
        "usage: speil COMMAND [--flag value ...]",
        "",
    ]
    lines += [f"  {command.name:<15}{command.summary}" for command in COMMANDS]
    lines += ["", "`speil COMMAND --help` lists its flags; each is an environment variable too."]
    return "\n".join(lines)


def _help(command: Command, kind: type) -> str:
    lines = [f"usage: speil {command.name} [--flag value ...]", "", command.summary, ""]
    for setting in [*config.all_settings(kind), *declared(LogSettings)]:
        if f"  {setting.flag} " in "\n".join(lines):
            continue
        default = setting.kind.show(setting.default)
        shown = "required" if setting.required else f"default {default}" if default else "empty by default"
        lines.append(f"  {setting.flag} <{setting.kind.name}>  ({shown}; {setting.env})")
        lines += textwrap.wrap(setting.help, 100, initial_indent="      ", subsequent_indent="      ")
    return "\n".join(lines)
