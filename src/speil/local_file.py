"""Files of this machine that others may have written: opened without waiting, read within a bound.

A path may name a FIFO, whose open waits for a writer, a device that never ends, a directory, a socket, or a file larger
than memory. All of them are an OSError here, whose `strerror` says what was found.
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
    """The path names something else than a regular file."""


@dataclass(frozen=True, slots=True)
class LocalFile:
    """What was read, and the file's state when it was."""

    data: bytes
    stat: os.stat_result


def open_file(path: Path | str, *, follow_links: bool = True, dir_fd: int | None = None) -> tuple[int, os.stat_result]:
    """A descriptor of a regular file, for reading, and its state. Never waits. Raises OSError (NotAFileError).

    Without `follow_links` a path whose last part is a symbolic link is refused.
    """
    # O_NONBLOCK: the open of a FIFO returns at once; for a regular file it means nothing
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
    """What is there, in words."""
    return _KINDS.get(stat.S_IFMT(found.st_mode), "something else")


def read_file(path: Path | str, bytes_max: int, *, follow_links: bool = True) -> LocalFile:
    """The whole of a regular file of at most `bytes_max` bytes. Raises OSError (NotAFileError, EFBIG)."""
    descriptor, found = open_file(path, follow_links=follow_links)
    with open(descriptor, "rb") as file:
        data = file.read(bytes_max + 1) if found.st_size <= bytes_max else b""
    if max(found.st_size, len(data)) > bytes_max:  # it may grow meanwhile
        raise OSError(errno.EFBIG, f"it has more than {bytes_max} bytes", str(path))
    return LocalFile(data, found)


def parse_json(data: bytes | str, depth_max: int | None = None) -> Any:
    """A JSON document, whose nesting is at most `depth_max` where that is given. Raises ValueError for any other."""
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
