"""Media types of manifests (OCI image spec, Docker's schemas, artifacts), and which of them are an index."""

from __future__ import annotations

import re

OCI_INDEX = "application/vnd.oci.image.index.v1+json"
OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_ARTIFACT = "application/vnd.oci.artifact.manifest.v1+json"  # of the image spec's 1.1 release candidates
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

# RFC 6838 §4.2; what does not match can't stand in a header either
_GRAMMAR = re.compile(r"[A-Za-z0-9][A-Za-z0-9!#$&^_.+-]{0,126}/[A-Za-z0-9][A-Za-z0-9!#$&^_.+-]{0,126}", re.ASCII)


def is_media_type(text: str) -> bool:
    """Whether it is one by its grammar, without parameters."""
    return _GRAMMAR.fullmatch(text) is not None


def manifest_type(header: str) -> str:
    """The manifest's type that a Content-Type names, "" where it names none."""
    found = header.partition(";")[0].strip().lower()
    return found if found in MANIFESTS else ""


def asked_type(accept: str) -> str:
    """The manifest's type that an Accept header asks for, "" where it names none or several.

    containerd names the type of the descriptor that it follows.
    """
    found = {kind for part in accept.split(",", 16)[:16] if (kind := manifest_type(part))}
    return found.pop() if len(found) == 1 else ""
