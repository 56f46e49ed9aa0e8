"""Reads an OCI archive: descriptors, blobs, and the root file system of one architecture."""

from __future__ import annotations

import hashlib
import io
import json
import os
import subprocess
import sys
import tarfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.requirements import ROOT

SECONDS_MAX = 60


@dataclass(frozen=True, slots=True)
class OciArchive:
    """An archive and zstandard, which unpacks its layers."""

    path: Path
    zstandard: Path

    def file(self, name: str) -> bytes:
        """A file of the archive."""
        with tarfile.open(self.path) as tar:
            member = tar.extractfile(name)
            assert member is not None, name
            return member.read()

    def blob(self, descriptor: dict[str, Any]) -> bytes:
        """A blob, verified."""
        data = self.file(f"blobs/{descriptor['digest'].replace(':', '/')}")
        assert len(data) == descriptor["size"]
        assert f"sha256:{hashlib.sha256(data).hexdigest()}" == descriptor["digest"]
        return data

    def document(self, descriptor: dict[str, Any]) -> dict[str, Any]:
        """A blob of JSON."""
        found: dict[str, Any] = json.loads(self.blob(descriptor))
        return found

    def entry(self) -> dict[str, Any]:
        """The image's descriptor in index.json."""
        (entry,) = json.loads(self.file("index.json"))["manifests"]
        return dict(entry)

    def manifest(self, architecture: str) -> dict[str, Any]:
        """The manifest of one architecture."""
        (found,) = (
            one for one in self.document(self.entry())["manifests"] if one["platform"]["architecture"] == architecture
        )
        return self.document(found)

    def config(self, architecture: str) -> dict[str, Any]:
        """The configuration of one architecture."""
        return self.document(self.manifest(architecture)["config"])

    def layers(self, architecture: str) -> list[bytes]:
        """The tars of both layers."""
        return [self._decompress(self.blob(layer)) for layer in self.manifest(architecture)["layers"]]

    def unpack(self, architecture: str, target: Path) -> Path:
        """The root file system."""
        for layer in self.layers(architecture):
            with tarfile.open(fileobj=io.BytesIO(layer)) as tar:
                tar.extractall(target, filter="fully_trusted")
        return target

    def _decompress(self, data: bytes) -> bytes:
        code = "import sys, zstandard; zstandard.ZstdDecompressor().copy_stream(sys.stdin.buffer, sys.stdout.buffer)"
        done = subprocess.run(
            [sys.executable, "-c", code],
            input=data, env={**os.environ, "PYTHONPATH": str(self.zstandard)}, capture_output=True, check=True,
            timeout=SECONDS_MAX,
        )  # fmt: skip
        return done.stdout


def install_zstandard(target: Path) -> Path:
    """The locked zstandard, for this Python."""
    subprocess.run(
        [
            ROOT / ".tools/bin/uv", "pip", "install", "--quiet", "--python", sys.executable, "--target", target,
            "--require-hashes", "-r", ROOT / "scripts/requirements/zstandard.txt",
        ],
        check=True, capture_output=True, timeout=SECONDS_MAX,
    )  # fmt: skip
    return target
