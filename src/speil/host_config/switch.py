"""Replaces the content of a directory in one atomic step.

The new tree is built beside the directory, and the two are exchanged with renameat2(2). If the process is killed at any
point, the directory has the old tree or the new one. A staging directory may be left; the next run removes it.

A mount point (a pod volume of exactly this directory) can't be exchanged. There the atomic step is the change of one
symbolic link inside the directory:

    1. Build the new tree and a copy of the old tree inside, and a link `current` to the old one.
    2. Exchange each entry for a link through `current`. Readers still read the old tree.
    3. Rename a new link over `current`, which leads to the new tree. This is the atomic step.
    4. Exchange each link for the real entry. Readers still read the new tree.

A run that is killed in between leaves links that lead to one of the two trees. The next run reads through them and
removes them.
"""

from __future__ import annotations

import ctypes
import errno
import os
import secrets
import shutil
from collections.abc import Callable
from pathlib import Path

from speil.host_config.nodes import scan
from speil.host_config.write import same_status, write

STAGING_PREFIX = ".speil-staging"
_AT_FDCWD, _RENAME_EXCHANGE = -100, 2
_NOT_EXCHANGEABLE = (errno.EBUSY, errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EACCES, errno.EROFS, errno.EPERM)

Build = Callable[[Path], None]


def replace(directory: Path, build: Build, *, in_place: bool = False) -> None:
    """Replace the content of `directory` with what `build` writes into the empty directory it receives.

    `in_place` uses the method for mount points. Raises OSError, and what `build` raises; nothing is changed then.
    """
    if not in_place:
        try:
            _exchange_whole(directory, build)
            return
        except OSError as error:
            if error.errno not in _NOT_EXCHANGEABLE:
                raise
    _flip_inside(directory, build)


def leftovers(directory: Path) -> list[Path]:
    """Staging paths of killed runs, in the directory and beside it."""
    target = directory.resolve()
    inside = [directory / name for name in os.listdir(directory) if name.startswith(STAGING_PREFIX)]
    beside = target.parent / f"{STAGING_PREFIX}-{target.name}"
    return [*inside, *([beside] if beside.exists() else [])]


def entries(directory: Path) -> list[tuple[str, Path]]:
    """The entries of a directory as (name, path), without staging paths.

    Links that a killed run left are resolved: the path is where they lead.
    """
    if not directory.is_dir():
        return []
    found = []
    for name in sorted(os.listdir(directory)):
        if not name.startswith(STAGING_PREFIX):
            place = _place(directory, name)
            if place is not None:
                found.append((name, place))
    return found


def _place(directory: Path, name: str) -> Path | None:
    path = directory / name
    if not _is_ours(path):
        return path
    inside = path.parent / path.readlink()
    return inside if os.path.lexists(inside) else None


def _is_ours(path: Path) -> bool:
    """Whether an entry is a link that a killed run left."""
    return path.is_symlink() and str(path.readlink()).startswith(STAGING_PREFIX)


def _exchange_whole(directory: Path, build: Build) -> None:
    target = directory.resolve()
    target.parent.mkdir(parents=True, exist_ok=True)
    staging = target.parent / f"{STAGING_PREFIX}-{target.name}"
    _remove(staging)
    staging.mkdir(mode=0o755)
    try:
        build(staging)
        if target.exists():
            same_status(target, staging)
            _exchange(staging, target)
        else:
            staging.rename(target)
    finally:
        _remove(staging)


def _flip_inside(directory: Path, build: Build) -> None:
    # a random name, because links of an earlier run may lead through its own; a process id repeats in containers
    run = f"{STAGING_PREFIX}-{secrets.token_hex(6)}"
    old, new, current, spare = (directory / f"{run}-{part}" for part in ("old", "new", "current", "spare"))
    for part in (old, new, spare):
        part.mkdir(mode=0o755)
    try:
        build(new)
    except BaseException:
        for part in (old, new, spare):
            _remove(part)
        raise
    before = entries(directory)
    write(scan(before), old)
    current.symlink_to(old.name)
    names = {name for name, _ in before}
    for name in sorted(names | _names(new)):
        _put(Path(current.name) / name, directory / name, spare)
    flipped = directory / f"{run}-flipped"
    flipped.symlink_to(new.name)
    flipped.rename(current)
    for name in sorted(_names(new)):
        _exchange(new / name, directory / name)
    for path in list(directory.iterdir()):
        if _is_ours(path):
            path.unlink()
    for leftover in directory.glob(f"{STAGING_PREFIX}*"):
        _remove(leftover)


def _names(directory: Path) -> set[str]:
    return {entry.name for entry in directory.iterdir()}


def _put(link_target: Path, name: Path, spare: Path) -> None:
    """Replace an entry by a link, or create the link."""
    link = spare / f"link-{name.name}"
    link.symlink_to(link_target)
    if os.path.lexists(name):
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
