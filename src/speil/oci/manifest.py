"""Manifests and indexes, read just deeply enough: what type is it, and which content does it name?

The content store can't tell a manifest from a small layer by its name, so the answer comes from the bytes. A manifest
without `mediaType` (the field is optional in the OCI image spec) is told by its shape: `manifests` makes an index,
`config` and `layers` make an image manifest.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from speil.oci import media_type
from speil.oci.digest import Digest, DigestError

MANIFEST_BYTES_MAX = 4 << 20  # distribution spec: registries should accept 4 MiB; nothing larger is a manifest


@dataclass(frozen=True, slots=True)
class Descriptor:
    """One reference to content (OCI image spec, "Content Descriptors"); `size` in bytes."""

    media_type: str
    digest: Digest
    size: int


@dataclass(frozen=True, slots=True)
class Manifest:
    """What a manifest or index names: `children` in document order (config first, then layers; or manifests)."""

    media_type: str
    children: tuple[Descriptor, ...]

    @property
    def is_index(self) -> bool:
        """Whether its children are manifests."""
        return self.media_type in media_type.INDEXES


def parse(data: bytes) -> Manifest | None:
    """The manifest in `data`, or None where the bytes are no manifest of a known type. Never raises."""
    if len(data) > MANIFEST_BYTES_MAX or not data.lstrip(b" \t\r\n").startswith(b"{"):
        return None
    try:
        document = json.loads(data)
    except (ValueError, RecursionError):
        return None
    if not isinstance(document, dict) or document.get("schemaVersion") != 2:
        return None
    kind = document.get("mediaType") or _type_by_shape(document)
    if kind not in media_type.MANIFESTS:
        return None
    items = document.get("manifests") if kind in media_type.INDEXES else _image_items(document)
    if not isinstance(items, list):
        return None
    children = [_descriptor(item) for item in items]
    return Manifest(kind, tuple(child for child in children if child is not None))


def _type_by_shape(document: dict[str, Any]) -> str | None:
    if "manifests" in document:
        return media_type.OCI_INDEX
    if "config" in document and "layers" in document:
        return media_type.OCI_MANIFEST
    return None


def _image_items(document: dict[str, Any]) -> list[Any] | None:
    layers = document.get("layers")
    return [document.get("config"), *layers] if isinstance(layers, list) else None


def _descriptor(item: Any) -> Descriptor | None:
    if not isinstance(item, dict):
        return None
    try:
        digest = Digest.parse(str(item.get("digest")))
    except DigestError:
        return None
    size = item.get("size")
    if not isinstance(size, int) or isinstance(size, bool) or size < 0:
        return None
    return Descriptor(str(item.get("mediaType", "")), digest, size)
