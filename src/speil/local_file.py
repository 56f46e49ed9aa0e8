"""Reads files that others may have written: never blocks on open, never reads more than a bound.

A path may name a FIFO, whose open blocks until a writer comes, a device without end, a directory, a socket, or a file
larger than memory. Each raises an OSError here, whose `strerror` says what was found.
"""

from __future__ import annotations

import errno
import json
import os
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_KINDS = {
    stat.S_IFIFO: "a FIFO",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFDIR: "a directory",
    stat.S_IFREG: "a file",
    stat.S_IFLNK: "a symbolic link",
}


class NotAFileError(OSError):
    """The path does not name a regular file; `strerror` says what it is."""


@dataclass(frozen=True, slots=True)
class LocalFile:
    """The bytes of a file, and its `stat` when it was opened."""

    data: bytes
    stat: os.stat_result


def open_file(path: Path | str, *, follow_links: bool = True, dir_fd: int | None = None) -> tuple[int, os.stat_result]:
    """Open a regular file for reading; returns its descriptor, which the caller closes, and its `stat`.

    Never blocks. Without `follow_links` a symbolic link as the last part of the path is refused. Raises OSError
    (NotAFileError).
    """
    # O_NONBLOCK: opening a FIFO returns at once; it has no effect on a regular file
    flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY | (0 if follow_links else os.O_NOFOLLOW)
    try:
        descriptor = os.open(path, flags, dir_fd=dir_fd)
    except OSError as error:
        if error.errno == errno.ENXIO:  # a socket, or a device without its driver
            raise NotAFileError(error.errno, "it is a socket or a device, not a file", str(path)) from error
        if error.errno == errno.ELOOP and not follow_links:
            raise NotAFileError(error.errno, "it is a symbolic link, not a file", str(path)) from error
        raise
    found = os.fstat(descriptor)
    if not stat.S_ISREG(found.st_mode):
        os.close(descriptor)
        raise NotAFileError(errno.EINVAL, f"it is {kind_of(found)}, not a file", str(path))
    return descriptor, found


def kind_of(found: os.stat_result) -> str:
    """The type of a file in words: `a FIFO`, `a directory`."""
    return _KINDS.get(stat.S_IFMT(found.st_mode), "something else")


def read_file(path: Path | str, bytes_max: int, *, follow_links: bool = True, dir_fd: int | None = None) -> LocalFile:
    """Read a regular file of at most `bytes_max` bytes. Raises OSError (NotAFileError; EFBIG where it is larger)."""
    descriptor, found = open_file(path, follow_links=follow_links, dir_fd=dir_fd)
    with open(descriptor, "rb") as file:
        data = file.read(bytes_max + 1) if found.st_size <= bytes_max else b""
    if max(found.st_size, len(data)) > bytes_max:  # it may have grown since
        raise OSError(errno.EFBIG, f"it has more than {bytes_max} bytes", str(path))
    return LocalFile(data, found)


def parse_json(data: bytes | str, depth_max: int | None = None) -> Any:
    """Parse a JSON document of at most `depth_max` levels (None: any). Raises ValueError, for deep nesting too."""
    try:
        document = json.loads(data)
    except RecursionError:
        raise ValueError("it is nested too deep") from None
    if depth_max is not None:
        level = [document]
        for _ in range(depth_max):
            level = [child for node in level for child in _children(node)]
            if not level:
                return document
        raise ValueError(f"it is nested deeper than {depth_max}")
    return document


def _children(node: Any) -> list[Any]:
    if isinstance(node, dict):
        return list(node.values())
    return node if isinstance(node, list) else []
