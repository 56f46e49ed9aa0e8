"""Write speil/_build.py into wheels and source archives: from which commit they come (`speil version`).

Of SPEIL_COMMIT and SOURCE_DATE_EPOCH where they are set, else of git. Without both nothing is written, and
`speil version` says the version alone. An installation from a checkout asks git itself.
"""

from __future__ import annotations

import os
import subprocess
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class BuildInfoHook(BuildHookInterface[Any]):
    """hatchling calls it for each archive."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Add the file, unless a source archive already has it."""
        root = Path(self.root)
        if version == "editable" or (root / "src/speil/_build.py").exists():
            return
        if (commit := _commit(root)) is None:
            return
        name, time = commit
        build = os.environ.get("SPEIL_BUILD", "wheel")
        self._folder = tempfile.TemporaryDirectory(prefix="speil-build-")
        file = Path(self._folder.name, "_build.py")
        file.write_text(f'COMMIT = "{name}"\nCOMMIT_TIME = "{time}"\nBUILD = "{build}"\n')
        target = "src/speil/_build.py" if self.target_name == "sdist" else "speil/_build.py"
        build_data["force_include"][str(file)] = target

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        """Remove what `initialize` wrote."""
        if hasattr(self, "_folder"):
            self._folder.cleanup()


def _commit(root: Path) -> tuple[str, str] | None:
    name, epoch = os.environ.get("SPEIL_COMMIT"), os.environ.get("SOURCE_DATE_EPOCH")
    try:
        if not name and (root / ".git").exists():
            name = _git(root, "rev-parse", "HEAD") + ("-modified" if _git(root, "status", "--porcelain") else "")
        if not epoch and (root / ".git").exists():
            epoch = _git(root, "log", "-1", "--format=%ct")
    except (OSError, subprocess.CalledProcessError):
        return None
    if not (name and epoch):
        return None
    return name, datetime.fromtimestamp(int(epoch), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _git(root: Path, *arguments: str) -> str:
    command = ["git", "-C", str(root), *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
