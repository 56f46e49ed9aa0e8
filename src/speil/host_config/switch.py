"""Put a new directory in the place of an old one in one step.

The new tree is built beside the directory and the two are exchanged by renameat2(2): killed at any point, there is
the old tree or the new one, and at worst a leftover that the next run removes.

A directory that is a mount point (a pod's volume of exactly this directory) can't be exchanged. There the one step is
the flip of a symbolic link inside it:

    1. the new tree and a copy of the old one are built inside, and a link `current` to the old
    2. each entry is exchanged for a link through `current`: whoever reads still reads the old tree
    3. `current` is renamed to lead to the new tree: the one step
    4. each entry is exchanged for the real thing: whoever reads still reads the new tree

A run that was killed in between leaves links that read as one of the two trees; the next run starts from what they
read as and removes them.
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

Build = Callable[[Path], None]


def replace(directory: Path, build: Build, *, in_place: bool = False) -> None:
    """Replace `directory`'s content with what `build` writes into the empty directory it is given. Raises OSError.

    `in_place` goes the way of mount points at once.
    """
    if not in_place:
        try:
            _exchange_whole(directory, build)
            return
        except OSError as error:
            if error.errno not in _NOT_EXCHANGEABLE:
                raise
    _flip_inside(directory, build)


def entries(directory: Path) -> list[Path]:
    """What is in a directory, without what a run of ours keeps there."""
    if not directory.is_dir():
        return []
    found = (entry for entry in directory.iterdir() if not entry.name.startswith(STAGING_PREFIX))
    return sorted(entry for entry in found if entry.exists())  # a link that leads nowhere reads as nothing


def copy(source: Path, target: Path) -> None:
    """Copy an entry; a link of a killed run is copied as what it leads to."""
    if source.is_dir():
        shutil.copytree(source, target, symlinks=True, dirs_exist_ok=True)
    else:
        shutil.copy2(source, target)


def _exchange_whole(directory: Path, build: Build) -> None:
    target = directory.resolve()
    target.parent.mkdir(parents=True, exist_ok=True)
    staging = target.parent / f"{STAGING_PREFIX}-{target.name}"
    _remove(staging)
    staging.mkdir(mode=0o755)
    try:
        build(staging)
        if target.exists():
            shutil.copystat(target, staging)
            _exchange(staging, target)
        else:
            staging.rename(target)
    finally:
        _remove(staging)


def _flip_inside(directory: Path, build: Build) -> None:
    run = f"{STAGING_PREFIX}-{os.getpid()}"
    old, new, current, spare = (directory / f"{run}-{part}" for part in ("old", "new", "current", "spare"))
    for leftover in (old, new, current, spare):
        _remove(leftover)
    for part in (old, new, spare):
        part.mkdir(mode=0o755)
    build(new)
    before = {entry.name for entry in entries(directory)}
    for name in before:
        copy(directory / name, old / name)
    current.symlink_to(old.name)
    for name in before | {entry.name for entry in new.iterdir()}:
        _put(Path(current.name) / name, directory / name, spare)
    flipped = directory / f"{run}-flipped"
    flipped.symlink_to(new.name)
    flipped.rename(current)
    for name in [entry.name for entry in new.iterdir()]:
        copy(new / name, spare / f"real-{name}")
        _exchange(spare / f"real-{name}", directory / name)
    for leftover in [entry for entry in directory.iterdir() if not entry.exists() or entry.name not in _names(new)]:
        if not leftover.name.startswith(STAGING_PREFIX):
            leftover.unlink()
    for leftover in directory.glob(f"{STAGING_PREFIX}*"):
        _remove(leftover)


def _names(directory: Path) -> set[str]:
    return {entry.name for entry in directory.iterdir()}


def _put(link_target: Path, name: Path, spare: Path) -> None:
    """Put a link in the place of an entry, or where there was none."""
    link = spare / f"link-{name.name}"
    link.symlink_to(link_target)
    if name.is_symlink() or name.exists():
        _exchange(link, name)
    else:
        link.rename(name)


def _remove(path: Path) -> None:
    if path.is_symlink() or path.is_file():
        path.unlink()
    else:
        shutil.rmtree(path, ignore_errors=True)


def _exchange(one: Path, other: Path) -> None:
    """Exchange two names atomically. Raises OSError."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.renameat2(_AT_FDCWD, os.fsencode(one), _AT_FDCWD, os.fsencode(other), _RENAME_EXCHANGE):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), str(other))
