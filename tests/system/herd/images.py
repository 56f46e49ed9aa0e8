"""Images that are large to download and small to unpack.

Many nodes share one machine here. What they unpack would be most of its work, and the same with and without sharing.
So the bytes of a layer are in the extra fields of empty gzip members, which containerd skips; the last member is a tar
with one small file.
"""

from __future__ import annotations

import gzip
import io
import os
import struct
import tarfile
from collections.abc import Mapping, Sequence

from speil.oci.image_builder import BuiltImage, ImageBuilder, Layer

EXTRA_BYTES_MAX = 0xFFFF
_MEMBER_HEAD = b"\x1f\x8b\x08\x04" + bytes(5) + b"\xff"
_MEMBER_TAIL = b"\x03\x00" + bytes(8)  # an empty block, and the check of no bytes
_MEMBER_BYTES = len(_MEMBER_HEAD) + 2 + len(_MEMBER_TAIL)


def padded_layer(builder: ImageBuilder, size_bytes: int) -> Layer:
    """A layer of about `size_bytes`, other bytes each time."""
    parts, left = [], size_bytes
    while left > _MEMBER_BYTES:
        extra = os.urandom(min(left - _MEMBER_BYTES, EXTRA_BYTES_MAX))
        parts += [_MEMBER_HEAD, struct.pack("<H", len(extra)), extra, _MEMBER_TAIL]
        left -= len(extra) + _MEMBER_BYTES
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        name = os.urandom(8).hex()
        entry = tarfile.TarInfo(f"herd/{name}")
        entry.size = len(name)
        tar.addfile(entry, io.BytesIO(name.encode()))
    return builder.layer(b"".join([*parts, gzip.compress(out.getvalue(), mtime=0)]), out.getvalue())


def padded_image(layers: Sequence[int]) -> BuiltImage:
    """An image for amd64 with layers of about these sizes."""
    builder = ImageBuilder()
    return builder.build({"amd64": [padded_layer(builder, size) for size in layers]})


def two_images(shared: Sequence[int], own: Sequence[int]) -> tuple[BuiltImage, BuiltImage]:
    """Two images with the same first layers, and last layers of their own."""
    first, second = ImageBuilder(), ImageBuilder()
    both = [padded_layer(first, size) for size in shared]
    for layer in both:
        digest = layer.descriptor.digest
        second.blobs[digest], second.media_types[digest] = first.blobs[digest], first.media_types[digest]
    return (
        first.build({"amd64": [*both, *(padded_layer(first, size) for size in own)]}),
        second.build({"amd64": [*both, *(padded_layer(second, size) for size in own)]}),
    )


def two_platforms(shared: Sequence[int], own: Sequence[int]) -> BuiltImage:
    """An image for amd64 and arm64: the same first layers, and last layers of their own."""
    builder = ImageBuilder()
    both = [padded_layer(builder, size) for size in shared]
    platforms: Mapping[str, Sequence[Layer]] = {
        name: [*both, *(padded_layer(builder, size) for size in own)] for name in ("amd64", "arm64")
    }
    return builder.build(dict(platforms))
