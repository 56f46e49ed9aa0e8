"""The root file system of one architecture, as two trees.

`base` has what the locks name: Debian's packages and the wheels. `application` has speil. So an upgrade to a speil
with the same locks is a pull of the second layer alone.
"""

from __future__ import annotations

import os
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

from scripts.image import bill
from scripts.image.commands import run
from scripts.image.debian import fetch, read_lock, unpack
from scripts.image.identity import Identity
from scripts.image.interpreter import LIBRARY_FOLDERS, ZSTANDARD, Interpreter
from scripts.image.prune import prune_debian, prune_wheels
from scripts.image.strip import strip_modules

from speil.progress import Progress

ROOT = Path(__file__).resolve().parents[2]
UV = ROOT / ".tools" / "bin" / "uv"
# where Debian's python3.11 looks by default
SITE = "usr/lib/python3/dist-packages"
STANDARD_LIBRARY = "usr/lib/python3.11"
PLATFORMS = {"amd64": "x86_64-manylinux_2_36", "arm64": "aarch64-manylinux_2_36"}  # Debian 12 has glibc 2.36

_ENTRY_POINT = """#!/usr/bin/python3.11
import sys

from speil.cli import {function}

sys.exit({function}())
"""
# the programs of pyproject.toml and their functions in speil.cli; a test compares
PROGRAMS = {"speil": "main", "kubectl-speil": "plugin", "kubectl_complete-speil": "complete_plugin"}
_PASSWD = "root:x:0:0:root:/root:/usr/sbin/nologin\nnobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\n"
_GROUP = "root:x:0:\nnogroup:x:65534:\n"


@dataclass(frozen=True, slots=True)
class Trees:
    """The two trees of one architecture."""

    architecture: str
    base: Path
    application: Path


def make_base(folder: Path, architecture: str, progress: Progress) -> Path:
    """Debian's packages and the locked wheels."""
    root = folder / "base"
    root.mkdir(parents=True)
    packages = read_lock(architecture)
    progress.stage(f"{architecture}: Debian packages", len(packages))
    for package in packages:
        progress.note(package.name)
        file = fetch(package)
        unpack(file, root)
        bill.write_status(package, file, root)
        progress.advance()
    progress.stage(f"{architecture}: wheels")
    _write_certificates(root)
    prune_debian(root, LIBRARY_FOLDERS[architecture])
    (root / "usr/bin/python3").symlink_to("python3.11")
    _write(root / "etc/passwd", _PASSWD)
    _write(root / "etc/group", _GROUP)
    _write(root / "etc/nsswitch.conf", "hosts: files dns\n")
    requirements = folder / "requirements.txt"
    _uv("export", "--frozen", "--no-dev", "--no-emit-project", "--output-file", str(requirements))
    _install(root / SITE, architecture, "--require-hashes", "--requirement", str(requirements))
    return root


def make_application(folder: Path, architecture: str, wheel: Path, identity: Identity) -> Path:
    """speil. It needs the base beside it, whose packages its SBOM names."""
    root = folder / "application"
    _install(root / SITE, architecture, str(wheel))
    for program, function in PROGRAMS.items():
        _write(root / "usr/bin" / program, _ENTRY_POINT.format(function=function), mode=0o755)
    bill.write_sbom(folder / "base", root, architecture, identity)
    return root


def build_wheel(folder: Path, identity: Identity) -> Path:
    """speil's wheel, with the locked hatchling."""
    command = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(folder)]
    environment = {**os.environ, **identity.environment}
    done = run(command, folder=ROOT, environment=environment)
    if done.code:
        sys.exit(f"the wheel could not be built:\n{done.end}")
    (wheel,) = folder.glob("speil-*.whl")
    return wheel


def make_interpreter(folder: Path, native: Trees, *, cache: bool) -> Interpreter:
    """The Python of the build machine's own architecture, with zstandard beside it."""
    tools = folder / "tools"
    _install(tools, native.architecture, "--require-hashes", "--requirement", str(ZSTANDARD))
    return Interpreter(native.base, native.architecture, tools, cache)


def _write_certificates(root: Path) -> None:
    """What the package's script would do."""
    certificates = sorted((root / "usr/share/ca-certificates/mozilla").glob("*.crt"))
    _write(
        root / "etc/ssl/certs/ca-certificates.crt", "".join(file.read_text().rstrip() + "\n" for file in certificates)
    )


def _install(target: Path, architecture: str, *what: str) -> None:
    """Unpack wheels; sources are not built, dependencies beyond those named are not taken."""
    options = ["--target", str(target), "--python-platform", PLATFORMS[architecture], "--python-version", "3.11"]
    _uv("pip", "install", *options, "--no-deps", "--only-binary", ":all:", "--link-mode", "copy", *what)
    prune_wheels(target)
    strip_modules(target)


def _uv(*arguments: str) -> None:
    uv = str(UV) if UV.exists() else shutil.which("uv")
    if uv is None:
        sys.exit("there is no uv: run `make setup`")
    done = run([uv, *arguments, "--quiet"], folder=ROOT)
    if done.code:
        sys.exit(f"uv {' '.join(arguments[:2])} failed:\n{done.end}")


def _write(file: Path, text: str, *, mode: int = 0o644) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)
    file.chmod(mode)
