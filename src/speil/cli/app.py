"""`speil COMMAND …` and `kubectl speil COMMAND …`: finds the command, reads its settings, runs it.

Exit codes: 0 success, 1 failure, 2 wrong configuration, 128 plus the signal's number where a signal ended the command.
A failure is one line on stderr, never a traceback. A bug is one line too; --log-level DEBUG logs its traceback.

This module imports only what the list of commands needs. Settings, and with them most packages, are imported when a
command runs.
"""

from __future__ import annotations

import errno
import importlib
import io
import os
import sys
from collections.abc import Sequence
from types import ModuleType
from typing import Any

from speil.cli import signals
from speil.cli.program import HELP, Command, Program, UsageError, split_command, unknown
from speil.version import __version__

COMPLETE = "__complete"  # what the completion scripts of shells and kubectl call
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class CommandError(Exception):
    """The command failed. The message is the line to print; exit code 1."""


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
    Command("region trace", "region_trace", "show where each node would get the layers of an image"),
    Command("region doctor", "region_doctor", "run doctor in the pod of a node"),
    Command("doctor", "doctor", "find out why pulls on this node do or do not go through speil"),
    Command("demo", "demo", "two regions on this machine pull images; a leader is killed; no byte crosses"),
    Command("completion", "completion", "print the script that completes commands and flags in a shell"),
    Command("version", "version", "print the version"),
)
SPEIL = Program("speil", COMMANDS)
# `kubectl speil status` is `speil region status`: what people do with a cluster
PLUGIN = Program(
    "kubectl speil",
    tuple(
        command._replace(name=command.name.removeprefix("region "))
        for command in COMMANDS
        if command.name.startswith("region ") or command.name == "version"
    ),
)


def main(argv: Sequence[str] | None = None, program: Program = SPEIL) -> int:
    """Run the command that `argv` (None: of the process) names. Returns the exit code.

    After an interrupt the process ends here, where `argv` is its own: no thread is waited for.
    """
    signals.end_cleanly()
    _never_fail_to_encode()
    is_interrupted = False
    try:
        code = _main(program, list(sys.argv[1:] if argv is None else argv))
        if sys.stdout is not None:
            sys.stdout.flush()
    except UsageError as error:
        print(f"{program.name}: {error}", file=sys.stderr)
        code = 2
    except BrokenPipeError:
        code = _hang_up()
    except OSError as error:  # of the flush: the output was not written
        print(f"{program.name}: the output can't be written: {error.strerror}", file=sys.stderr)
        _hang_up()
        code = 1
    except KeyboardInterrupt:
        if argv is None:
            signals.ignore_more()
        code, is_interrupted = signals.exit_code(), True
    if is_interrupted and argv is None:
        signals.leave(code)
    return code


def plugin() -> int:
    """See the package."""
    return main(program=PLUGIN)


def complete_plugin() -> int:
    """See the package."""
    return main([COMPLETE, *sys.argv[1:]], PLUGIN)


def _main(program: Program, arguments: list[str]) -> int:
    if arguments[:1] == [COMPLETE]:
        from speil.cli.complete import complete

        print("\n".join(complete(program, arguments[1:])))
        return 0
    before, words, rest = split_command(program, arguments)
    if words and words[0] == "help":
        return _print_help(program, [*words[1:], *(item for item in rest if not item.startswith("-"))])
    if not words:
        print(_overview(program))
        return 0
    if command := program.find(words):
        return _run(program, command, [*before, *rest])
    if program.group(words[0]) and any(item in HELP for item in rest):
        print(_overview(program, words[0]))
        return 0
    raise unknown(program, words)


def _never_fail_to_encode() -> None:
    """A character that the locale's encoding does not have is printed as `?`."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper) and stream.errors == "strict":
            stream.reconfigure(errors="replace")


def _hang_up() -> int:
    """The reader closed the pipe (`speil -h | head -1`), which needs no message. Returns 128 + SIGPIPE."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # else the interpreter flushes again at its end, and prints an error
    return 141


def _print_help(program: Program, words: Sequence[str]) -> int:
    """`speil help`, `speil help region`, `speil help region status`."""
    if not words or words == ["help"]:
        print(_overview(program))
        return 0
    for count in (2, 1):
        if command := program.find(words[:count]):
            return _run(program, command, ["--help"])
    if not program.group(words[0]) or len(words) > 1:
        raise unknown(program, words[:2])
    print(_overview(program, words[0]))
    return 0


def _run(program: Program, command: Command, argv: list[str]) -> int:
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
    prefix = f"{program.name} {command.name}"
    try:
        arguments = config.split_arguments(command.name, argv, known)
        if arguments.positional:
            raise ConfigError(f"unexpected argument {arguments.positional[0]!r}")
        config.read_old_variables(command.name, arguments, known, os.environ)
        log_settings = config.build(LogSettings, arguments, os.environ, by_hand=command.by_hand)
        settings: Any = config.build(kind, arguments, os.environ, by_hand=command.by_hand)
    except HelpRequested:
        from speil.cli.help import command_help

        print(command_help(program.name, command.name, command.summary, kind, by_hand=command.by_hand))
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
    return _call(prefix, module, settings)


def _call(prefix: str, module: ModuleType, settings: Any) -> int:
    from speil.config import ConfigError

    try:
        code: int = module.run(settings)
        return code
    except ConfigError as error:
        print(f"{prefix}: {error}", file=sys.stderr)
        return 2
    except CommandError as error:
        print(f"{prefix}: {error}", file=sys.stderr)
        return 1
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


def _overview(program: Program, group: str = "") -> str:
    usage = f"{program.name} {group} COMMAND" if group else f"{program.name} COMMAND"
    lines = [
        f"speil {__version__}: a peer-to-peer OCI registry mirror",
        "",
        f"usage: {usage} [--flag value ...]",
        "",
    ]
    lines += [
        f"  {command.name:<15}{command.summary}" for command in (program.group(group) if group else program.commands)
    ]
    lines += ["", f"`{usage} --help` lists its flags; each is an environment variable too."]
    return "\n".join(lines)
