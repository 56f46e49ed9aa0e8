"""From which commit this speil comes, and how it was built."""

from __future__ import annotations

import importlib
import subprocess
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

_PACKAGE = Path(__file__).resolve().parents[1]
# git reads a few files; a checkout on a disk that does not answer must not hold up `speil version`
_GIT_TIMEOUT_SECONDS = 5


@dataclass(frozen=True, slots=True)
class BuildInfo:
    """What is known; empty where it is not."""

    commit: str = ""  # with "-modified" behind it where files differed from it
    commit_time: str = ""  # RFC 3339
    build: str = ""  # image, wheel or checkout

    def facts(self) -> dict[str, str]:
        """What is known, by name."""
        return {name: value for name, value in asdict(self).items() if value}

    def __str__(self) -> str:
        commit, dash, modified = self.commit.partition("-")
        parts = [f"commit {commit[:12]}{dash}{modified}" if commit else "", self.build]
        text = ", ".join(part for part in parts if part)
        return f"{text} of {self.commit_time}" if self.build and self.commit_time else text


def build_info() -> BuildInfo:
    """Of what the build wrote (scripts/hatch_build.py), else of the git checkout that the package lies in."""
    try:
        recorded = importlib.import_module("speil._build")
    except ModuleNotFoundError:
        return _of_checkout(_PACKAGE.parents[1])
    return BuildInfo(recorded.COMMIT, recorded.COMMIT_TIME, recorded.BUILD)


def _of_checkout(root: Path) -> BuildInfo:
    if root / "src" / "speil" != _PACKAGE or not (root / ".git").exists():
        return BuildInfo()
    try:
        commit, epoch = _git(root, "log", "-1", "--format=%H %ct").split()
        modified = "-modified" if _git(root, "status", "--porcelain") else ""
    except (OSError, ValueError, subprocess.SubprocessError):  # no git, no commit yet, another owner's checkout
        return BuildInfo(build="checkout")
    time = datetime.fromtimestamp(int(epoch), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    return BuildInfo(commit + modified, time, "checkout")


def _git(root: Path, *arguments: str) -> str:
    done = subprocess.run(
        ["git", "--no-optional-locks", "-C", str(root), *arguments],
        check=True,
        capture_output=True,
        text=True,
        timeout=_GIT_TIMEOUT_SECONDS,
    )
    return done.stdout.strip()
