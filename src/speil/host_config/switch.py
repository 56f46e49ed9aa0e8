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


def leftovers(directory: Path) -> list[Path]:
    """What runs that were killed left in a directory and beside it."""
    target = directory.resolve()
    inside = [directory / name for name in os.listdir(directory) if name.startswith(STAGING_PREFIX)]
    beside = target.parent / f"{STAGING_PREFIX}-{target.name}"
    return [*inside, *([beside] if beside.exists() else [])]


def entries(directory: Path) -> list[tuple[str, Path]]:
    """The names in a directory and where what they stand for lies, without what a run of ours keeps there.

    A run that was killed left links in the place of entries: they stand for what they lead to.
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
    """Whether an entry is a link that a run of ours put in its place."""
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
    # no name of an earlier run, which links may lead through: in a container each run has the same process id
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
    """Put a link in the place of an entry, or where there was none."""
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
