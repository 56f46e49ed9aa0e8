"""A model of a directory tree. File contents stay on the disk until they are needed.

Links stay links. They are resolved as if the tree were in place, so a tree in the backup resolves as it would after
being restored.
"""

from __future__ import annotations

import os
import stat
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from speil.host_config.errors import HostConfigError

ENTRIES_MAX = 20_000  # a node has some dozens; with more it is not a registry configuration
LINKS_MAX = 40  # links to follow, as in the kernel


class Kind(Enum):
    """The type of an entry."""

    DIRECTORY = "directory"
    FILE = "file"
    LINK = "link"


@dataclass(frozen=True, slots=True)
class Node:
    """One entry of a tree.

    `source`: the path on the disk that has its owner, mode, times and content. `data`: new content, in place of the
    source's. `target`: where a link leads. `mode`: the mode of an entry without a source.
    """

    kind: Kind
    source: Path | None = None
    data: bytes | None = None
    target: str = ""
    mode: int = 0o755

    def read(self) -> bytes:
        """The content of a file. Raises OSError."""
        if self.data is not None:
            return self.data
        assert self.source is not None
        return self.source.read_bytes()


Tree = dict[str, Node]  # by relative path; parents come before children


def scan(entries: Iterable[tuple[str, Path]]) -> Tree:
    """The tree of the given (name, path) entries and everything below. Raises OSError.

    Raises HostConfigError for sockets, devices and FIFOs, and for more than ENTRIES_MAX entries.
    """
    tree: Tree = {}
    waiting = deque(sorted(entries))
    while waiting:
        name, path = waiting.popleft()
        mode = path.lstat().st_mode
        if stat.S_ISLNK(mode):
            tree[name] = Node(Kind.LINK, path, target=str(path.readlink()))
        elif stat.S_ISDIR(mode):
            tree[name] = Node(Kind.DIRECTORY, path)
            waiting.extend((f"{name}/{one}", path / one) for one in sorted(os.listdir(path)))
        elif stat.S_ISREG(mode):
            tree[name] = Node(Kind.FILE, path)
        else:
            raise HostConfigError(f"{path} is no file, directory or link, so it can't be backed up: move it elsewhere")
        if len(tree) > ENTRIES_MAX:
            raise HostConfigError(f"more than {ENTRIES_MAX} entries: this is not containerd's registry configuration")
    return tree


def below(tree: Tree, name: str) -> Tree:
    """The tree inside the directory `name`, with paths relative to it."""
    prefix = f"{name}/"
    return {path.removeprefix(prefix): node for path, node in tree.items() if path.startswith(prefix)}


def children(tree: Tree, name: str) -> list[str]:
    """The names in the directory `name`, sorted; of the top directory for ""."""
    prefix = f"{name}/" if name else ""
    return sorted(path[len(prefix) :] for path in tree if path.startswith(prefix) and "/" not in path[len(prefix) :])


def parents(path: str) -> list[str]:
    """The directories above a path, topmost first."""
    names = path.split("/")
    return ["/".join(names[:count]) for count in range(1, len(names))]


def follow(tree: Tree, root: Path, path: str, links: int = 0) -> str | Path | None:
    """Resolve a path as if `tree` were at `root`: a path in the tree (str), outside it (Path), or None if missing.

    `links` counts the links that were already followed.
    """
    waiting = deque(path.split("/"))
    at: list[str] = []
    while waiting:
        part = waiting.popleft()
        if part in ("", "."):
            continue
        if part == "..":
            if not at:
                return _outside(root.parent, waiting, tree, root, links)
            at.pop()
            continue
        node = tree.get("/".join([*at, part]))
        if node is None:
            return None
        if node.kind is not Kind.LINK:
            if waiting and node.kind is Kind.FILE:
                return None
            at.append(part)
            continue
        links += 1
        if links > LINKS_MAX:
            return None
        if node.target.startswith("/"):
            return _outside(Path(node.target), waiting, tree, root, links)
        waiting.extendleft(reversed(node.target.split("/")))
    return "/".join(at)


def _outside(start: Path, rest: Iterable[str], tree: Tree, root: Path, links: int) -> str | Path | None:
    whole = Path(os.path.normpath(start.joinpath(*rest)))
    for place in {root, root.resolve()}:
        if whole.is_relative_to(place) and links <= LINKS_MAX:
            inside = str(whole.relative_to(place))
            return follow(tree, root, inside, links) if inside != "." else ""
    return whole
