"""Parses the pull endpoints of the distribution spec: end-1, end-2 and end-3.

    GET|HEAD /v2/                                  → Ping
    GET|HEAD /v2/<name>/manifests/<tag|digest>     → ManifestEndpoint
    GET|HEAD /v2/<name>/blobs/<digest>             → BlobEndpoint

containerd adds `?ns=<registry>`, the registry host of the image. A tag can only be resolved with it.
"""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import quote

from speil.oci.digest import Digest, DigestError
from speil.oci.reference import is_name, is_registry, is_tag


class EndpointError(ValueError):
    """The path or `ns` is not one that a registry serves. The response is a 404."""


@dataclass(frozen=True, slots=True)
class Ping:
    """end-1: a client checks that this host speaks the distribution API."""


@dataclass(frozen=True, slots=True)
class Content:
    """end-2 and end-3: a manifest or blob. `registry` is the `ns` parameter, None for requests by digest without it."""

    kind: str  # "manifests" or "blobs", as in the path
    registry: str | None
    name: str
    reference: Digest | str  # a str is a tag

    @property
    def is_manifest(self) -> bool:
        """Whether the path is `/manifests/`."""
        return self.kind == "manifests"

    @property
    def digest(self) -> Digest | None:
        """The requested digest; None for a request by tag."""
        return self.reference if isinstance(self.reference, Digest) else None

    @property
    def key(self) -> str:
        """The key that providers announce in the DHT: the digest, or `registry/repository:tag`."""
        return str(self.reference) if self.digest else f"{self.registry}/{self.name}:{self.reference}"

    @property
    def image(self) -> str:
        """`registry/repository` for filters and logs; only `repository` if the registry is not known."""
        return f"{self.registry or ''}/{self.name}".lstrip("/")

    @property
    def target(self) -> str:
        """Path and query of the same request to a peer."""
        query = f"?ns={quote(self.registry, safe='')}" if self.registry else ""
        return f"/v2/{self.name}/{self.kind}/{self.reference}{query}"


def parse(path: str, ns: str | None = None) -> Ping | Content:
    """The endpoint of a percent-decoded `path`. Raises EndpointError, also for a tag without `ns`."""
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
        raise EndpointError(f"invalid repository name {name[:150]!r}")
    try:
        return Content(kind, ns, name, Digest.parse(last))
    except DigestError as error:
        if kind == "blobs" or not is_tag(last):
            raise EndpointError(str(error)) from error
    if ns is None:
        raise EndpointError(f"tag {last!r} without ns: the registry is not known")
    return Content(kind, ns, name, last)
