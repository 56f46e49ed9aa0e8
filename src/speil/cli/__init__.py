"""The command line: one module for each command, and the entry points of the installed programs.

An interrupt while the first modules are imported ends the program as later ones do, without a traceback.
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence

_INTERRUPTED = 130  # as signals.exit_code


def main(*argv: Sequence[str]) -> int:
    """`speil`, with one list of arguments, or without one those of the process. Returns the exit code."""
    return _call("main", *argv)


def plugin() -> int:
    """`kubectl speil`, which kubectl finds as the program kubectl-speil. Returns the exit code."""
    return _call("plugin")


def complete_plugin() -> int:
    """The program kubectl_complete-speil, which kubectl calls to complete `kubectl speil`. Returns the exit code."""
    return _call("complete_plugin")


def _call(function: str, *argv: Sequence[str]) -> int:
    try:
        app = importlib.import_module("speil.cli.app")
    except KeyboardInterrupt:
        return _INTERRUPTED
    try:
        code: int = getattr(app, function)(*argv)
    except KeyboardInterrupt:  # a second one, just behind the first
        return _INTERRUPTED
    return code
