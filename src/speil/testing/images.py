"""Images for tests: small, random, the same for the same seed, and real (gzipped tars, two platforms)."""

from __future__ import annotations

import gzip
import io
import tarfile
from collections.abc import Sequence
from random import Random

from speil.oci.image_builder import BuiltImage, ImageBuilder


def random_image(
    seed: int, layer_sizes: Sequence[int] = (200_000, 50_000, 1_000), *, compress_level: int = 0
) -> BuiltImage:
    """An image with layers of about `layer_sizes` bytes for amd64; arm64 shares the first and has one of its own.

    `compress_level` is gzip's: 0 is the quickest, and random data gets no smaller with the others.
    """
    rng, builder = Random(seed), ImageBuilder()
    layers = []
    for number, size in enumerate([*layer_sizes, 2_000]):
        tar = _tar(f"data/{seed}-{number}.bin", rng.randbytes(size))
        layers.append(builder.layer(gzip.compress(tar, compresslevel=compress_level, mtime=0), tar))
    return builder.build({"amd64": layers[:-1], "arm64": [layers[0], layers[-1]]})


def _tar(name: str, data: bytes) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        entry = tarfile.TarInfo(name)
        entry.size = len(data)
        tar.addfile(entry, io.BytesIO(data))
    return out.getvalue()
