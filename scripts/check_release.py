"""Refuse a release whose tag, package, chart and changelog differ in their version; write dist/VERSION."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import yaml

from speil.version import __version__

ROOT = Path(__file__).resolve().parent.parent


def problems(tag: str, version: str, chart: dict[str, str], changelog: str) -> list[str]:
    """What is not of this version, one line each."""
    found = []
    if tag != f"v{version}":
        found.append(f"the tag is {tag}, the version in src/speil/version.py is {version}: tag v{version}")
    found += [
        f"{key} of charts/speil/Chart.yaml is {chart[key]}: set it to {version}"
        for key in ("version", "appVersion")
        if chart[key] != version
    ]
    if not re.search(rf"(?m)^#+ .*\b{re.escape(version)}\b", changelog):
        found.append(f"CHANGELOG.md has no heading for {version}: rename [Unreleased] to [{version}]")
    return found


def main() -> None:
    """Without a tag it is a build of what is not released yet: its changes stand below [Unreleased]."""
    tag = sys.argv[1] if len(sys.argv) > 1 else ""
    chart = yaml.safe_load((ROOT / "charts/speil/Chart.yaml").read_text())
    changelog = (ROOT / "CHANGELOG.md").read_text() if tag else f"## {__version__}"
    if found := problems(tag or f"v{__version__}", __version__, chart, changelog):
        sys.exit("\n".join(found))
    (ROOT / "dist").mkdir(exist_ok=True)
    (ROOT / "dist" / "VERSION").write_text(f"{__version__}\n")


if __name__ == "__main__":
    main()
