"""An image made on the spot: layers of real files, an index with two platforms.

The files come from where Python and the system keep theirs, a share for each layer; the two platforms share their
first layer, as images with a common base do. Timestamps and owners are left out, so the same files give the same
digests.
"""

from __future__ import annotations

import gzip
import io
import json
import sysconfig
import tarfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from speil.oci import media_type
from speil.oci.digest import Digest

LAYER_MEDIA_TYPE = "application/vnd.oci.image.layer.v1.tar+gzip"
CONFIG_MEDIA_TYPE = "application/vnd.oci.image.config.v1+json"
FILE_BYTES_MAX = 8 << 20  # one file must not make a layer
_SOURCES = (sysconfig.get_path("stdlib"), "/usr/lib", "/usr/bin", "/usr/share")


@dataclass(frozen=True, slots=True)
class DemoImage:
    """The blobs of an image (manifests among them) and the digest of its index."""

    index: Digest
    blobs: dict[Digest, bytes]
    media_types: dict[Digest, str]

    @property
    def size_bytes(self) -> int:
        """All blobs together."""
        return sum(map(len, self.blobs.values()))


class _Builder:
    def __init__(self) -> None:
        self.blobs: dict[Digest, bytes] = {}
        self.media_types: dict[Digest, str] = {}

    def put(self, data: bytes, kind: str) -> dict[str, Any]:
        digest = Digest.of(data)
        self.blobs[digest] = data
        self.media_types[digest] = kind
        return {"mediaType": kind, "digest": str(digest), "size": len(data)}

    def put_json(self, document: dict[str, Any], kind: str) -> dict[str, Any]:
        return self.put(json.dumps(document, separators=(",", ":")).encode(), kind)

    def manifest(self, architecture: str, layers: list[tuple[dict[str, Any], str]]) -> dict[str, Any]:
        config = {
            "architecture": architecture,
            "os": "linux",
            "config": {"Cmd": ["/bin/sh"]},
            "rootfs": {"type": "layers", "diff_ids": [diff_id for _, diff_id in layers]},
        }
        document = {
            "schemaVersion": 2,
            "mediaType": media_type.OCI_MANIFEST,
            "config": self.put_json(config, CONFIG_MEDIA_TYPE),
            "layers": [descriptor for descriptor, _ in layers],
        }
        platform = {"platform": {"architecture": architecture, "os": "linux"}}
        return self.put_json(document, media_type.OCI_MANIFEST) | platform


def make_image(layers: int, layer_bytes: int, progress: Callable[[str], None]) -> DemoImage:
    """An image for linux/amd64 with `layers` layers of about `layer_bytes` of files each, and linux/arm64 with two."""
    builder, files = _Builder(), _files()
    built: list[tuple[dict[str, Any], str]] = []
    for number in range(1, layers + 2):  # one more, for the other platform alone
        tar = _tar(files, layer_bytes)
        descriptor = builder.put(gzip.compress(tar, compresslevel=1, mtime=0), LAYER_MEDIA_TYPE)
        built.append((descriptor, str(Digest.of(tar))))
        progress(f"layer {number}/{layers + 1}: {len(tar) >> 20} MiB of files, {descriptor['size'] >> 20} MiB packed")
    manifests = [
        builder.manifest("amd64", built[:layers]),
        builder.manifest("arm64", [built[0], built[layers]]),
    ]
    index = {"schemaVersion": 2, "mediaType": media_type.OCI_INDEX, "manifests": manifests}
    return DemoImage(
        Digest.parse(builder.put_json(index, media_type.OCI_INDEX)["digest"]), builder.blobs, builder.media_types
    )


def _files() -> Iterator[Path]:
    for source in _SOURCES:
        for path in sorted(Path(source).rglob("*")):
            if path.is_file() and not path.is_symlink() and "__pycache__" not in path.parts:
                yield path


def _tar(files: Iterator[Path], size_bytes: int) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for path in files:
            try:
                data = path.read_bytes() if path.stat().st_size <= FILE_BYTES_MAX else b""
            except OSError:
                continue  # not ours to read
            entry = tarfile.TarInfo(str(path).lstrip("/"))
            entry.size = len(data)
            tar.addfile(entry, io.BytesIO(data))
            if out.tell() >= size_bytes:
                break
    return out.getvalue()
