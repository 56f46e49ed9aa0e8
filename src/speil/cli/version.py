"""`speil version`."""

from __future__ import annotations

import json
import platform
from dataclasses import dataclass

from speil.cli.build_info import build_info
from speil.setting import one_of, setting
from speil.version import __version__


@dataclass(frozen=True, slots=True)
class Settings:
    """The flags of `speil version`."""

    format: str = setting(one_of("text", "json"), "text", help="How to print it.")


def run(settings: Settings) -> int:
    """Print version, commit, build, Python and platform; what is not known is left out."""
    build = build_info()
    python, system = platform.python_version(), platform.platform()
    if settings.format == "json":
        print(json.dumps({"version": __version__, **build.facts(), "python": python, "platform": system}))
    else:
        text = f"{build}; " if build.facts() else ""
        print(f"speil {__version__} ({text}Python {python}, {system})")
    return 0
