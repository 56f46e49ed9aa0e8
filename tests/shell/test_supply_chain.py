"""Everything that `make setup` and CI fetch is pinned by a hash in this tree, but for Debian's signed packages."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
from scripts.image.debian import read_lock
from scripts.image.lock import ARCHITECTURES, PACKAGES

from tests.requirements import ROOT

HASH = re.compile(r"--hash=sha256:[0-9a-f]{64}")


def lock(folder: Path) -> list[dict[str, Any]]:
    document = tomllib.loads((folder / "uv.lock").read_text())
    packages: list[dict[str, Any]] = document["package"]
    return packages


@pytest.mark.parametrize("folder", [ROOT, ROOT / "tests/interop/py"], ids=["speil", "interop"])
def test_every_package_of_a_lock_file_has_hashes(folder: Path) -> None:
    packages = [package for package in lock(folder) if "registry" in package["source"]]
    assert len(packages) > 10
    for package in packages:
        files = [*package.get("wheels", []), *([package["sdist"]] if "sdist" in package else [])]
        assert files, package["name"]
        assert all(file["hash"].startswith("sha256:") for file in files), package["name"]


def test_the_build_backend_is_the_locked_one() -> None:
    document = tomllib.loads((ROOT / "pyproject.toml").read_text())
    (required,) = document["build-system"]["requires"]
    locked = {package["name"]: package.get("version") for package in lock(ROOT)}
    assert required == f"hatchling=={locked['hatchling']}"
    assert "speil" in document["tool"]["uv"]["no-build-isolation-package"]


def test_what_pip_fetches_has_hashes() -> None:
    files = sorted((ROOT / "scripts/requirements").glob("*.txt"))
    assert {file.stem for file in files} >= {"uv", "etcd", "kubectl"}
    for file in files:
        first, *rest = file.read_text().splitlines()
        assert re.fullmatch(r"[a-z0-9-]+==[0-9.]+ \\", first), file
        assert rest, file
        assert all(HASH.search(line) for line in rest), file
    for script in sorted((ROOT / "scripts").iterdir()):
        text = script.read_text() if script.is_file() else ""
        for call in re.findall(r"pip install[^\n]*", text):
            assert "--require-hashes" in call, f"{script.name}: {call}"


def test_every_debian_package_of_the_image_has_a_hash_for_both_architectures() -> None:
    names = {architecture: {package.name for package in read_lock(architecture)} for architecture in ARCHITECTURES}
    assert names["amd64"] == names["arm64"] == set(PACKAGES)
    for architecture in ARCHITECTURES:
        assert all(re.fullmatch(r"[0-9a-f]{64}", package.sha256) for package in read_lock(architecture))


def test_every_go_tool_is_built_from_a_go_sum_of_this_tree() -> None:
    modules = [*(ROOT / "scripts/go").iterdir(), ROOT / "tests/interop/go", ROOT / "tests/interop/go-election"]
    for module in modules:
        if "require" in (module / "go.mod").read_text():
            assert (module / "go.sum").stat().st_size > 0, module
    for script in ("build_go_tools.py", "build_kube_tools.py"):
        text = (ROOT / "scripts" / script).read_text()
        assert "-mod=readonly" in text
        assert "-mod=mod" not in text
        assert "GONOSUM" not in text
