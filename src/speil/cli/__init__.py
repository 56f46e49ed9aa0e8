"""The command line: one module for each command, and the entry points of the installed programs."""

from speil.cli.app import complete_plugin, main, plugin

__all__ = ["complete_plugin", "main", "plugin"]
