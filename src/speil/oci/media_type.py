"""Media types of manifests: OCI image spec, Docker schemas, artifacts."""

from __future__ import annotations

import re

OCI_INDEX = "application/vnd.oci.image.index.v1+json"
OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_ARTIFACT = "application/vnd.oci.artifact.manifest.v1+json"  # from release candidates of image spec 1.1
ORAS_ARTIFACT = "application/vnd.cncf.oras.artifact.manifest.v1+json"
DOCKER_LIST = "application/vnd.docker.distribution.manifest.list.v2+json"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_SCHEMA1 = "application/vnd.docker.distribution.manifest.v1+json"
DOCKER_SCHEMA1_SIGNED = "application/vnd.docker.distribution.manifest.v1+prettyjws"
OCTET_STREAM = "application/octet-stream"

INDEXES = frozenset((OCI_INDEX, DOCKER_LIST))
ARTIFACTS = frozenset((OCI_ARTIFACT, ORAS_ARTIFACT))
SCHEMAS1 = frozenset((DOCKER_SCHEMA1, DOCKER_SCHEMA1_SIGNED))
MANIFESTS = INDEXES | ARTIFACTS | SCHEMAS1 | {OCI_MANIFEST, DOCKER_MANIFEST}

# RFC 6838 §4.2; this also keeps invalid characters out of headers
_GRAMMAR = re.compile(r"[A-Za-z0-9][A-Za-z0-9!#$&^_.+-]{0,126}/[A-Za-z0-9][A-Za-z0-9!#$&^_.+-]{0,126}", re.ASCII)


def is_media_type(text: str) -> bool:
    """Whether `text` is a media type by the grammar, without parameters."""
    return _GRAMMAR.fullmatch(text) is not None


def manifest_type(header: str) -> str:
    """The manifest type in a Content-Type header; "" if it is not one of MANIFESTS."""
    found = header.partition(";")[0].strip().lower()
    return found if found in MANIFESTS else ""


def asked_type(accept: str) -> str:
    """The manifest type that an Accept header asks for; "" if it names none or several.

    containerd sends the type from the descriptor it follows.
    """
    found = {kind for part in accept.split(",", 16)[:16] if (kind := manifest_type(part))}
    return found.pop() if len(found) == 1 else ""


def is_foreign(text: str) -> bool:
    """Whether this is the type of a layer that registries and mirrors must not distribute."""
    return ".foreign." in text or "nondistributable" in text
