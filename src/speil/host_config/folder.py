"""Reads what containerd would find in the directory of a registry if a tree were in place."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from speil.host_config.errors import HostConfigError
from speil.host_config.nodes import Kind, Tree, children, follow
from speil.hosts_toml.containerd import HOSTS_FILE, Folder, certificate_files

HOSTS_BYTES_MAX = 1 << 20  # a hosts.toml has some hundred bytes


class UnreadableError(Exception):
    """A link leads to a path that this process can't read. The message has the path."""


@dataclass(frozen=True, slots=True)
class Found:
    """The directory of a registry: its files by name. Only hosts.toml has its content; the others are empty."""

    files: Folder
    keys: dict[str, bytes] = field(default_factory=dict)  # names that may be the key of a certificate

    @property
    def hosts(self) -> bytes:
        """The content of hosts.toml; empty if there is none."""
        return self.files.get(HOSTS_FILE, b"")

    @property
    def certificates(self) -> dict[str, list[Any]]:
        """The `ca` and `client` values of Docker-style certificates, which containerd uses without a hosts.toml."""
        ca, client = certificate_files(self.files, self.keys)
        every: dict[str, list[Any]] = {"ca": [*ca], "client": [*client]}
        return {key: value for key, value in every.items() if value}


def look(tree: Tree, root: Path, name: str) -> Found | None:
    """The directory `name` of a tree at `root`; None if it does not exist, so that containerd tries the next.

    Raises UnreadableError, OSError, and HostConfigError if it is not a directory.
    """
    place = follow(tree, root, name)
    if place is None:
        return None
    if isinstance(place, Path):
        if not place.is_dir():
            raise UnreadableError(
                f"{root / name} leads to {place}, which is not a directory that this process can read"
            )
        names = sorted(os.listdir(place))
    else:
        if tree[place].kind is not Kind.DIRECTORY:
            raise HostConfigError(f"{root / name} is a file where containerd looks for a directory: remove it")
        names = children(tree, place)
    found: dict[str, bytes] = {}
    keys: dict[str, bytes] = {}
    for one in names:
        content = _content(tree, root, f"{name}/{one}", wanted=one == HOSTS_FILE)
        if content is not None:
            keys[one] = content
        elif one == HOSTS_FILE:
            continue
        if not _is_directory(tree, root, f"{name}/{one}"):
            found[one] = content or b""
    return Found(found, keys)


def _content(tree: Tree, root: Path, path: str, *, wanted: bool) -> bytes | None:
    """The content of a file if it is `wanted`, otherwise b"". None for a dangling link."""
    place = follow(tree, root, path)
    if place is None:
        return None
    if isinstance(place, Path):
        if not wanted:
            return b""  # containerd may be able to read it even if this process is not
        if not place.is_file():
            raise UnreadableError(f"{root / path} leads to {place}, which is not a file that this process can read")
        size, data = place.stat().st_size, place.read_bytes
    elif tree[place].kind is not Kind.FILE:
        if wanted:
            raise HostConfigError(f"{root / path} is not a file, which makes containerd fail pulls: remove it")
        return b""
    else:
        node = tree[place]
        size, data = (node.source.stat().st_size if node.data is None and node.source else 0), node.read
    if not wanted:
        return b""
    if size > HOSTS_BYTES_MAX:
        raise HostConfigError(f"{root / path} has {size} bytes, too many for a hosts.toml: replace or remove it")
    return data()


def _is_directory(tree: Tree, root: Path, path: str) -> bool:
    """Whether the entry itself is a directory. containerd treats every link as a file."""
    node = tree.get(path)
    if node is not None:
        return node.kind is Kind.DIRECTORY
    parent, _, name = path.rpartition("/")
    place = follow(tree, root, parent)
    if isinstance(place, Path):
        return (place / name).is_dir() and not (place / name).is_symlink()
    inside = tree.get(f"{place}/{name}" if place else name)
    return inside is not None and inside.kind is Kind.DIRECTORY
