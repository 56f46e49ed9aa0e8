"""Debian packages by the lock scripts/image/debian.lock: fetched with apt's client, unpacked, not installed."""

from __future__ import annotations

import hashlib
import os
import shutil
import sys
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from scripts.image.commands import run

LOCK = Path(__file__).with_name("debian.lock")
CACHE = Path(os.environ.get("SPEIL_CACHE") or Path.home() / ".cache" / "speil") / "debian"
APT_HELPER = Path("/usr/lib/apt/apt-helper")
# archives to take the files from, before those of apt's sources; a build on another system than Debian sets it
MIRRORS_VARIABLE = "SPEIL_DEBIAN_MIRRORS"


@dataclass(frozen=True, slots=True, order=True)
class Package:
    """A line of the lock."""

    architecture: str  # of the image; packages for `all` stand in the lock once for each
    name: str
    version: str
    archive: str  # debian or debian-security
    path: str  # below the archive
    sha256: str

    @classmethod
    def of(cls, line: str) -> Package:
        """Raises ValueError where the line has another shape."""
        architecture, name, version, archive, path, sha256 = line.split()
        return cls(architecture, name, version, archive, path, sha256)

    def __str__(self) -> str:
        return " ".join((self.architecture, self.name, self.version, self.archive, self.path, self.sha256))


def read_lock(architecture: str) -> list[Package]:
    """The packages of one architecture, sorted by name."""
    lines = (line for line in LOCK.read_text().splitlines() if line and not line.startswith("#"))
    return sorted(package for package in map(Package.of, lines) if package.architecture == architecture)


def fetch(package: Package) -> Path:
    """The package's file, out of the cache or the first archive that has it. Exits where none has."""
    target = CACHE / package.sha256 / Path(package.path).name
    if target.exists() and _sha256(target) == package.sha256:
        return target
    if not APT_HELPER.exists() or shutil.which("dpkg-deb") is None:
        sys.exit("fetching Debian packages needs apt and dpkg (Debian, Ubuntu); elsewhere build with the Containerfile")
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_suffix(f".{os.getpid()}")
    errors = []
    if not (mirrors := _mirrors(package.archive)):
        sys.exit(
            f"apt's sources have no archive {package.archive}, where {package.name} {package.version} is from: add it, "
            f"or name one in {MIRRORS_VARIABLE} (without /{package.archive} at its end)"
        )
    for mirror in mirrors:
        url = f"{mirror.rstrip('/')}/{package.path}"
        command = [str(APT_HELPER), "download-file", url, str(partial), f"SHA256:{package.sha256}"]
        try:
            done = run(command)
            if done.code == 0:
                partial.rename(target)
                return target
        finally:
            partial.unlink(missing_ok=True)
        errors.append(done.end.strip()[-300:])
    sys.exit(
        f"no archive has {package.name} {package.version}: run `make image-lock` to take the current versions, or name "
        f"an archive that keeps old ones in {MIRRORS_VARIABLE}\n" + "\n".join(errors)
    )


def unpack(package: Path, target: Path) -> None:
    """Unpack its files; its scripts are not run."""
    run(["dpkg-deb", "--extract", str(package), str(target)], must=True)


def control(package: Path) -> str:
    """Its control file, as it stands in dpkg's status."""
    return run(["dpkg-deb", "--field", str(package)], must=True).text


def _mirrors(archive: str) -> list[str]:
    named = os.environ.get(MIRRORS_VARIABLE, "").split()
    return [f"{mirror.rstrip('/')}/{archive}" for mirror in named] + [
        site for site in apt_archives() if site.rstrip("/").rpartition("/")[2] == archive
    ]


@cache
def apt_archives() -> tuple[str, ...]:
    """The archives of apt's sources, such as http://…/debian and http://…/debian-security."""
    command = ["apt-get", "indextargets", "--format", "$(REPO_URI)", "Created-By: Packages"]
    return tuple(sorted(set(run(command, must=True).text.split())))


def _sha256(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()
