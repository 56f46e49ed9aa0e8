"""The wheel: what is in it, and that it works without the checkout."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tarfile
from pathlib import Path
from zipfile import ZipFile

import pytest

from speil.cli.man import pages
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


def test_it_has_the_programs_and_their_man_pages(wheel: Path) -> None:
    with ZipFile(wheel) as archive:
        names = archive.namelist()
        (entry_points,) = (name for name in names if name.endswith(".dist-info/entry_points.txt"))
        programs = set(re.findall(r"^([\w-]+) =", archive.read(entry_points).decode(), flags=re.MULTILINE))
        found = {
            name.rpartition("/")[2]: archive.read(name).decode() for name in names if "/data/share/man/man1/" in name
        }
    assert programs == {"speil", "kubectl-speil", "kubectl_complete-speil"}
    assert set(found) == set(pages(""))
    assert re.search(r'^\.TH "SPEIL" 1 "\d{4}-\d\d-\d\d"', found["speil.1"]), "the date of the commit"


def test_a_wheel_of_the_source_archive_has_its_man_pages(tmp_path: Path) -> None:
    """Where speil can't be imported, as where pip builds it alone."""

    def build(target: str, root: Path) -> None:
        argv = [sys.executable, "-m", "hatchling", "build", "-t", target, "-d", str(tmp_path)]
        subprocess.run(argv, cwd=root, check=True, timeout=BUILD_SECONDS_MAX, stdout=subprocess.DEVNULL)

    build("sdist", ROOT)
    (archive,) = tmp_path.glob("speil-*.tar.gz")
    with tarfile.open(archive) as tar:
        tar.extractall(tmp_path, filter="data")
    folder = tmp_path / archive.name.removesuffix(".tar.gz")
    (folder / "scripts" / "generate_man_pages.py").write_text("raise SystemExit('speil can not be imported')")
    build("wheel", folder)
    (built,) = tmp_path.glob("speil-*.whl")
    found = {name.rpartition("/")[2] for name in ZipFile(built).namelist() if "/data/share/man/man1/" in name}
    assert found == set(pages(""))


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
