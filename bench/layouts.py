"""OCI layouts made for the bench: one with a gigabyte, one with 200 images."""

from __future__ import annotations

import hashlib
import json
import random
from pathlib import Path
from typing import Any

from speil.oci.media_type import OCI_MANIFEST

REGISTRY, NAME = "registry.bench", "bench/app"
_CHUNK_BYTES = 1 << 20


class LayoutWriter:
    """Writes an OCI image layout, blob by blob."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._blobs = root / "blobs" / "sha256"
        self._blobs.mkdir(parents=True)
        self._entries: list[dict[str, Any]] = []
        (root / "oci-layout").write_text('{"imageLayoutVersion":"1.0.0"}')
        self._write_index()

    def random_blob(self, size_bytes: int, seed: int) -> dict[str, Any]:
        """A layer of random bytes; its descriptor."""
        source, hasher, temporary = random.Random(seed), hashlib.sha256(), self.root / f"tmp-{seed}"
        with temporary.open("wb") as file:
            left = size_bytes
            while left:
                chunk = source.randbytes(min(left, _CHUNK_BYTES))
                hasher.update(chunk)
                file.write(chunk)
                left -= len(chunk)
        temporary.rename(self._blobs / hasher.hexdigest())
        return _descriptor("application/vnd.oci.image.layer.v1.tar", hasher.hexdigest(), size_bytes)

    def sparse_blob(self, size_bytes: int) -> dict[str, Any]:
        """A layer of zeroes that takes no room on the disk; its descriptor."""
        hasher, temporary, chunk = hashlib.sha256(), self.root / "tmp-sparse", bytes(_CHUNK_BYTES)
        for _ in range(size_bytes // _CHUNK_BYTES):
            hasher.update(chunk)
        size_bytes -= size_bytes % _CHUNK_BYTES
        with temporary.open("wb") as file:
            file.truncate(size_bytes)
        temporary.rename(self._blobs / hasher.hexdigest())
        return _descriptor("application/vnd.oci.image.layer.v1.tar", hasher.hexdigest(), size_bytes)

    def image(self, tag: str, layers: list[dict[str, Any]]) -> str:
        """An image of these layers under REGISTRY/NAME:tag; the digest of its manifest."""
        config = self._document({"architecture": "amd64", "os": "linux", "tag": tag})
        manifest = self._document(
            {
                "schemaVersion": 2,
                "mediaType": OCI_MANIFEST,
                "config": _descriptor("application/vnd.oci.image.config.v1+json", *config),
                "layers": layers,
            }
        )
        name = {"org.opencontainers.image.ref.name": f"{REGISTRY}/{NAME}:{tag}"}
        self._entries.append(_descriptor(OCI_MANIFEST, *manifest) | {"annotations": name})
        self._write_index()
        return f"sha256:{manifest[0]}"

    def _document(self, document: dict[str, Any]) -> tuple[str, int]:
        data = json.dumps(document).encode()
        digest = hashlib.sha256(data).hexdigest()
        (self._blobs / digest).write_bytes(data)
        return digest, len(data)

    def _write_index(self) -> None:
        temporary = self.root / "index.json.new"
        temporary.write_text(json.dumps({"schemaVersion": 2, "manifests": self._entries}))
        temporary.replace(self.root / "index.json")


def _descriptor(kind: str, digest: str, size: int) -> dict[str, Any]:
    return {"mediaType": kind, "digest": f"sha256:{digest}", "size": size}


def empty(root: Path) -> Path:
    """A layout without images."""
    LayoutWriter(root)
    return root


def gigabyte(root: Path) -> tuple[Path, str, str]:
    """A layout with one image of one layer of 1 GiB: (root, layer digest, manifest digest)."""
    writer = LayoutWriter(root)
    layer = writer.random_blob(1 << 30, 1)
    return root, layer["digest"], writer.image("big", [layer])


def many_images(root: Path, images: int = 200, layers: int = 10) -> tuple[Path, int]:
    """A layout of `images` images with `layers` small layers each: (root, number of blobs)."""
    writer = LayoutWriter(root)
    for number in range(images):
        writer.image(str(number), [writer.random_blob(1024, number * layers + layer) for layer in range(layers)])
    return root, images * (layers + 2)
