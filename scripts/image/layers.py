"""A tree as a layer: a tar whose bytes depend on the names, kinds, contents and links of the files alone."""

from __future__ import annotations

import hashlib
import io
import shutil
import stat
import tarfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

# Folders in which everybody may write, and nobody may remove another's file.
_SHARED = {"tmp", "var/tmp"}


@dataclass(frozen=True, slots=True)
class Layer:
    """As the registry stores it."""

    data: bytes
    diff_id: str  # the digest of the tar, before compression
    size_unpacked: int  # of all files, in bytes


def make_layer(tree: Path, compress: Callable[[bytes], bytes]) -> Layer:
    """Everything is root's; files are 0644 or 0755, folders 0755.

    Every time is 1970: a base whose locks did not change keeps its digest.
    """
    buffer = io.BytesIO()
    size = 0
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for path in sorted(tree.rglob("*"), key=lambda path: path.relative_to(tree).parts):
            member = _member(tree, path)
            size += member.size
            if member.isreg():
                with path.open("rb") as file:
                    tar.addfile(member, file)
            else:
                tar.addfile(member)
    data = buffer.getvalue()
    return Layer(compress(data), digest(data), size)


def copy_tree(tree: Path, target: Path) -> None:
    """The tree with the modes of its layer. `target` must not exist."""
    shutil.copytree(tree, target, symlinks=True)
    for path in target.rglob("*"):
        if not path.is_symlink():
            path.chmod(_mode(str(path.relative_to(target)), path.stat().st_mode))


def digest(data: bytes) -> str:
    """As OCI writes it."""
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def _member(tree: Path, path: Path) -> tarfile.TarInfo:
    name = str(path.relative_to(tree))
    found = path.lstat()
    member = tarfile.TarInfo(name)
    member.mtime = 0
    if stat.S_ISLNK(found.st_mode):
        member.type, member.mode, member.linkname = tarfile.SYMTYPE, 0o777, str(path.readlink())
    elif stat.S_ISDIR(found.st_mode):
        member.type, member.mode = tarfile.DIRTYPE, _mode(name, found.st_mode)
    elif stat.S_ISREG(found.st_mode):
        member.mode, member.size = _mode(name, found.st_mode), found.st_size
    else:
        raise ValueError(f"{name} is no file, folder or link")
    return member


def _mode(name: str, found: int) -> int:
    if stat.S_ISDIR(found):
        return 0o1777 if name in _SHARED else 0o755
    return 0o755 if found & 0o111 else 0o644
