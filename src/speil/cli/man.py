"""Man pages, from the declared settings: one for each program and each command."""

from __future__ import annotations

import importlib
import re
from collections.abc import Iterator, Sequence

from speil.cli.app import PLUGIN, SPEIL
from speil.cli.help import default_of, settings_of, spellings, usage
from speil.cli.program import Command, Program
from speil.config import OLD_NAMES
from speil.setting import Setting
from speil.version import __version__

_EXIT_CODES = (
    ("0", "success; of a check: nothing failed"),
    ("1", "failure; of a check: at least one failed"),
    ("2", "wrong arguments, variables or configuration"),
    ("130", "interrupted by Ctrl-C; 128 plus the number of another signal that ended it"),
    ("141", "the reader of the output closed it"),
)
_VALUES = (
    "A value comes from the flag, else from the environment variable, else it is the default. Durations are written as"
    " 20ms, 5s or 1h30m. A list may be given with commas, or by several flags. A boolean flag may stand alone, or as"
    " --flag=false."
)
_COLOURS = "Colours and bars are shown on a terminal alone; NO_COLOR switches the colours off, TERM=dumb both."


def pages(date: str) -> dict[str, str]:
    """The text of each page by its file's name, such as `speil-registry.1`. `date` is the version's: 2026-11-26."""
    found = {f"{_name(SPEIL.name)}.1": _overview(SPEIL, date), f"{_name(PLUGIN.name)}.1": _overview(PLUGIN, date)}
    for command in SPEIL.commands:
        name = _name(f"{SPEIL.name} {command.name}")
        found[f"{name}.1"] = "\n".join(_command_page(name, command, date)) + "\n"
    return found


def _name(words: str) -> str:
    return words.replace(" ", "-")


def _overview(program: Program, date: str) -> str:
    name = _name(program.name)
    about = "a peer-to-peer OCI registry mirror" if program is SPEIL else "speil's commands for clusters, for kubectl"
    lines = [_title(name, date), ".SH NAME", f"{_text(name)} \\- {_text(about)}", ".SH SYNOPSIS"]
    lines += [f".B {_text(program.name)}", ".I COMMAND", "[\\-\\-flag value ...]", ".SH DESCRIPTION"]
    if program is PLUGIN:
        lines += [
            _text("kubectl finds this plugin on PATH. Each command is the command of the same name of `speil region`."),
            _text("Flags stand behind the command: kubectl takes none before the name of a plugin."),
        ]
    else:
        lines.append(_text("On each node containerd asks speil before the registry; see `speil registry`."))
    lines.append(".SH COMMANDS")
    for command in program.commands:
        lines += [".TP", f".B {_text(command.name)}", _text(f"{command.summary}.")]
    return "\n".join([*lines, *_ending(_pages_of(program))]) + "\n"


def _pages_of(program: Program) -> list[str]:
    """The pages of its commands: those of a plugin are those of speil."""
    by_module = {command.module: command for command in SPEIL.commands}
    return [_name(f"{SPEIL.name} {by_module[command.module].name}") for command in program.commands]


def _command_page(name: str, command: Command, date: str) -> Iterator[str]:
    kind: type = importlib.import_module(f"speil.cli.{command.module}").Settings
    yield from (_title(name, date), ".SH NAME", f"{_text(name)} \\- {_text(command.summary)}", ".SH SYNOPSIS")
    yield f".B {_text(usage(SPEIL.name, command.name, kind))}"
    if twin := next((one for one in PLUGIN.commands if one.module == command.module), None):
        yield from (".br", f".B {_text(usage(PLUGIN.name, twin.name, kind))}")
    yield from (".SH DESCRIPTION", _text(f"{command.summary[0].upper()}{command.summary[1:]}."), ".SH OPTIONS")
    yield _text(_VALUES)
    for setting in settings_of(kind):
        yield from _option(setting, by_hand=command.by_hand)
    if old := OLD_NAMES.get(command.name):
        yield ".SH OLD NAMES"
        yield _text("Names of other Spegel versions, accepted with a warning, as flags and as variables.")
        for one in old:
            now = f"--{one.now.replace('_', '-')}" if one.now else f"no effect: {one.note}"
            yield from (".TP", f".B {_text('--' + one.name.replace('_', '-'))}", _text(now))
    yield from _ending(["speil"])


def _option(setting: Setting, *, by_hand: bool) -> Iterator[str]:
    yield ".TP"
    yield f".B {_text(spellings(setting))}"
    yield _text(setting.help)
    yield _text(f"({default_of(setting)}; ${setting.variable(by_hand=by_hand)})")


def _ending(pages: Sequence[str]) -> Iterator[str]:
    yield ".SH EXIT STATUS"
    for code, meaning in _EXIT_CODES:
        yield from (".TP", f".B {code}", _text(f"{meaning}."))
    yield from (".SH ENVIRONMENT", _text(_COLOURS), ".SH SEE ALSO")
    yield ",\n".join(f".BR {_text(page)} (1)" for page in pages)


def _title(name: str, date: str) -> str:
    return f'.TH "{_text(name).upper()}" 1 "{date}" "speil {__version__}" "speil"'


def _text(text: str) -> str:
    """As roff shows it literally: no line is taken for a request, no character for an escape."""
    escaped = text.replace("\\", "\\e").replace("-", "\\-").replace("`", "\\(ga").replace("'", "\\(aq")
    escaped = re.sub(r"[^\x00-\x7f]", lambda match: f"\\[u{ord(match[0]):04X}]", escaped)
    return re.sub(r"^\.", "\\\\&.", escaped)
