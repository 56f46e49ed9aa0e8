"""The Containerfile, built with buildah: the same trees as `make image`, and a speil that starts.

The image that the first stage begins with, debian:bookworm-slim for people, is made of this machine here: its /etc and
its list of packages, and /usr as a volume that can't be written. So no registry is asked. apt's archives are, and the
package index where uv's cache has nothing.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import stat
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from scripts.image.identity import identify

from speil.version import __version__
from tests.requirements import ROOT

pytestmark = [pytest.mark.system, pytest.mark.requires("buildah")]
BUILD_SECONDS_MAX = 600
BASE, IMAGE = "localhost/build-base", "localhost/speil:test"
FOLDERS = ("usr", "root", "tmp", "proc", "sys", "dev", "run", "var/log", "var/cache/apt/archives/partial")
# what this machine needs to reach archives and the package index
PASSED_ON = ("SSL_CERT_FILE", "PIP_CERT", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "UV_DEFAULT_INDEX")


class Buildah:
    """With a store of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._command = ["buildah", "--root", str(folder / "store"), "--runroot", str(folder / "run")]

    def run(self, *arguments: str) -> str:
        """One command; its output."""
        done = subprocess.run(
            [*self._command, *arguments],
            cwd=ROOT, capture_output=True, text=True, check=False, timeout=BUILD_SECONDS_MAX,
        )  # fmt: skip
        assert done.returncode == 0, f"buildah {' '.join(arguments[:3])}: {done.stdout}{done.stderr}"
        return done.stdout.strip()

    def make_base(self) -> None:
        """Commit the image that the first stage begins with."""
        root = self.folder / "base"
        for folder in FOLDERS:
            (root / folder).mkdir(parents=True)
        (root / "tmp").chmod(0o1777)
        for link in ("bin", "sbin", "lib", "lib64"):
            (root / link).symlink_to(f"usr/{link}")
        shutil.copytree("/etc", root / "etc", symlinks=True)
        shutil.copytree("/var/lib/dpkg", root / "var/lib/dpkg", symlinks=True)
        container = self.run("from", "scratch")
        self.run("copy", "--quiet", container, str(root), "/")
        for name in PASSED_ON:
            if name in os.environ:
                self.run("config", "--env", f"{name}={os.environ[name]}", container)
        self.run("commit", "--quiet", container, BASE)
        self.run("rm", container)

    def build(self) -> None:
        """The Containerfile. What it writes to /usr and the caches goes to layers that are thrown away."""
        identity, caches = identify(), Path.home() / ".cache"
        caches.mkdir(exist_ok=True)
        arguments = {"BUILD_IMAGE": BASE, "COMMIT": identity.commit, "EPOCH": str(identity.epoch)}
        self.run(
            "build", "--quiet", "--isolation=chroot", "--volume=/usr:/usr:O", f"--volume={caches}:/root/.cache:O",
            *(f"--build-arg={name}={value}" for name, value in arguments.items()),
            "--file=Containerfile", f"--tag={IMAGE}", ".",
        )  # fmt: skip


@pytest.fixture
def buildah() -> Iterator[Buildah]:
    """Nothing of it is left afterwards."""
    with tempfile.TemporaryDirectory(prefix="speil-buildah-") as folder:
        made = Buildah(Path(folder))
        try:
            yield made
        finally:
            made.run("rm", "--all")
            made.run("rmi", "--all", "--force")


def tree(root: Path) -> dict[str, tuple[int, str]]:
    """Mode and content of everything below `root`, by path. Folders that a container's runtime makes are left out."""
    found = {}
    for path in sorted(root.rglob("*")):
        mode, name = path.lstat().st_mode, str(path.relative_to(root))
        if stat.S_ISLNK(mode):
            found[name] = (0, f"-> {path.readlink()}")
        elif stat.S_ISREG(mode):
            found[name] = (stat.S_IMODE(mode), hashlib.sha256(path.read_bytes()).hexdigest())
        elif name.split("/")[0] not in ("proc", "sys", "dev", "run"):
            found[name] = (stat.S_IMODE(mode), "folder")
    return found


def test_the_containerfile_makes_the_trees_of_make_image_and_they_start(buildah: Buildah, root: Path) -> None:
    buildah.make_base()
    buildah.build()
    container = buildah.run("from", IMAGE)
    mounted = Path(buildah.run("mount", container))
    built, packed = tree(mounted), tree(root)
    assert "usr/bin/speil" in built
    assert {name for name in packed if built.get(name) != packed[name]} == set(), "other than in the archive"
    assert set(built) == set(packed)
    said = buildah.run("run", "--isolation=chroot", container, "/usr/bin/speil", "version", "--format=json")
    assert (json.loads(said)["version"], json.loads(said)["build"]) == (__version__, "image")
    config = json.loads(buildah.run("inspect", "--type=image", IMAGE))["OCIv1"]["config"]
    assert config["Entrypoint"] == ["/usr/bin/speil"]
    assert config["Labels"]["org.opencontainers.image.revision"] == identify().commit
