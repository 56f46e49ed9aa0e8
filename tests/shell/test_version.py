"""`speil version`: in a checkout, in a wheel, in a wheel made of the source archive, and where nothing is known."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
COMMIT, EPOCH, TIME = "0123456789abcdef0123456789abcdef01234567", "1764000000", "2025-11-24T16:00:00Z"


def run(command: list[str], **environment: str) -> str:
    kept = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=kept | environment, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout


def facts(packages: Path) -> dict[str, Any]:
    code = "import sys; from speil.cli import main; sys.exit(main(['version', '--format', 'json']))"
    found: dict[str, Any] = json.loads(run([sys.executable, "-c", code], PYTHONPATH=str(packages)))
    return found


def build(source: Path, target: str, folder: Path, **environment: str) -> Path:
    command = [sys.executable, "-m", "hatchling", "build", "--target", target, "--directory", str(folder)]
    subprocess.run(command, cwd=source, env={**os.environ, **environment}, check=True, capture_output=True, timeout=60)
    (archive,) = folder.glob("speil-*.whl" if target == "wheel" else "speil-*.tar.gz")
    return archive


def unpacked(wheel: Path, folder: Path) -> Path:
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder)
    return folder


def git(*arguments: str) -> str:
    return subprocess.run(["git", "-C", str(ROOT), *arguments], check=True, capture_output=True, text=True).stdout


def test_a_checkout_has_the_commit_of_its_git() -> None:
    found = facts(ROOT / "src")
    assert found["build"] == "checkout"
    assert found["commit"].removesuffix("-modified") == git("rev-parse", "HEAD").strip()
    assert found["commit"].endswith("-modified") == bool(git("status", "--porcelain"))


@pytest.mark.long
def test_a_wheel_has_the_commit_it_was_built_of(tmp_path: Path) -> None:
    wheel = build(ROOT, "wheel", tmp_path / "dist", SPEIL_COMMIT=COMMIT, SOURCE_DATE_EPOCH=EPOCH)
    packages = unpacked(wheel, tmp_path / "packages")
    found = facts(packages)
    assert (found["commit"], found["commit_time"], found["build"]) == (COMMIT, TIME, "wheel")
    text = run([sys.executable, "-m", "speil", "--version"], PYTHONPATH=str(packages))
    assert text.startswith(f"speil {found['version']} (commit 0123456789ab, wheel of {TIME}; Python 3.")


@pytest.mark.long
def test_a_wheel_made_of_the_source_archive_keeps_its_commit(tmp_path: Path) -> None:
    archive = build(ROOT, "sdist", tmp_path / "sdist", SPEIL_COMMIT=COMMIT, SOURCE_DATE_EPOCH=EPOCH)
    with tarfile.open(archive) as tar:
        tar.extractall(tmp_path, filter="data")
    (source,) = tmp_path.glob("speil-*/")
    wheel = build(source, "wheel", tmp_path / "wheel")
    assert facts(unpacked(wheel, tmp_path / "packages"))["commit"] == COMMIT


def test_what_is_not_known_is_left_out(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "src" / "speil", tmp_path / "speil", ignore=shutil.ignore_patterns("__pycache__"))
    assert set(facts(tmp_path)) == {"version", "python", "platform"}
    text = run([sys.executable, "-m", "speil", "version"], PYTHONPATH=str(tmp_path))
    assert "unknown" not in text
    assert "(Python 3." in text


def test_the_version_stands_in_one_file() -> None:
    """Everything else reads it: the chart's is compared in test_chart_docs.py."""
    version = facts(ROOT / "src")["version"]
    assert f'"{version}"' not in (ROOT / "pyproject.toml").read_text()
