"""Write docs/settings.md from the declared settings (`make docs`); a test compares the two."""

from __future__ import annotations

import importlib
from pathlib import Path

from speil.cli.app import COMMANDS
from speil.config import OLD_NAMES, all_settings
from speil.observe.settings import LogSettings
from speil.setting import Setting, declared

PAGE = Path(__file__).parent.parent / "docs" / "settings.md"
INTRO = """# Settings
Written from the declarations by `make docs`.

A setting comes from its flag, else from its environment variable, else from its default. Durations are Go's (`20ms`,
`5s`, `1h30m`). A flag that takes a list may be given several times, with commas, or with several values behind it. A
boolean flag may stand alone, as `--flag=false` or as `--flag false`. An empty environment variable counts as unset.
Commands that people run by hand read common names (`OUTPUT`, `LOG_LEVEL`) with `SPEIL_` before them, since CI systems
set variables of those names.

Unknown flags and bad values end with one line and exit code 2.
"""


def page() -> str:
    """The whole page."""
    parts = [INTRO, "## All commands\n", _table(declared(LogSettings), by_hand=False)]
    parts.append("As variables of the commands that people run by hand: `SPEIL_LOG_LEVEL`, `SPEIL_LOG_FORMAT`.\n")
    for command in COMMANDS:
        kind = importlib.import_module(f"speil.cli.{command.module}").Settings
        own = [one for one in all_settings(kind) if one not in declared(LogSettings)]
        parts += [
            f"## speil {command.name}\n",
            f"{command.summary[0].upper()}{command.summary[1:]}.\n",
            _table(own, by_hand=command.by_hand),
        ]
        if old := OLD_NAMES.get(command.name):
            parts.append("Names of other Spegel versions, accepted with a warning, as flags and as variables:\n")
            parts.append("| flag | now |\n|---|---|")
            for one in old:
                now = f"`--{one.now.replace('_', '-')}`" if one.now else f"no effect: {one.note}"
                parts.append(f"| `--{one.name.replace('_', '-')}` | {now} |")
            parts.append("")
    return "\n".join(parts).rstrip() + "\n"


def _table(settings: list[Setting], *, by_hand: bool) -> str:
    rows = ["| flag | variable | kind | default | |", "|---|---|---|---|---|"]
    for one in settings:
        default = "required" if one.required else f"`{shown}`" if (shown := one.kind.show(one.default)) else "empty"
        variable, kind = one.variable(by_hand=by_hand), one.kind.name.replace("|", " or ")
        flags = ", ".join(f"`{flag}`" for flag in ((one.place, one.flag) if one.is_positional else one.flags))
        rows.append(f"| {flags} | `{variable}` | {kind} | {default} | {one.help} |")
    return "\n".join(rows) + "\n"


if __name__ == "__main__":
    PAGE.write_text(page())
