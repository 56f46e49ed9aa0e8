"""The command line: a module a command, and `main`, which shows users one line where something is wrong."""

from speil.cli.app import main

__all__ = ["main"]
