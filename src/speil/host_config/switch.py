"""Put a new directory in the place of an old one in one step.

The new tree is built beside the directory and the two are exchanged by renameat2(2): killed at any point, there is
the old tree or the new one, and at worst a leftover that the next run removes.

A directory that is a mount point (a pod's hostPath volume of exactly this directory) can't be exchanged. There the new
tree is built inside and each entry is exchanged by itself: every registry is old or new, never half, and since the
backup comes in first and goes last, the next run finishes what one that was killed began.
"""

from __future__ import annotations

import ctypes
import errno
import os
import shutil
from collections.abc import Callable
from pathlib import Path

STAGING_PREFIX = ".speil-staging"
_AT_FDCWD, _RENAME_EXCHANGE = -100, 2
_NOT_EXCHANGEABLE = (errno.EBUSY, errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EACCES, errno.EROFS, errno.EPERM)


def replace(
    directory: Path,
    build: Callable[[Path], None],
    *,
    first: tuple[str, ...],
    last: tuple[str, ...],
    in_place: bool = False,
) -> None:
    """Replace `directory`'s content with what `build` writes into the empty directory it is given. Raises OSError.

    `first` and `last` name entries that come in before, and go after, all others where the exchange is by entry.
    """
    if not in_place:
        try:
            _replace_whole(directory, build)
            return
        except OSError as error:
            if error.errno not in _NOT_EXCHANGEABLE:
                raise
    _replace_entries(directory, build, first, last)


def _replace_whole(directory: Path, build: Callable[[Path], None]) -> None:
    parent = directory.resolve().parent
    parent.mkdir(parents=True, exist_ok=True)
    target = parent / directory.resolve().name
    staging = _new_staging(parent, f"{STAGING_PREFIX}-{target.name}")
    try:
        build(staging)
        if target.exists():
            shutil.copystat(target, staging)
            _exchange(staging, target)
        else:
            staging.rename(target)
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _replace_entries(
    directory: Path, build: Callable[[Path], None], first: tuple[str, ...], last: tuple[str, ...]
) -> None:
    staging = _new_staging(directory, STAGING_PREFIX)
    try:
        build(staging)
        wanted = {entry.name for entry in staging.iterdir()}
        for name in sorted(wanted, key=lambda name: (name not in first, name)):
            if name in first and (directory / name).exists():
                continue  # the backup of an earlier run stays
            if (directory / name).exists():
                _exchange(staging / name, directory / name)
            else:
                (staging / name).rename(directory / name)
        extra = [entry for entry in directory.iterdir() if entry.name not in wanted and entry != staging]
        for entry in sorted(extra, key=lambda entry: (entry.name in last, entry.name)):
            entry.rename(staging / f"removed-{entry.name}")
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _new_staging(parent: Path, name: str) -> Path:
    """An empty directory; what a killed run left under the name is removed."""
    staging = parent / name
    shutil.rmtree(staging, ignore_errors=True)
    staging.mkdir(mode=0o755)
    return staging


def _exchange(one: Path, other: Path) -> None:
    """Exchange two names atomically. Raises OSError."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.renameat2(_AT_FDCWD, os.fsencode(one), _AT_FDCWD, os.fsencode(other), _RENAME_EXCHANGE):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), str(other))
