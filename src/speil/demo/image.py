"""Makes images from files of this machine: layers of real files, an index with two platforms.

Each layer has other files of Python's library and of the system. The two platforms share their first layer, as images
with a common base do. Timestamps and owners are left out, so the same files give the same digests.
"""

from __future__ import annotations

import gzip
import io
import sysconfig
import tarfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TypeVar

from speil.oci.image_builder import BuiltImage, ImageBuilder, Layer

FILE_BYTES_MAX = 8 << 20  # of one file: a layer shall have many
_PACK_BYTES = 1 << 20  # after so many bytes `is_stopped` is called again
T = TypeVar("T")
_SOURCES = (sysconfig.get_path("stdlib"), "/usr/lib", "/usr/bin", "/usr/share")


class StoppedError(Exception):
    """`is_stopped` returned true."""


def make_images(
    count: int,
    layers: int,
    layer_bytes: int,
    progress: Callable[[str], None],
    is_stopped: Callable[[], bool] = lambda: False,
) -> list[BuiltImage]:
    """Images that share no layer: each has `layers` layers of about `layer_bytes` for amd64, and two for arm64.

    Runs in a thread, which can't be cancelled: raises StoppedError soon after `is_stopped` returns true. `progress` is
    called with a line for each layer.
    """
    files = _unless(is_stopped, _files(is_stopped))
    return [_make_image(files, layers, layer_bytes, progress, is_stopped) for _ in range(count)]


def _make_image(
    files: Iterator[Path],
    layers: int,
    layer_bytes: int,
    progress: Callable[[str], None],
    is_stopped: Callable[[], bool],
) -> BuiltImage:
    builder = ImageBuilder()
    built: list[Layer] = []
    for number in range(1, layers + 2):  # one more, which only the other platform has
        tar = _tar(files, layer_bytes)
        layer = builder.layer(_packed(tar, is_stopped), tar)
        built.append(layer)
        packed = layer.descriptor.size
        progress(f"layer {number}/{layers + 1}: {len(tar) >> 20} MiB of files, {packed >> 20} MiB packed")
    return builder.build({"amd64": built[:layers], "arm64": [built[0], built[layers]]})


def _unless(is_stopped: Callable[[], bool], items: Iterable[T]) -> Iterator[T]:
    for item in items:
        if is_stopped():
            raise StoppedError
        yield item


def _packed(tar: bytes, is_stopped: Callable[[], bool]) -> bytes:
    out = io.BytesIO()
    with gzip.GzipFile(fileobj=out, mode="wb", compresslevel=1, mtime=0) as file:
        for start in _unless(is_stopped, range(0, len(tar), _PACK_BYTES)):
            file.write(tar[start : start + _PACK_BYTES])
    return out.getvalue()


def _files(is_stopped: Callable[[], bool]) -> Iterator[Path]:
    for source in _SOURCES:
        for path in sorted(_unless(is_stopped, Path(source).rglob("*"))):
            if path.is_file() and not path.is_symlink() and "__pycache__" not in path.parts:
                yield path


def _tar(files: Iterator[Path], size_bytes: int) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for path in files:
            try:
                data = path.read_bytes() if path.stat().st_size <= FILE_BYTES_MAX else b""
            except OSError:
                continue  # this user may not read it
            entry = tarfile.TarInfo(str(path).lstrip("/"))
            entry.size = len(data)
            tar.addfile(entry, io.BytesIO(data))
            if out.tell() >= size_bytes:
                break
    return out.getvalue()
