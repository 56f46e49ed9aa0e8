"""Manifests, index and the OCI archive (image-layout in a tar)."""

from __future__ import annotations

import io
import json
import tarfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from scripts.image.identity import Identity
from scripts.image.layers import Layer, digest

TITLE = "speil"
DESCRIPTION = "A stateless, peer-to-peer, cluster-local OCI registry mirror for Kubernetes, made for many regions"
LICENCE = "MIT"
REPOSITORY = "https://github.com/speil-dev/speil"
VENDOR = "the speil authors"
_TYPE = "application/vnd.oci.image."
_INDEX_TYPE = f"{_TYPE}index.v1+json"
_MANIFEST_TYPE = f"{_TYPE}manifest.v1+json"
_CONFIG: dict[str, Any] = {
    "Entrypoint": ["/usr/bin/speil"],
    "Env": [
        "PATH=/usr/bin",
        "SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt",
        # the root is read-only, and everything is compiled
        "PYTHONDONTWRITEBYTECODE=1",
    ],
    "WorkingDir": "/",
    "User": "0:0",
}


@dataclass(slots=True)
class Archive:
    """An image for several architectures, filled one by one."""

    identity: Identity
    _blobs: dict[str, bytes] = field(default_factory=dict)
    _manifests: list[dict[str, Any]] = field(default_factory=list)

    @property
    def annotations(self) -> dict[str, str]:
        """Those of the OCI image spec, for manifests and index, and as labels of the configuration."""
        facts = {
            "title": TITLE,
            "description": DESCRIPTION,
            "version": self.identity.version,
            "revision": self.identity.commit,
            "created": self.identity.created,
            "licenses": LICENCE,
            "vendor": VENDOR,
            "url": REPOSITORY,
            "source": REPOSITORY,
            "documentation": f"{REPOSITORY}/tree/main/docs",
        }
        return {f"org.opencontainers.image.{name}": value for name, value in facts.items()}

    def add(self, architecture: str, layers: list[Layer]) -> dict[str, Any]:
        """Add one architecture's image; returns its descriptor."""
        created = self.identity.created
        config: dict[str, Any] = {
            "architecture": architecture,
            "os": "linux",
            **({"variant": "v8"} if architecture == "arm64" else {}),
            "created": created,
            "config": {**_CONFIG, "Labels": self.annotations},
            "rootfs": {"type": "layers", "diff_ids": [layer.diff_id for layer in layers]},
            "history": [
                {"created": created, "created_by": f"python -m scripts.image ({part})"}
                for part in ("base: Debian packages and locked wheels", "application: speil")
            ],
        }
        manifest = {
            "schemaVersion": 2,
            "mediaType": _MANIFEST_TYPE,
            "config": self._blob(_json(config), f"{_TYPE}config.v1+json"),
            "layers": [self._blob(layer.data, f"{_TYPE}layer.v1.tar+zstd") for layer in layers],
            "annotations": self.annotations,
        }
        descriptor = self._blob(_json(manifest), _MANIFEST_TYPE) | {"platform": _platform(config)}
        self._manifests.append(descriptor)
        return descriptor

    def write(self, target: Path, reference: str) -> str:
        """Write the archive under a reference such as `speil:0.1.0`; returns the digest of the image's index."""
        index = _json(
            {
                "schemaVersion": 2,
                "mediaType": _INDEX_TYPE,
                "manifests": self._manifests,
                "annotations": self.annotations,
            }
        )
        entry = self._blob(index, _INDEX_TYPE)
        # the tag for OCI tools, the whole reference for `ctr images import`
        entry["annotations"] = {
            "org.opencontainers.image.ref.name": reference.rpartition(":")[2],
            "io.containerd.image.name": reference,
        }
        files = {
            "oci-layout": _json({"imageLayoutVersion": "1.0.0"}),
            "index.json": _json({"schemaVersion": 2, "mediaType": _INDEX_TYPE, "manifests": [entry]}),
            **{f"blobs/{name.replace(':', '/')}": data for name, data in sorted(self._blobs.items())},
        }
        target.parent.mkdir(parents=True, exist_ok=True)
        partial = target.with_suffix(".partial")
        try:
            with tarfile.open(partial, "w", format=tarfile.PAX_FORMAT) as tar:
                for name, data in files.items():
                    member = tarfile.TarInfo(name)
                    member.size = len(data)
                    tar.addfile(member, io.BytesIO(data))
            partial.rename(target)
        finally:
            partial.unlink(missing_ok=True)
        return str(entry["digest"])

    def _blob(self, data: bytes, media_type: str) -> dict[str, Any]:
        name = digest(data)
        self._blobs[name] = data
        return {"mediaType": media_type, "digest": name, "size": len(data)}


def _platform(config: dict[str, Any]) -> dict[str, str]:
    return {key: config[key] for key in ("architecture", "os", "variant") if key in config}


def _json(document: dict[str, Any]) -> bytes:
    return json.dumps(document, separators=(",", ":"), sort_keys=True).encode()
