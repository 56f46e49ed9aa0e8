"""Platforms (OCI image spec, "Image Index"): of which manifest of an index does a node's containerd take the content?

The rules are those of containerd's `platforms` package: names are normalised, amd64 also runs 386, arm64 also runs arm,
a variant also runs what is below it. An entry that names no platform is taken last.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from speil.oci.digest import Digest, DigestError

_UNKNOWN = "unknown"
_WORD = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,31}")
_ARCHITECTURES = {
    "x86_64": ("amd64", ""),
    "x86-64": ("amd64", ""),
    "i386": ("386", ""),
    "i686": ("386", ""),
    "aarch64": ("arm64", ""),
    "armhf": ("arm", "v7"),
    "armv8l": ("arm", "v8"),
    "armv7l": ("arm", "v7"),
    "armv6l": ("arm", "v6"),
    "armel": ("arm", "v6"),
    "loongarch64": ("loong64", ""),
}


class PlatformError(ValueError):
    """Text that is no platform; the message says what one looks like."""


@dataclass(frozen=True, slots=True)
class Platform:
    """An operating system on an architecture, normalised; use `of` or `parse`."""

    os: str
    architecture: str
    variant: str = ""

    @classmethod
    def of(cls, os: str, architecture: str, variant: str = "") -> Platform:
        """From the words of a descriptor, a config or uname."""
        architecture, variant = architecture.lower(), variant.lower()
        if known := _ARCHITECTURES.get(architecture):
            architecture, variant = known[0], variant or known[1]
        if variant.isdigit():
            variant = f"v{variant}"
        if (architecture, variant) in (("amd64", "v1"), ("arm64", "v8")):
            variant = ""
        if (architecture, variant) == ("arm", ""):
            variant = "v7"
        return cls(os.lower(), architecture, variant)

    @classmethod
    def parse(cls, text: str) -> Platform:
        """From `linux/amd64` or `linux/arm/v7`. Raises PlatformError."""
        parts = text.strip().split("/")
        if len(parts) not in (2, 3) or not all(part and part.isascii() and part.isprintable() for part in parts):
            raise PlatformError(f"{text[:60]!r} is not a platform: say something like linux/amd64 or linux/arm/v7")
        return cls.of(*parts)

    @property
    def is_unknown(self) -> bool:
        """Whether it is the mark of what is no image: `unknown/unknown`, an attestation."""
        return _UNKNOWN in (self.os, self.architecture)

    @property
    def runs(self) -> list[Platform]:
        """The platforms whose images a node of this one takes, best first."""
        found = [self]
        number = int(self.variant[1:]) if self.variant[1:].isdigit() else 0
        match self.architecture:
            case "amd64":
                found += [Platform.of(self.os, "amd64", f"v{lower}") for lower in range(number - 1, 0, -1)]
                found.append(Platform(self.os, "386"))
            case "arm64":
                found += [Platform(self.os, "arm64", "" if lower == 8 else f"v{lower}") for lower in range(8, number)]
                found += [Platform(self.os, "arm", f"v{lower}") for lower in range(8, 4, -1)]
            case "arm":
                found += [Platform(self.os, "arm", f"v{lower}") for lower in range(number - 1, 4, -1)]
        return found

    def __str__(self) -> str:
        return "/".join(part for part in (self.os, self.architecture, self.variant) if part)


@dataclass(frozen=True, slots=True)
class PlatformImage:
    """A manifest, and for which platform it is; None where nothing tells."""

    manifest: Digest
    platform: Platform | None


def best(entries: Iterable[PlatformImage], node: Platform) -> PlatformImage | None:
    """The entry of an index that a node takes; None where it takes none."""
    ranks = {platform: rank for rank, platform in enumerate(node.runs)}
    taken = [one for one in entries if one.platform is None or one.platform in ranks]
    return min(taken, key=lambda one: len(ranks) if one.platform is None else ranks[one.platform], default=None)


def entries_of_index(data: bytes) -> list[PlatformImage]:
    """The manifests that an index names, in its order. What can't be read is left out. Never raises."""
    items = _object(data).get("manifests")
    found = []
    for item in items if isinstance(items, list) else ():
        if isinstance(item, dict) and (digest := _digest(item.get("digest"))):
            platform = item.get("platform")
            found.append(PlatformImage(digest, _named(platform) if isinstance(platform, dict) else None))
    return found


def config_of_manifest(data: bytes) -> Digest | None:
    """The digest of a manifest's config. Never raises."""
    config = _object(data).get("config")
    return _digest(config.get("digest")) if isinstance(config, dict) else None


def platform_of_config(data: bytes) -> Platform | None:
    """The platform that an image config names; None for other configs. Never raises."""
    return _platform(_object(data))


def show(images: Sequence[PlatformImage]) -> str:
    """For a header: `linux/amd64=sha256:…, *=sha256:…`."""
    return ", ".join(f"{one.platform or '*'}={one.manifest}" for one in images)


def read(text: str, count_max: int) -> list[PlatformImage] | None:
    """What `show` wrote; None where it is something else or names more than `count_max`."""
    found = []
    parts = [part for part in text.split(",") if part.strip()]
    if not parts or len(parts) > count_max:
        return None
    for part in parts:
        platform, equals, digest = part.strip().partition("=")
        try:
            found.append(PlatformImage(Digest.parse(digest), None if platform == "*" else Platform.parse(platform)))
        except (DigestError, PlatformError):
            return None
        if not equals:
            return None
    return found


def _object(data: bytes) -> dict[str, Any]:
    try:
        document = json.loads(data)
    except (ValueError, RecursionError):
        return {}
    return document if isinstance(document, dict) else {}


def _digest(text: object) -> Digest | None:
    try:
        return Digest.parse(text) if isinstance(text, str) else None
    except DigestError:
        return None


def _named(document: dict[str, Any]) -> Platform:
    """The platform of an index's entry. As in containerd, one without an `os` is the node's, and {} is nobody's."""
    system, architecture, variant = (document.get(key) for key in ("os", "architecture", "variant"))
    return Platform.of(_word(system or "linux"), _word(architecture or None), _word(variant or ""))


def _platform(document: dict[str, Any]) -> Platform | None:
    words = [document.get(key, "") for key in ("os", "architecture", "variant")]
    if not all(isinstance(word, str) for word in words) or not (words[0] and words[1]):
        return None
    return Platform.of(*map(_word, words))


def _word(said: object) -> str:
    """A word of a platform; it goes into a header, and an image's author may write anything."""
    if said == "":
        return ""
    return said if isinstance(said, str) and _WORD.fullmatch(said) else _UNKNOWN
