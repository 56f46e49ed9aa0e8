"""The command line: one module for each command, and `main`."""

from speil.cli.app import main

__all__ = ["main"]
