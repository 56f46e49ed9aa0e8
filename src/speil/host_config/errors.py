"""The one error of this package."""

from __future__ import annotations


class HostConfigError(Exception):
    """The directory can't be configured; nothing was changed. The message names the file and what to do."""
