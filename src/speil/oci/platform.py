"""Platforms (OCI image spec, "Image Index"): which entry of an index the containerd of a node pulls.

The rules are those of containerd's `platforms` package. Names are normalised. amd64 also runs 386, arm64 also runs arm,
and a variant also runs the lower ones. An entry without a platform comes last.
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
    """The text is not a platform. The message has an example."""


@dataclass(frozen=True, slots=True)
class Platform:
    """An operating system and an architecture, normalised. Create it with `of` or `parse`."""

    os: str
    architecture: str
    variant: str = ""

    @classmethod
    def of(cls, os: str, architecture: str, variant: str = "") -> Platform:
        """From the values of a descriptor, an image config or uname, in any spelling."""
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
            raise PlatformError(f"{text[:60]!r} is not a platform: use a form such as linux/amd64 or linux/arm/v7")
        return cls.of(*parts)

    @property
    def is_unknown(self) -> bool:
        """Whether this marks an entry that is not an image, such as an attestation: `unknown/unknown`."""
        return _UNKNOWN in (self.os, self.architecture)

    @property
    def runs(self) -> list[Platform]:
        """The platforms whose images a node of this platform can run, best first."""
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
    """The digest of a manifest, and its platform; None if it is not known."""

    manifest: Digest
    platform: Platform | None


def best(entries: Iterable[PlatformImage], node: Platform) -> PlatformImage | None:
    """The entry that containerd on `node` pulls; None if it can run none of them."""
    ranks = {platform: rank for rank, platform in enumerate(node.runs)}
    taken = [one for one in entries if one.platform is None or one.platform in ranks]
    return min(taken, key=lambda one: len(ranks) if one.platform is None else ranks[one.platform], default=None)


def platform_of_entry(value: dict[str, Any]) -> Platform:
    """The platform of an index entry, from its `platform` object. Never raises; odd values become `unknown`.

    As in containerd, an entry without `os` has the node's, and `{}` matches no node.
    """
    system, architecture, variant = (value.get(key) for key in ("os", "architecture", "variant"))
    return Platform.of(_word(system or "linux"), _word(architecture or None), _word(variant or ""))


def platform_of_config(data: bytes) -> Platform | None:
    """The platform in an image config; None if `data` is another kind of config. Never raises."""
    try:
        document = json.loads(data)
    except (ValueError, RecursionError):
        return None
    if not isinstance(document, dict):
        return None
    words = [document.get(key, "") for key in ("os", "architecture", "variant")]
    if not all(isinstance(word, str) for word in words) or not (words[0] and words[1]):
        return None
    return Platform.of(*map(_word, words))


def show(images: Sequence[PlatformImage]) -> str:
    """A header value: `linux/amd64=sha256:…, *=sha256:…`. `*` stands for an unknown platform."""
    return ", ".join(f"{one.platform or '*'}={one.manifest}" for one in images)


def read(text: str, count_max: int) -> list[PlatformImage] | None:
    """Parse a value of `show`; None if it is malformed or has more than `count_max` images."""
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


def _word(said: object) -> str:
    """A part of a platform. Image authors may write anything, and it goes into a header, so odd values are replaced."""
    if said == "":
        return ""
    return said if isinstance(said, str) and _WORD.fullmatch(said) else _UNKNOWN
