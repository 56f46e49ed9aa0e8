"""Manifests and indexes, read just deeply enough: what type is it, and which content does it name?

The content store can't tell a manifest from a small layer by its name, so the answer comes from the bytes. What
containerd takes in is to be served, so little is demanded: a JSON object that names its type, or has a manifest's
shape. `mediaType` is optional in the OCI image spec, Go's tools write `"layers": null` for none, artifacts have
`blobs`, Docker's schema 1 has `fsLayers`.

Bytes come from strangers too. What a document may cost is bounded before it is parsed, by what is looked at: a document
above the bounds is no manifest here, whatever its digest says.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any

from speil.oci import media_type
from speil.oci.digest import Digest, DigestError

MANIFEST_BYTES_MAX = 4 << 20  # distribution spec: registries should accept 4 MiB; nothing larger is a manifest
VALUES_MAX = 100_000  # JSON values, about; an index of ten thousand manifests has seventy thousand
CHILDREN_MAX = 10_000  # looked at; the largest public images have hundreds
_SIZE_MAX = (1 << 63) - 1  # Go's int64
_DIGITS_MAX = 19


@dataclass(frozen=True, slots=True)
class Descriptor:
    """One reference to content (OCI image spec, "Content Descriptors"); `size` in bytes, 0 where it is not told."""

    media_type: str
    digest: Digest
    size: int


@dataclass(frozen=True, slots=True)
class Manifest:
    """What a manifest or index names: `children` in document order (config first, then layers; or manifests).

    `is_named`: the document names its type itself; otherwise its shape told it. `left_off` counts the children beyond
    CHILDREN_MAX.
    """

    media_type: str
    children: tuple[Descriptor, ...]
    is_named: bool = True
    is_index: bool = False
    left_off: int = 0

    def type_as_told(self, told: str) -> str:
        """The type to serve it with, where somebody told a manifest's type ("" for nobody).

        What the document says itself counts most. A shape does not tell Docker's types from OCI's, so there a told type
        counts that fits the shape.
        """
        if self.is_named or not told or self.media_type in media_type.SCHEMAS1:
            return self.media_type
        return told if (told in media_type.INDEXES) == self.is_index else self.media_type


def parse(data: bytes) -> Manifest | None:
    """The manifest in `data`, or None where the bytes are none or would cost too much to read. Never raises."""
    if len(data) > MANIFEST_BYTES_MAX or _is_costly(data):
        return None
    try:
        # Go takes wrong UTF-8 too; numbers are looked at nowhere but in sizes
        text = data.decode("utf-8", "replace")
        document = json.loads(text, parse_int=_integer, parse_float=_nothing, parse_constant=_nothing)
    except (ValueError, RecursionError):
        return None
    if not isinstance(document, dict):
        return None
    named = document.get("mediaType")
    is_named = isinstance(named, str) and media_type.is_media_type(named)
    kind = named if is_named else _type_by_shape(document)
    if kind is None:
        return None
    items = _items(document, kind)
    children = [child for item in items[:CHILDREN_MAX] if (child := _descriptor(item)) is not None]
    is_index = kind in media_type.INDEXES or (kind not in media_type.MANIFESTS and _is_index(document))
    return Manifest(kind, tuple(children), is_named, is_index, max(len(items) - CHILDREN_MAX, 0))


def _is_costly(data: bytes) -> bool:
    """Whether it is no JSON object, or one with too many values. Commas in texts count too, that does no harm."""
    start = re.match(rb"[ \t\r\n]*\{", data)
    if start is None:
        return True
    values = data.count(b",") + data.count(b"[") + data.count(b"{")
    return values > VALUES_MAX


def _type_by_shape(document: dict[str, Any]) -> str | None:
    if _is_index(document):
        return media_type.DOCKER_LIST if _has_docker_child(document.get("manifests")) else media_type.OCI_INDEX
    if document.get("schemaVersion") == 1 or "fsLayers" in document:
        return media_type.DOCKER_SCHEMA1_SIGNED if "signatures" in document else media_type.DOCKER_SCHEMA1
    config = document.get("config")
    # an image's configuration has a `config` too, but no descriptor in it
    if "layers" in document or _descriptor(config) is not None:
        return media_type.DOCKER_MANIFEST if _has_docker_child([config]) else media_type.OCI_MANIFEST
    if "artifactType" in document or isinstance(document.get("blobs"), list):
        return media_type.OCI_ARTIFACT
    return None


def _is_index(document: dict[str, Any]) -> bool:
    return "manifests" in document and not document.get("layers")


def _has_docker_child(items: Any) -> bool:
    first = items[0] if isinstance(items, list) and items else None
    return isinstance(first, dict) and str(first.get("mediaType", "")).startswith("application/vnd.docker.")


def _items(document: dict[str, Any], kind: str) -> list[Any]:
    """What should be descriptors. Of schema 1 none: containerd stores another manifest in its place."""
    if kind in media_type.INDEXES:
        return _list(document.get("manifests"))
    if kind in media_type.ARTIFACTS:
        return _list(document.get("blobs"))
    if kind in (media_type.OCI_MANIFEST, media_type.DOCKER_MANIFEST):
        return [document.get("config"), *_list(document.get("layers"))]
    if kind in media_type.SCHEMAS1:
        return []
    # of a type that nobody knows: whatever it names
    keys = ("manifests", "layers", "blobs")
    return [document.get("config"), *(item for key in keys for item in _list(document.get(key)))]


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _descriptor(item: Any) -> Descriptor | None:
    if not isinstance(item, dict) or not isinstance(text := item.get("digest"), str):
        return None
    try:
        digest = Digest.parse(text)
    except DigestError:
        return None
    size, kind = item.get("size"), item.get("mediaType")
    if not isinstance(size, int) or isinstance(size, bool) or not 0 <= size <= _SIZE_MAX:
        size = 0
    return Descriptor(kind if isinstance(kind, str) else "", digest, size)


def _integer(text: str) -> int | None:
    return int(text) if len(text) <= _DIGITS_MAX else None


def _nothing(text: str) -> None:
    return None
