"""What is in the image, for both architectures, and what is not."""

from __future__ import annotations

import importlib.util
import json
import re
import stat
import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
from scripts.image.debian import read_lock
from scripts.image.root import PROGRAMS, SITE

from tests.requirements import ROOT
from tests.system.image.archive import OciArchive

pytestmark = pytest.mark.system

ELF_MACHINES = {"amd64": 62, "arm64": 183}
# what starts other programs, installs packages, or changes who one is
UNWANTED = re.compile(r"(^|/)(sh|bash|dash|ash|busybox|su|sudo|mount|pip|pip3|apt|apt-get|dpkg|ensurepip)$")
UNCHECKED_HASH = 0b01  # PEP 552: a hash stands in the file, and nobody compares it
SECONDS_MAX = 60


@pytest.fixture(scope="module", params=["amd64", "arm64"])
def tree(request: pytest.FixtureRequest, archive: OciArchive, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The unpacked image of each architecture, in a folder of its name."""
    return archive.unpack(request.param, tmp_path_factory.mktemp("tree") / request.param)


def files(tree: Path) -> Iterator[Path]:
    return (path for path in tree.rglob("*") if path.is_file() and not path.is_symlink())


def test_no_shell_no_installer_nothing_setuid(tree: Path) -> None:
    for path in tree.rglob("*"):
        assert path.is_dir() or not UNWANTED.search(str(path.relative_to(tree))), path
        if not path.is_symlink():
            assert not path.stat().st_mode & (stat.S_ISUID | stat.S_ISGID), path
    programs = {path.name for folder in ("bin", "sbin", "usr/bin", "usr/sbin") for path in (tree / folder).glob("*")}
    assert programs == {"python3.11", "python3", *PROGRAMS}


def test_every_file_is_of_the_architecture(tree: Path) -> None:
    found = set()
    for path in files(tree):
        with path.open("rb") as file:
            head = file.read(20)
        if head.startswith(b"\x7fELF"):
            found.add(int.from_bytes(head[18:20], "little"))
    assert found == {ELF_MACHINES[tree.name]}


def test_every_module_has_bytecode_that_stays_valid(tree: Path) -> None:
    """A .pyc that is checked by time would be stale: all files have the same time. Each start would compile anew."""
    magic = importlib.util.MAGIC_NUMBER  # of this Python; the same in all of 3.11
    sources = [path for path in files(tree) if path.suffix == ".py"]
    assert len(sources) > 500
    for source in sources:
        compiled = source.parent / "__pycache__" / f"{source.stem}.cpython-311.pyc"
        head = compiled.read_bytes()[:8]
        assert int.from_bytes(head[4:], "little") == UNCHECKED_HASH, compiled
        if importlib.util.cache_from_source("a.py").endswith("cpython-311.pyc"):
            assert head[:4] == magic, compiled


def test_nothing_of_the_build_machine(tree: Path) -> None:
    own = (str(ROOT).encode(), b"/tmp/speil-image-", b"/.venv/")
    for path in files(tree):
        data = path.read_bytes()
        assert not any(one in data for one in own), path
        if data.startswith(b"#!"):
            interpreter = data.split(b"\n", 1)[0].removeprefix(b"#!").strip().decode()
            assert path.parent.name != "bin" or interpreter == "/usr/bin/python3.11", path
    assert (tree / "usr/bin/speil").read_text().startswith("#!/usr/bin/python3.11\n")


def test_the_locks_decide_what_is_in(tree: Path) -> None:
    sbom = json.loads((tree / "usr/share/speil/sbom.cdx.json").read_text())
    assert (sbom["bomFormat"], sbom["metadata"]["component"]["name"]) == ("CycloneDX", "speil")
    components = {component["purl"].partition("?")[0]: component for component in sbom["components"]}
    debian = {purl.removeprefix("pkg:deb/debian/").partition("@")[0] for purl in components if ":deb/" in purl}
    assert {name.replace("%2B", "+") for name in debian} == {package.name for package in read_lock(tree.name)}
    python = {purl.removeprefix("pkg:pypi/") for purl in components if ":pypi/" in purl}
    assert python == locked_wheels()
    assert all(component["licenses"] for component in components.values())


def locked_wheels() -> set[str]:
    """What uv.lock has for speil on Linux and Python 3.11, without the development groups."""
    packages = {package["name"]: package for package in tomllib.loads((ROOT / "uv.lock").read_text())["package"]}
    wanted, left = set(), ["speil"]
    while left:
        for dependency in packages[left.pop()].get("dependencies", []):
            # the markers of this lock leave out other Pythons than CPython, and those of 3.13 and newer
            if dependency["name"] not in wanted:
                wanted.add(dependency["name"])
                left.append(dependency["name"])
    return {f"{name}@{packages[name]['version']}" for name in wanted}


def test_every_package_brings_its_licence(tree: Path) -> None:
    for package in read_lock(tree.name):
        assert (tree / "usr/share/doc" / package.name / "copyright").is_file(), package.name
        status = (tree / "var/lib/dpkg/status.d" / package.name).read_text()
        assert f"Version: {package.version}" in status
    for folder in (tree / SITE).glob("*.dist-info"):
        metadata = (folder / "METADATA").read_text()
        assert re.search(r"^(License|License-Expression|Classifier: License ::)", metadata, re.MULTILINE) or any(
            folder.rglob("LICEN*")
        ), folder.name


def test_every_module_of_speil_loads_from_the_image(root: Path) -> None:
    """With the compiled halves of protobuf, YAML and re2: without libstdc++ protobuf falls back to pure Python."""
    code = """
import importlib, pkgutil, sys, speil
for module in pkgutil.walk_packages(speil.__path__, "speil."):
    if ".testing" not in module.name and not module.name.endswith("__main__"):
        importlib.import_module(module.name)
import re2, ssl, yaml
from google.protobuf.internal import api_implementation
assert re2.fullmatch("a+", "aa")
assert ssl.create_default_context().cert_store_stats()["x509_ca"] > 100
print(api_implementation.Type(), yaml.__with_libyaml__, sys.stdout.encoding, sys.getfilesystemencoding())
"""
    done = subprocess.run(
        ["chroot", str(root), "/usr/bin/python3.11", "-W", "error", "-c", code],
        capture_output=True, text=True, check=False, timeout=SECONDS_MAX,
        env={"PATH": "/usr/bin:/usr/sbin", "SSL_CERT_FILE": "/etc/ssl/certs/ca-certificates.crt"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["upb", "True", "utf-8", "utf-8"]
