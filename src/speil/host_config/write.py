"""Trees written to disk, with owners, modes, times and extended attributes as they were."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from speil.host_config.nodes import Kind, Node, Tree


def write(tree: Tree, directory: Path) -> None:
    """Write a tree into an empty directory. Raises OSError."""
    for path, node in tree.items():
        _put(node, directory / path)
    for path, node in reversed(tree.items()):  # what is put into a directory changes its times
        if node.kind is Kind.DIRECTORY:
            _dress(node, directory / path)


def same_status(source: Path, target: Path) -> None:
    """Give an entry the owner, mode, times and attributes of another. Raises OSError."""
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
    _dress(node, path)


def _dress(node: Node, path: Path) -> None:
    if node.source is not None:
        same_status(node.source, path)
    elif node.kind is not Kind.LINK:
        path.chmod(node.mode)
