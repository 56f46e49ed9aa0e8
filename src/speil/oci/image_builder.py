"""Builds OCI images (config, manifest, index) from layers, in memory. For the demo and for tests."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from speil.oci import media_type
from speil.oci.digest import Digest
from speil.oci.manifest import Descriptor

LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"
CONFIG = "application/vnd.oci.image.config.v1+json"


@dataclass(frozen=True, slots=True)
class Layer:
    """The descriptor of a packed layer, and the digest of its tar (`diff_id`)."""

    descriptor: Descriptor
    diff_id: Digest


@dataclass(frozen=True, slots=True)
class BuiltImage:
    """An image: all its blobs by digest, including manifests and the index, and their media types."""

    index: Descriptor
    manifests: dict[str, Descriptor]  # by architecture
    blobs: dict[Digest, bytes]
    media_types: dict[Digest, str]

    @property
    def size_bytes(self) -> int:
        """The sum of all blobs."""
        return sum(map(len, self.blobs.values()))

    def kind(self, digest: Digest) -> str:
        """The endpoint under which a registry serves the digest: `manifests` or `blobs`."""
        return "manifests" if self.media_types[digest] in media_type.MANIFESTS else "blobs"


@dataclass(slots=True)
class ImageBuilder:
    """Collects the blobs of one image: call `layer` for each layer, then `build` once."""

    blobs: dict[Digest, bytes] = field(default_factory=dict)
    media_types: dict[Digest, str] = field(default_factory=dict)

    def layer(self, packed: bytes, tar: bytes) -> Layer:
        """Add a layer; `packed` is the gzip-compressed `tar`."""
        return Layer(self._put(packed, LAYER), Digest.of(tar))

    def build(self, platforms: dict[str, Sequence[Layer]], command: Sequence[str] = ("/bin/sh",)) -> BuiltImage:
        """Build an index with one Linux manifest for each architecture in `platforms`.

        `command` is the entrypoint: it runs whatever a pod's arguments are.
        """
        manifests = {
            architecture: self._manifest(architecture, layers, command) for architecture, layers in platforms.items()
        }
        entries = [
            _json(descriptor) | {"platform": {"architecture": architecture, "os": "linux"}}
            for architecture, descriptor in manifests.items()
        ]
        index = {"schemaVersion": 2, "mediaType": media_type.OCI_INDEX, "manifests": entries}
        return BuiltImage(self._put_json(index, media_type.OCI_INDEX), manifests, self.blobs, self.media_types)

    def _manifest(self, architecture: str, layers: Sequence[Layer], command: Sequence[str]) -> Descriptor:
        config = {
            "architecture": architecture,
            "os": "linux",
            "config": {"Entrypoint": list(command)},
            "rootfs": {"type": "layers", "diff_ids": [str(layer.diff_id) for layer in layers]},
        }
        document = {
            "schemaVersion": 2,
            "mediaType": media_type.OCI_MANIFEST,
            "config": _json(self._put_json(config, CONFIG)),
            "layers": [_json(layer.descriptor) for layer in layers],
        }
        return self._put_json(document, media_type.OCI_MANIFEST)

    def _put_json(self, document: dict[str, Any], kind: str) -> Descriptor:
        return self._put(json.dumps(document, separators=(",", ":")).encode(), kind)

    def _put(self, data: bytes, kind: str) -> Descriptor:
        digest = Digest.of(data)
        self.blobs[digest], self.media_types[digest] = data, kind
        return Descriptor(kind, digest, len(data))


def _json(descriptor: Descriptor) -> dict[str, Any]:
    return {"mediaType": descriptor.media_type, "digest": str(descriptor.digest), "size": descriptor.size}
