"""`speil completion SHELL`: the script that completes speil's commands, flags and values in a shell.

The script asks `speil __complete` for the candidates (see `complete`). kubectl completes `kubectl speil` by itself: it
calls the program kubectl_complete-speil, which is installed beside speil.
"""

from __future__ import annotations

import importlib.resources
from dataclasses import dataclass

from speil.setting import one_of, setting

SHELLS = ("bash", "zsh", "fish")


@dataclass(frozen=True, slots=True)
class Settings:
    """See the help of each setting."""

    shell: str = setting(one_of(*SHELLS), "", required=True, positional=True, help="Which shell reads the script.")


def run(settings: Settings) -> int:
    """Print the script."""
    script = importlib.resources.files("speil.cli") / "completions" / f"speil.{settings.shell}"
    print(script.read_text("utf-8"), end="")
    return 0
