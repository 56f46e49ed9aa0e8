"""Parses manifests and indexes: the media type, the descriptors they name, and the platform of each index entry.

The content store does not record media types, so the type comes from the bytes. Everything that containerd accepts must
be served, so the parser requires little: a JSON object with a media type, or with the fields of a manifest. `mediaType`
is optional in the OCI image spec. Go tools write `"layers": null` for an empty list. Artifacts have `blobs`, Docker
schema 1 has `fsLayers`.

The bytes may come from an untrusted peer. The cost of a document is bounded before it is parsed. A document above a
bound counts as "not a manifest", even if its digest is right.
"""

from __future__ import annotations

import json
import re
import sys
from dataclasses import dataclass
from typing import Any

from speil.oci import media_type
from speil.oci.digest import Digest, DigestError
from speil.oci.platform import Platform, PlatformImage, platform_of_entry

MANIFEST_BYTES_MAX = 4 << 20  # the distribution spec asks registries to accept 4 MiB; larger content is no manifest
VALUES_MAX = 100_000  # estimated JSON values; an index of 10,000 manifests has 70,000
CHILDREN_MAX = 10_000  # descriptors that are read; the largest public images have hundreds
_SIZE_MAX = (1 << 63) - 1  # Go's int64
_DIGITS_MAX = 19


@dataclass(frozen=True, slots=True)
class Descriptor:
    """A reference to content (OCI image spec, "Content Descriptors").

    `size` is in bytes; 0 means that the document gives no valid size. `media_type` is "" where it gives none.
    `platform` is set for the entries of an index that name one.
    """

    media_type: str
    digest: Digest
    size: int
    platform: Platform | None = None


@dataclass(frozen=True, slots=True)
class Manifest:
    """A parsed manifest or index.

    `children`: all descriptors in document order (config first, then layers; or the entries of an index).
    `entries`: for an index, its manifests; empty for a manifest. `config`: the config's digest; None for an index.
    `is_named`: the document has a `mediaType`; otherwise the type was derived from its fields.
    `left_off`: how many children were not read because of CHILDREN_MAX.
    """

    media_type: str
    children: tuple[Descriptor, ...]
    is_named: bool = True
    is_index: bool = False
    entries: tuple[PlatformImage, ...] = ()
    config: Digest | None = None
    left_off: int = 0

    @property
    def needs(self) -> tuple[Digest, ...]:
        """The digests that a runtime downloads for a manifest: its config and layers. Empty for an index.

        Layers that may not be distributed are left out: a runtime downloads them from their own URLs.
        """
        if self.is_index:
            return ()
        return tuple(child.digest for child in self.children if not media_type.is_foreign(child.media_type))

    def type_with_hint(self, hint: str) -> str:
        """The media type to serve this document with; `hint` is the type that a peer sent ("" for none).

        The document's own `mediaType` comes first. Without one, Docker and OCI types have the same shape, so `hint` is
        used if it agrees on index or manifest.
        """
        if self.is_named or not hint or self.media_type in media_type.SCHEMAS1:
            return self.media_type
        return hint if (hint in media_type.INDEXES) == self.is_index else self.media_type


def parse(data: bytes) -> Manifest | None:
    """Parse a manifest or index. None if `data` is not one, or is too expensive to parse. Never raises."""
    if len(data) > MANIFEST_BYTES_MAX or _is_costly(data):
        return None
    try:
        # Go accepts invalid UTF-8 too. Of all numbers only sizes are read.
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
    children = _descriptors(items)
    is_index = kind in media_type.INDEXES or (kind not in media_type.MANIFESTS and _is_index(document))
    entries: tuple[Descriptor, ...] = ()
    if is_index:
        entries = children if kind in media_type.INDEXES else _descriptors(_list(document.get("manifests")))
    config = None if is_index else _descriptor(document.get("config"))
    return Manifest(
        kind,
        children,
        is_named,
        is_index,
        tuple(PlatformImage(one.digest, one.platform) for one in entries),
        config.digest if config else None,
        max(len(items) - CHILDREN_MAX, 0),
    )


def _is_costly(data: bytes) -> bool:
    """True if `data` is no JSON object or has too many values. Commas inside strings count too, which is harmless."""
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
    # an image config has a `config` too, but it is not a descriptor
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
    """The JSON values that should be descriptors. None for schema 1: containerd converts it and stores the result."""
    if kind in media_type.INDEXES:
        return _list(document.get("manifests"))
    if kind in media_type.ARTIFACTS:
        return _list(document.get("blobs"))
    if kind in (media_type.OCI_MANIFEST, media_type.DOCKER_MANIFEST):
        return [document.get("config"), *_list(document.get("layers"))]
    if kind in media_type.SCHEMAS1:
        return []
    # an unknown type: everything that it could name
    keys = ("manifests", "layers", "blobs")
    return [document.get("config"), *(item for key in keys for item in _list(document.get(key)))]


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _descriptors(items: list[Any]) -> tuple[Descriptor, ...]:
    return tuple(child for item in items[:CHILDREN_MAX] if (child := _descriptor(item)) is not None)


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
    platform = item.get("platform")
    return Descriptor(
        sys.intern(kind) if isinstance(kind, str) else "",  # parsed manifests are cached; their types repeat
        digest,
        size,
        platform_of_entry(platform) if isinstance(platform, dict) else None,
    )


def _integer(text: str) -> int | None:
    return int(text) if len(text) <= _DIGITS_MAX else None


def _nothing(text: str) -> None:
    return None
