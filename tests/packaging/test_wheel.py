"""The wheel: what is in it, and that it works without the checkout."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from zipfile import ZipFile

import pytest

from tests.requirements import ROOT

pytestmark = pytest.mark.long
BUILD_SECONDS_MAX = 120
DEMO_SECONDS_MAX = 300


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built wheel."""
    folder = tmp_path_factory.mktemp("dist")
    argv = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(argv, cwd=ROOT, check=True, timeout=BUILD_SECONDS_MAX, stdout=subprocess.DEVNULL)
    (built,) = folder.glob("speil-*.whl")
    return built


def test_the_wheel_holds_all_of_speil_except_the_test_kit(wheel: Path) -> None:
    inside = {name for name in ZipFile(wheel).namelist() if name.startswith("speil/")}
    files = [path for path in (ROOT / "src/speil").rglob("*") if path.is_file() and path.suffix != ".pyc"]
    names = {str(path.relative_to(ROOT / "src")) for path in files}
    made = "speil/_build.py"  # by scripts/hatch_build.py
    assert inside == {name for name in names if not name.startswith("speil/testing/")} | {made}


def test_the_demo_runs_from_the_wheel(wheel: Path, tmp_path: Path) -> None:
    ZipFile(wheel).extractall(tmp_path / "site")
    environ = {**os.environ, "PYTHONPATH": str(tmp_path / "site"), "TMPDIR": str(tmp_path)}

    def python(*argv: str, seconds_max: int = BUILD_SECONDS_MAX) -> str:
        run = subprocess.run(
            [sys.executable, *argv], cwd=tmp_path, env=environ, capture_output=True, text=True, timeout=seconds_max
        )
        assert run.returncode == 0, run.stdout + run.stderr
        return run.stdout

    assert python("-c", "import speil; print(speil.__file__)").startswith(str(tmp_path)), "not the one of the checkout"
    assert "No module" in python("-c", "try:\n import speil.testing\nexcept ImportError as error:\n print(error)")
    said = python("-m", "speil", "demo", "--layers=2", "--layer-mib=2", seconds_max=DEMO_SECONDS_MAX)
    assert "no byte crossed" in said
