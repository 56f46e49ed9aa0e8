"""What hatchling adds to wheels and source archives.

speil/_build.py: from which commit they come (`speil version`), of SPEIL_COMMIT and SOURCE_DATE_EPOCH where they are
set, else of git. Without both nothing is written, and `speil version` says the version alone. An installation from a
checkout asks git itself.

The README with links that lead to the repository: a package index shows it without the files beside it.

The man pages (share/man/man1 of a wheel), made from the declared settings by scripts/generate_man_pages.py. It imports
speil, and so needs what speil needs: `make wheel` has it. A source archive carries the pages, so a wheel that is built
from one has them too. Where neither is there (pip with a git URL), the wheel has none, and the build says so.
"""

from __future__ import annotations

import os
import posixpath
import re
import subprocess
import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface
from hatchling.metadata.plugin.interface import MetadataHookInterface

REPOSITORY = "https://github.com/speil-dev/speil"
MAN_PAGES = "man"  # the folder of a source archive
_VERSION = re.compile(r'__version__ = "([^"]+)"')
# of a link in Markdown, where it is relative: no scheme and no place in the same page
_RELATIVE = re.compile(r"(?<=\]\()(?![a-z]+:|#)([^)]+)")


class ReadmeHook(MetadataHookInterface):
    """hatchling calls it for the metadata of each archive."""

    def update(self, metadata: dict[str, Any]) -> None:
        """Add the README."""
        root = Path(self.root)
        found = _VERSION.search((root / "src/speil/version.py").read_text())
        assert found is not None
        text = absolute_links((root / "README.md").read_text(), "", found[1])
        metadata["readme"] = {"content-type": "text/markdown", "text": text}


def absolute_links(text: str, folder: str, version: str) -> str:
    """Markdown of a folder of the repository, with links that lead to the repository at the tag of a version."""

    def absolute(match: re.Match[str]) -> str:
        path, hash_sign, place = match[1].partition("#")
        return f"{REPOSITORY}/blob/v{version}/{posixpath.normpath(posixpath.join(folder, path))}{hash_sign}{place}"

    return _RELATIVE.sub(absolute, text)


class MadeFilesHook(BuildHookInterface[Any]):
    """hatchling calls it for each archive."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Add the files, unless a source archive already has them."""
        if version == "editable":
            return
        self._folder = tempfile.TemporaryDirectory(prefix="speil-build-")
        self._add_build_info(Path(self.root), build_data)
        self._add_man_pages(Path(self.root), build_data)

    def _add_build_info(self, root: Path, build_data: dict[str, Any]) -> None:
        if (root / "src/speil/_build.py").exists() or (commit := _commit(root)) is None:
            return
        name, time = commit
        build = os.environ.get("SPEIL_BUILD", "wheel")
        file = Path(self._folder.name, "_build.py")
        file.write_text(f'COMMIT = "{name}"\nCOMMIT_TIME = "{time}"\nBUILD = "{build}"\n')
        target = "src/speil/_build.py" if self.target_name == "sdist" else "speil/_build.py"
        build_data["force_include"][str(file)] = target

    def _add_man_pages(self, root: Path, build_data: dict[str, Any]) -> None:
        """Of the source archive, else made now."""
        pages = root / MAN_PAGES
        if not pages.is_dir():
            pages = Path(self._folder.name, "man1")
            command = [sys.executable, str(root / "scripts" / "generate_man_pages.py"), str(pages)]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode:
                why = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
                self.app.display_warning(f"no man pages are built, since speil can't be imported: {why}")
                return
        for page in sorted(pages.glob("*.1")):
            if self.target_name == "sdist":
                build_data["force_include"][str(page)] = f"{MAN_PAGES}/{page.name}"
            else:
                build_data["shared_data"][str(page)] = f"share/man/man1/{page.name}"

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
