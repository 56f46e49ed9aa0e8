"""What the image is made of: version, commit and time of the sources."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from speil.version import __version__

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True, slots=True)
class Identity:
    """Of the sources."""

    version: str
    commit: str  # with "-modified" behind it where files differ from it
    epoch: int  # the commit's time, in seconds since 1970

    @property
    def created(self) -> str:
        """The commit's time, as RFC 3339 has it."""
        return datetime.fromtimestamp(self.epoch, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")

    @property
    def environment(self) -> dict[str, str]:
        """For the build of the wheel: hatch_build.py and hatchling read it."""
        return {"SPEIL_COMMIT": self.commit, "SOURCE_DATE_EPOCH": str(self.epoch), "SPEIL_BUILD": "image"}


def identify() -> Identity:
    """Of this checkout; SPEIL_COMMIT and SOURCE_DATE_EPOCH where there is no git, as in the Containerfile."""
    commit, epoch = os.environ.get("SPEIL_COMMIT"), os.environ.get("SOURCE_DATE_EPOCH")
    if not (commit and epoch):
        if not (ROOT / ".git").exists():
            sys.exit("this is no git checkout: set SPEIL_COMMIT and SOURCE_DATE_EPOCH")
        commit = commit or _git("rev-parse", "HEAD") + ("-modified" if _git("status", "--porcelain") else "")
        epoch = epoch or _git("log", "-1", "--format=%ct")
    return Identity(__version__, commit, int(epoch))


def _git(*arguments: str) -> str:
    command = ["git", "-C", str(ROOT), *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
