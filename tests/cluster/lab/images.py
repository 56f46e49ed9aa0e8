"""Test images: a static program that waits, and layers of random bytes."""

from __future__ import annotations

import gzip
import http.client
import io
import json
import socket
import ssl
import tarfile
from base64 import b64encode
from pathlib import Path
from random import Random
from typing import Any
from urllib.parse import quote, urlsplit

from speil.oci import media_type
from speil.oci.digest import Digest
from speil.oci.image_builder import LAYER, BuiltImage, ImageBuilder, Layer
from speil.oci.manifest import Descriptor
from tests.requirements import tool_path

COMMAND = ("/pause",)
REQUEST_SECONDS_MAX = 120.0


def make_image(seed: str, mebibytes: int = 4, layers: int = 2) -> BuiltImage:
    """An image that runs, with `layers` layers of `mebibytes` in all that no image of another seed has."""
    builder, dice = ImageBuilder(), Random(seed)
    built = [_layer(builder, "pause", tool_path("pause").read_bytes(), 0o755)]
    for number in range(layers):
        built.append(_layer(builder, f"data{number}", dice.randbytes((mebibytes << 20) // layers), 0o644))
    return builder.build({"amd64": built}, command=COMMAND)


def _layer(builder: ImageBuilder, name: str, data: bytes, mode: int) -> Layer:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        entry = tarfile.TarInfo(name)
        entry.size, entry.mode = len(data), mode
        tar.addfile(entry, io.BytesIO(data))
    return builder.layer(gzip.compress(out.getvalue(), 1, mtime=0), out.getvalue())


def write_archive(image: BuiltImage, reference: str, path: Path) -> None:
    """An OCI archive for `ctr images import`."""
    name = {"io.containerd.image.name": reference}
    index = {
        "mediaType": image.index.media_type,
        "digest": str(image.index.digest),
        "size": image.index.size,
        "annotations": name,
    }
    files = {
        "oci-layout": json.dumps({"imageLayoutVersion": "1.0.0"}).encode(),
        "index.json": json.dumps({"schemaVersion": 2, "manifests": [index]}).encode(),
    }
    files |= {f"blobs/sha256/{digest.hex}": data for digest, data in image.blobs.items()}
    with tarfile.open(path, "w") as tar:
        for file, data in files.items():
            entry = tarfile.TarInfo(file)
            entry.size = len(data)
            tar.addfile(entry, io.BytesIO(data))


def read_archive(path: Path) -> BuiltImage:
    """The one image of an OCI archive, as `make image` writes it: all its platforms that are in the archive."""
    with tarfile.open(path) as tar:
        files = {entry.name: _read(tar, entry) for entry in tar.getmembers() if entry.isfile()}
    (entry,) = json.loads(files["index.json"])["manifests"]
    image = BuiltImage(_descriptor(entry), {}, {}, {})

    def take(descriptor: dict[str, Any]) -> None:
        found = _descriptor(descriptor)
        data = files.get(f"blobs/sha256/{found.digest.hex}")
        if data is None:
            return  # a platform that the archive does not have
        image.blobs[found.digest], image.media_types[found.digest] = data, found.media_type
        if found.media_type in media_type.MANIFESTS:
            document = json.loads(data)
            config = [document["config"]] if "config" in document else []
            for child in (*document.get("manifests", ()), *config, *document.get("layers", ())):
                take(child)

    take(entry)
    return image


def _descriptor(entry: dict[str, Any]) -> Descriptor:
    return Descriptor(entry["mediaType"], Digest.parse(entry["digest"]), entry["size"])


def _read(tar: tarfile.TarFile, entry: tarfile.TarInfo) -> bytes:
    file = tar.extractfile(entry)
    assert file is not None
    return file.read()


def push(
    image: BuiltImage, host: str, address: str, name: str, tag: str, tls: ssl.SSLContext, login: tuple[str, str] | None
) -> None:
    """Upload an image by the distribution API; from inside the registry's network namespace."""
    connection = _Connection(host, address, tls)
    headers = {"Authorization": "Basic " + b64encode(":".join(login).encode()).decode()} if login else {}

    def send(method: str, path: str, body: bytes = b"", kind: str = "application/octet-stream") -> str:
        connection.request(method, path, body, {"Content-Type": kind, **headers})
        response = connection.getresponse()
        said = response.read()
        assert response.status in (201, 202), f"{method} {path}: {response.status} {said[:300]!r}"
        return response.headers.get("Location", "")

    # a manifest is refused before its blobs, an index before its manifests
    order = sorted(image.blobs, key=lambda digest: (image.kind(digest) == "manifests", digest == image.index.digest))
    for digest in order:
        data, kind = image.blobs[digest], image.media_types[digest]
        if image.kind(digest) == "manifests":
            send("PUT", f"/v2/{name}/manifests/{tag if digest == image.index.digest else digest}", data, kind)
        else:
            upload = urlsplit(send("POST", f"/v2/{name}/blobs/uploads/"))
            send("PUT", f"{upload.path}?{upload.query}&digest={quote(str(digest))}", data)
    connection.close()


class _Connection(http.client.HTTPSConnection):
    """To an address, with the host's name."""

    def __init__(self, host: str, address: str, tls: ssl.SSLContext) -> None:
        super().__init__(host, 443, timeout=REQUEST_SECONDS_MAX, context=tls)
        self._address, self._tls = address, tls

    def connect(self) -> None:
        plain = socket.create_connection((self._address, 443), timeout=REQUEST_SECONDS_MAX)
        self.sock = self._tls.wrap_socket(plain, server_hostname=self.host)


def with_more(image: BuiltImage, seed: str, mebibytes: int = 16) -> BuiltImage:
    """The same image, single platform, with another layer on top: a later release, as far as a node can see."""
    manifest = json.loads(image.blobs[_manifest_of(image)])
    config_digest = Digest.parse(manifest["config"]["digest"])
    config = json.loads(image.blobs[config_digest])
    builder = ImageBuilder()
    layer = _layer(builder, f"usr/share/{seed}", Random(seed).randbytes(mebibytes << 20), 0o644)
    config["rootfs"]["diff_ids"].append(str(layer.diff_id))
    config.get("history", []).append({"created_by": seed})
    new_config = json.dumps(config).encode()
    manifest["config"] |= {"digest": str(Digest.of(new_config)), "size": len(new_config)}
    manifest["layers"].append(
        {"mediaType": LAYER, "digest": str(layer.descriptor.digest), "size": layer.descriptor.size}
    )
    new_manifest = json.dumps(manifest).encode()
    index = Descriptor(media_type.OCI_MANIFEST, Digest.of(new_manifest), len(new_manifest))
    old = {Digest.parse(one["digest"]) for one in manifest["layers"]} & set(image.blobs)
    blobs = {digest: image.blobs[digest] for digest in old} | builder.blobs
    blobs |= {Digest.of(new_config): new_config, index.digest: new_manifest}
    types = dict.fromkeys(blobs, LAYER) | {
        Digest.of(new_config): manifest["config"]["mediaType"],
        index.digest: index.media_type,
    }
    return BuiltImage(index, {}, blobs, types)


def _manifest_of(image: BuiltImage) -> Digest:
    """The manifest of this machine's platform."""
    document = json.loads(image.blobs[image.index.digest])
    if "manifests" not in document:
        return image.index.digest
    entry = next(one for one in document["manifests"] if one["platform"]["architecture"] == "amd64")
    return Digest.parse(entry["digest"])
