"""Image references: `registry/repository[:tag][@digest]`, as containerd names images.

containerd's image names are always fully qualified (`docker.io/library/busybox:1.37`): the first part is the registry
host. The grammar of repository and tag is that of the distribution spec ("Pulling manifests").
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from speil.oci.digest import Digest, DigestError

_NAME = re.compile(r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*(?:/[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*)*", re.ASCII)
_TAG = re.compile(r"[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}", re.ASCII)
_REGISTRY = re.compile(
    r"(?:[a-zA-Z0-9](?:[a-zA-Z0-9-]*[a-zA-Z0-9])?(?:\.[a-zA-Z0-9-]+)*|\[[0-9a-fA-F:.]+\])(?::[0-9]{1,5})?"
)
NAME_CHARS_MAX = 255  # the limit of registries: longer names can't have been pulled


class InvalidReferenceError(ValueError):
    """The text is not an image reference (spec code NAME_INVALID)."""


def is_name(text: str) -> bool:
    """Whether `text` is a valid repository name."""
    return len(text) <= NAME_CHARS_MAX and _NAME.fullmatch(text) is not None


def is_tag(text: str) -> bool:
    """Whether `text` is a valid tag."""
    return _TAG.fullmatch(text) is not None


def is_registry(text: str) -> bool:
    """Whether `text` is a registry host: a DNS name or IP address, with an optional port."""
    return len(text) <= NAME_CHARS_MAX and _REGISTRY.fullmatch(text) is not None


@dataclass(frozen=True, slots=True)
class Reference:
    """A parsed image reference. At least one of `tag` and `digest` is set."""

    registry: str
    name: str
    tag: str | None = None
    digest: Digest | None = None

    @classmethod
    def parse(cls, text: str) -> Reference:
        """Parse a fully qualified image name. Raises InvalidReferenceError, which says which part is wrong."""
        rest, at, digest_text = text.partition("@")
        try:
            digest = Digest.parse(digest_text) if at else None
        except DigestError as error:
            raise InvalidReferenceError(f"image {text[:150]!r}: {error}") from error
        registry, _, path = rest.partition("/")
        name, colon, tag = path.partition(":")
        if not path or not is_registry(registry):
            raise InvalidReferenceError(f"image {text[:150]!r}: no registry host in front")
        if not is_name(name):
            raise InvalidReferenceError(f"image {text[:150]!r}: invalid repository name")
        if colon and not is_tag(tag):
            raise InvalidReferenceError(f"image {text[:150]!r}: invalid tag")
        if not colon and digest is None:
            raise InvalidReferenceError(f"image {text[:150]!r}: neither tag nor digest")
        return cls(registry, name, tag if colon else None, digest)

    @property
    def tag_name(self) -> str | None:
        """`registry/repository:tag`, the DHT key of a tag; None without a tag."""
        return f"{self.registry}/{self.name}:{self.tag}" if self.tag is not None else None

    def __str__(self) -> str:
        tag = f":{self.tag}" if self.tag is not None else ""
        digest = f"@{self.digest}" if self.digest is not None else ""
        return f"{self.registry}/{self.name}{tag}{digest}"
