"""The error of this package."""

from __future__ import annotations


class HostConfigError(Exception):
    """The directory can't be configured, and nothing was changed. The message names the file and says what to do."""
