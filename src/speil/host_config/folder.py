"""What containerd finds in a registry's directory, read from a tree as if it stood in its place."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from speil.host_config.errors import HostConfigError
from speil.host_config.nodes import Kind, Tree, children, follow
from speil.hosts_toml.containerd import HOSTS_FILE, Folder, certificate_files

HOSTS_BYTES_MAX = 1 << 20  # a file for one registry has some hundred


class UnreadableError(Exception):
    """A link that leads to where this process can't look; the message says where."""


@dataclass(frozen=True, slots=True)
class Found:
    """A registry's directory: its names and its hosts.toml (empty where there is none)."""

    files: Folder
    keys: dict[str, bytes] = field(default_factory=dict)  # what a key of a certificate may be named

    @property
    def hosts(self) -> bytes:
        """The hosts.toml."""
        return self.files.get(HOSTS_FILE, b"")

    @property
    def certificates(self) -> dict[str, list[Any]]:
        """The server's `ca` and `client` by Docker's layout, as containerd uses them without a hosts.toml."""
        ca, client = certificate_files(self.files, self.keys)
        every: dict[str, list[Any]] = {"ca": [*ca], "client": [*client]}
        return {key: value for key, value in every.items() if value}


def look(tree: Tree, root: Path, name: str) -> Found | None:
    """The directory `name` of a tree that stands at `root`; None where containerd would go on to the next.

    Raises UnreadableError, HostConfigError for what is no directory, and OSError.
    """
    place = follow(tree, root, name)
    if place is None:
        return None
    if isinstance(place, Path):
        if not place.is_dir():
            raise UnreadableError(f"{root / name} leads to {place}, which is no directory that can be read from here")
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
    """A file's content where it is `wanted`; None for a link that leads nowhere."""
    place = follow(tree, root, path)
    if place is None:
        return None
    if isinstance(place, Path):
        if not wanted:
            return b""  # it may be there for containerd, if not for us
        if not place.is_file():
            raise UnreadableError(f"{root / path} leads to {place}, which is no file that can be read from here")
        size, data = place.stat().st_size, place.read_bytes
    elif tree[place].kind is not Kind.FILE:
        if wanted:
            raise HostConfigError(f"{root / path} is no file: containerd fails pulls for it")
        return b""
    else:
        node = tree[place]
        size, data = (node.source.stat().st_size if node.data is None and node.source else 0), node.read
    if not wanted:
        return b""
    if size > HOSTS_BYTES_MAX:
        raise HostConfigError(f"{root / path} has {size} bytes: this is no hosts.toml")
    return data()


def _is_directory(tree: Tree, root: Path, path: str) -> bool:
    """As the entry itself: containerd takes a link for a file, wherever it leads."""
    node = tree.get(path)
    if node is not None:
        return node.kind is Kind.DIRECTORY
    parent, _, name = path.rpartition("/")
    place = follow(tree, root, parent)
    if isinstance(place, Path):
        return (place / name).is_dir() and not (place / name).is_symlink()
    inside = tree.get(f"{place}/{name}" if place else name)
    return inside is not None and inside.kind is Kind.DIRECTORY
