"""The archive: both architectures, the same bytes from the same sources, and no larger than promised."""

from __future__ import annotations

import hashlib
import os
import platform
from pathlib import Path

import pytest
from scripts.image.interpreter import MACHINES

from speil.version import __version__
from tests.system.image.archive import OciArchive
from tests.system.image.conftest import REFERENCE, build

pytestmark = pytest.mark.system

ARCHITECTURES = ("amd64", "arm64")
COMPRESSED_BYTES_MAX = 25_000_000
UNPACKED_BYTES_MAX = 75_000_000


def test_the_archive_is_an_image_for_both_architectures(archive: OciArchive) -> None:
    assert archive.file("oci-layout") == b'{"imageLayoutVersion":"1.0.0"}'
    entry = archive.entry()
    assert entry["annotations"]["io.containerd.image.name"] == REFERENCE
    manifests = archive.document(entry)["manifests"]
    assert [manifest["platform"] for manifest in manifests] == [
        {"architecture": "amd64", "os": "linux"},
        {"architecture": "arm64", "os": "linux", "variant": "v8"},
    ]


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_two_layers_no_larger_than_promised(archive: OciArchive, architecture: str) -> None:
    manifest, layers = archive.manifest(architecture), archive.layers(architecture)
    assert archive.config(architecture)["rootfs"]["diff_ids"] == [
        f"sha256:{hashlib.sha256(layer).hexdigest()}" for layer in layers
    ]
    base, application = manifest["layers"]
    assert base["size"] + application["size"] <= COMPRESSED_BYTES_MAX
    assert sum(map(len, layers)) <= UNPACKED_BYTES_MAX
    assert application["size"] < 2_000_000, "an upgrade with the same locks is a pull of the second layer alone"


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_annotations_and_configuration(archive: OciArchive, architecture: str) -> None:
    manifest, config = archive.manifest(architecture), archive.config(architecture)
    annotations = manifest["annotations"]
    prefix = "org.opencontainers.image."
    assert annotations[f"{prefix}version"] == __version__
    assert annotations[f"{prefix}licenses"] == "MIT"
    assert len(annotations[f"{prefix}revision"].removesuffix("-modified")) == 40
    assert config["config"]["Labels"] == annotations == archive.document(archive.entry())["annotations"]
    assert config["config"]["Entrypoint"] == ["/usr/bin/speil"]
    assert config["architecture"] == architecture


def test_the_same_sources_give_the_same_image(archive: OciArchive, tmp_path: Path) -> None:
    """Built again elsewhere: another folder, time zone, umask and hash seed, and nothing out of the cache."""
    native = MACHINES[platform.machine()]
    environment = {**os.environ, "TMPDIR": str(tmp_path), "TZ": "Asia/Kolkata", "PYTHONHASHSEED": "7", "LC_ALL": "C"}
    again = OciArchive(tmp_path / "again.tar", archive.zstandard)
    build(again.path, "--no-cache", "--architectures", native, env=environment, umask=0o077)
    assert again.manifest(native) == archive.manifest(native)
