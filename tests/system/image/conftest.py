"""One build of the image for all tests of this folder, and what reads it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.requirements import ROOT
from tests.system.image.archive import OciArchive, install_zstandard

# two minutes of one core where nothing is in the cache; machines of CI have two cores and run other tests beside it
BUILD_SECONDS_MAX = 900
REFERENCE = "docker.io/library/speil:test"
Builder = Callable[..., OciArchive]


@pytest.fixture(scope="session")
def zstandard(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder with zstandard."""
    return install_zstandard(tmp_path_factory.mktemp("zstandard"))


@pytest.fixture(scope="session")
def archive(tmp_path_factory: pytest.TempPathFactory, zstandard: Path) -> Iterator[OciArchive]:
    """The image for both architectures; with it, several hundred megabytes of build go away."""
    output = tmp_path_factory.mktemp("image") / "speil.tar"
    build(output)
    yield OciArchive(output, zstandard)
    output.unlink()


@pytest.fixture(scope="session")
def root(archive: OciArchive, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The unpacked image of this machine's architecture."""
    return archive.unpack("amd64", tmp_path_factory.mktemp("root"))


def build(output: Path, *flags: str, **options: object) -> None:
    """`make image` in a process of its own."""
    command = [sys.executable, "-m", "scripts.image", "--output", str(output), "--reference", REFERENCE, *flags]
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=BUILD_SECONDS_MAX, **options
    )  # type: ignore[call-overload]
    assert done.returncode == 0, done.stderr
