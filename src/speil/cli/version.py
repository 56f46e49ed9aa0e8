"""`speil version`."""

from __future__ import annotations

import json
import platform
from dataclasses import dataclass

from speil.setting import one_of, setting
from speil.version import __version__


@dataclass(frozen=True, slots=True)
class Settings:
    """Flags."""

    format: str = setting(one_of("text", "json"), "text", help="How to print it.")


def run(settings: Settings) -> int:
    """Print the version."""
    facts = {"version": __version__, "python": platform.python_version(), "platform": platform.platform()}
    if settings.format == "json":
        print(json.dumps(facts))
    else:
        print(f"speil {facts['version']} (Python {facts['python']}, {facts['platform']})")
    return 0
