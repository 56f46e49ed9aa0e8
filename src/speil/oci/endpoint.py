"""The pull endpoints of the distribution spec (end-1, end-2, end-3), parsed once at the edge.

    GET|HEAD /v2/                                  → Ping
    GET|HEAD /v2/<name>/manifests/<tag|digest>     → ManifestEndpoint
    GET|HEAD /v2/<name>/blobs/<digest>             → BlobEndpoint

containerd adds `?ns=<registry>`: the registry host the image belongs to. A tag means nothing without it.
"""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import quote

from speil.oci.digest import Digest, DigestError
from speil.oci.reference import is_name, is_registry, is_tag


class EndpointError(ValueError):
    """A path or `ns` that names nothing a registry could serve; the answer is a 404 without a body."""


@dataclass(frozen=True, slots=True)
class Ping:
    """end-1: does this host speak the distribution API?"""


@dataclass(frozen=True, slots=True)
class Content:
    """end-2 and end-3: a manifest or blob; `registry` is None for digest requests without `ns`."""

    kind: str  # "manifests" or "blobs", the spec's path words
    registry: str | None
    name: str
    reference: Digest | str  # a str is a tag

    @property
    def is_manifest(self) -> bool:
        """Whether a manifest was asked for."""
        return self.kind == "manifests"

    @property
    def digest(self) -> Digest | None:
        """The digest asked for, None for a tag."""
        return self.reference if isinstance(self.reference, Digest) else None

    @property
    def key(self) -> str:
        """The name its providers announce: the digest, or `registry/repository:tag`."""
        return str(self.reference) if self.digest else f"{self.registry}/{self.name}:{self.reference}"

    @property
    def image(self) -> str:
        """`registry/repository`, as far as it is known: what filters match and logs show."""
        return f"{self.registry or ''}/{self.name}".lstrip("/")

    @property
    def target(self) -> str:
        """Path and query for the same request to a peer."""
        query = f"?ns={quote(self.registry, safe='')}" if self.registry else ""
        return f"/v2/{self.name}/{self.kind}/{self.reference}{query}"


def parse(path: str, ns: str | None = None) -> Ping | Content:
    """The endpoint behind a decoded `path`. Raises EndpointError; a tag without `ns` is one."""
    if path in ("/v2", "/v2/"):
        return Ping()
    if ns is not None and not is_registry(ns):
        raise EndpointError(f"ns {ns[:150]!r} is not a registry host")
    head, _, last = path.rpartition("/")
    base, _, kind = head.rpartition("/")
    if not base.startswith("/v2/") or kind not in ("manifests", "blobs"):
        raise EndpointError(f"no endpoint at {path[:300]!r}")
    name = base.removeprefix("/v2/")
    if not is_name(name):
        raise EndpointError(f"bad repository name {name[:150]!r}")
    try:
        return Content(kind, ns, name, Digest.parse(last))
    except DigestError as error:
        if kind == "blobs" or not is_tag(last):
            raise EndpointError(str(error)) from error
    if ns is None:
        raise EndpointError(f"tag {last!r} without ns: which registry is it of?")
    return Content(kind, ns, name, last)
