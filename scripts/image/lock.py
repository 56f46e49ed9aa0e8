"""Write scripts/image/debian.lock: the versions that apt's sources have today, with their hashes.

apt verifies the archives' signatures. It runs on lists of its own for each architecture, so the machine's apt is left
as it is.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path
from urllib.parse import urlsplit

from scripts.image.debian import LOCK, Package

ARCHITECTURES = ("amd64", "arm64")
RELEASE = "bookworm"
PACKAGES = (
    "base-files",  # os-release, by which scanners know the distribution; the texts of common licences
    "ca-certificates",
    "gcc-12-base",  # the licences of libgcc-s1 and libstdc++6
    "libc6",
    "libexpat1",  # python3.11 is linked with it
    "libffi8",  # ctypes
    "libgcc-s1",
    "libpython3.11-minimal",
    "libpython3.11-stdlib",
    "libssl3",
    "libstdc++6",  # protobuf's compiled half and google-re2
    "python3.11-minimal",
    "zlib1g",
)
HEADER = f"""# The image's Debian packages ({RELEASE}): architecture, name, version, archive, path, sha256 of the file.
# Written by `make image-lock`, which takes the newest that apt's sources have.
"""


def write_lock() -> None:
    """See the module. Exits where a package is missing or comes from elsewhere."""
    packages = [package for architecture in ARCHITECTURES for package in _candidates(architecture)]
    LOCK.write_text(HEADER + "".join(f"{package}\n" for package in sorted(packages)))
    print(f"{LOCK.name}: {len(packages)} packages")


def _candidates(architecture: str) -> list[Package]:
    with tempfile.TemporaryDirectory(prefix="speil-apt-") as folder:
        for part in ("lists/partial", "cache/archives/partial"):
            Path(folder, part).mkdir(parents=True)
        Path(folder, "status").touch()
        options = [
            f"APT::Architecture={architecture}",
            f"APT::Architectures={architecture}",
            f"APT::Default-Release=/^{RELEASE}/",
            f"Dir::State::Lists={folder}/lists",
            f"Dir::State::Status={folder}/status",
            f"Dir::Cache={folder}/cache",
            "APT::Sandbox::User=root",
        ]
        apt = ["apt-get", *(f"-o{option}" for option in options), "-qq"]
        subprocess.run([*apt, "update"], check=True)
        command = [*apt, "download", "--print-uris", *PACKAGES]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
    packages = [_package(architecture, line) for line in done.stdout.splitlines()]
    if missing := set(PACKAGES) - {package.name for package in packages}:
        sys.exit(f"apt's sources have no {', '.join(sorted(missing))} for {architecture}")
    return packages


def _package(architecture: str, line: str) -> Package:
    """Of a line such as `'http://…/debian/pool/…/libc6_….deb' libc6_….deb 2759320 SHA256:…`."""
    uri, file, _size, sha256 = line.split()
    above, found, below = urlsplit(uri.strip("'")).path.partition("/pool/")
    archive = above.rpartition("/")[2]
    if not found or archive not in ("debian", "debian-security"):
        sys.exit(f"{file} is not from a Debian archive: {uri}")
    name, version, _ = file.split("_")
    if not sha256.startswith("SHA256:"):
        sys.exit(f"{file} has no SHA-256 in apt's lists")
    return Package(
        architecture, name, version.replace("%3a", ":"), archive, f"pool/{below}", sha256.removeprefix("SHA256:")
    )
