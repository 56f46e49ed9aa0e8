"""Writes trees to the disk, with the owners, modes, times and extended attributes of their sources."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from speil.host_config.nodes import Kind, Node, Tree


def write(tree: Tree, directory: Path) -> None:
    """Write a tree into an empty directory. Raises OSError."""
    for path, node in tree.items():
        _put(node, directory / path)
    for path, node in reversed(tree.items()):  # writing into a directory changes its times, so directories come last
        if node.kind is Kind.DIRECTORY:
            _apply_status(node, directory / path)


def same_status(source: Path, target: Path) -> None:
    """Copy owner, mode, times and extended attributes from `source` to `target`. Raises OSError."""
    status, found = source.lstat(), target.lstat()
    if (status.st_uid, status.st_gid) != (found.st_uid, found.st_gid):
        os.chown(target, status.st_uid, status.st_gid, follow_symlinks=False)
    shutil.copystat(source, target, follow_symlinks=False)


def _put(node: Node, path: Path) -> None:
    if node.kind is Kind.DIRECTORY:
        path.mkdir(mode=0o700)
        return
    if node.kind is Kind.LINK:
        path.symlink_to(node.target)
    elif node.data is not None:
        path.touch(0o600)
        path.write_bytes(node.data)
    else:
        assert node.source is not None
        path.touch(0o600)
        shutil.copyfile(node.source, path, follow_symlinks=False)
    _apply_status(node, path)


def _apply_status(node: Node, path: Path) -> None:
    if node.source is not None:
        same_status(node.source, path)
    elif node.kind is not Kind.LINK:
        path.chmod(node.mode)
