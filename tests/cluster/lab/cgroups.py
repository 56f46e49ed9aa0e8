"""A node's own cgroups, in the hierarchies of cgroup v1 or in the one of v2, whichever the machine has mounted.

They are the root of what the node sees: cAdvisor of a kubelet that shares them with other nodes looks for seconds at
each of their containers.

With v2 a cgroup that gives controllers to its children has no processes of its own. So what runs on the node beside the
containers is in a child, `system`, as in kind's nodes. The first process gets there in two steps: the cgroup in which
it makes the node's cgroup namespace is that namespace's root.
"""

from __future__ import annotations

import os
from pathlib import Path

ROOT = Path("/sys/fs/cgroup")
SYSTEM = "system"
# joins the node's cgroups before it becomes the command
_JOIN = 'for one in {groups}; do echo $$ > "$one/cgroup.procs"; done; exec "$@"'
_MOUNT_V1 = """hierarchies=$(ls /sys/fs/cgroup)
mount -t tmpfs tmpfs /sys/fs/cgroup
for one in $hierarchies; do
    mkdir "/sys/fs/cgroup/$one"
    case $one in
        unified) mount -t cgroup2 none "/sys/fs/cgroup/$one" ;;
        systemd) mount -t cgroup -o none,name=systemd cgroup "/sys/fs/cgroup/$one" ;;
        *) mount -t cgroup -o "$one" cgroup "/sys/fs/cgroup/$one" ;;
    esac
done
"""
_MOUNT_V2 = """mount -t tmpfs tmpfs /sys/fs/cgroup
mount -t cgroup2 none /sys/fs/cgroup
"""


def is_unified(root: Path = ROOT) -> bool:
    """Whether this is cgroup v2 alone: v1 with v2 beside it counts as v1, whose controllers are in use."""
    return (root / "cgroup.controllers").exists()


def has_memory(root: Path = ROOT) -> bool:
    """Whether cgroups below the root can have memory limits, without which no kubelet starts.

    With v2 the root has to give them, as systemd lets it. In a container that has processes in its root it can't.
    """
    if is_unified(root):
        return "memory" in (root / "cgroup.subtree_control").read_text().split()
    return (root / "memory").exists()


class NodeCgroups:
    """Those whose name is `name`; they exist between `make` and `remove`."""

    def __init__(self, name: str, root: Path = ROOT) -> None:
        self._root, self._name, self._is_unified = root, name, is_unified(root)

    @property
    def mount_script(self) -> str:
        """Shell commands for the node's first process: in its cgroup namespace, they mount what the node sees."""
        return _MOUNT_V2 if self._is_unified else _MOUNT_V1

    def make(self) -> None:
        """Before the node's first process."""
        for group in self._groups():
            group.mkdir(exist_ok=True)
            if group.parent.name == "cpuset" and not self._is_unified:
                for file in ("cpuset.cpus", "cpuset.mems"):
                    (group / file).write_text((group.parent / file).read_text())

    def first(self, command: list[str]) -> list[str]:
        """The command, for the process that makes the node's cgroup namespace."""
        return self._joining([str(group) for group in self._groups()], command)

    def settle(self) -> None:
        """With v2: take the processes so far out of the node's root, which then gives its controllers to containers."""
        if not self._is_unified:
            return
        (group,) = self._groups()
        (group / SYSTEM).mkdir(exist_ok=True)
        for pid in (group / "cgroup.procs").read_text().split():
            (group / SYSTEM / "cgroup.procs").write_text(pid)
        if names := (group / "cgroup.controllers").read_text().split():
            (group / "cgroup.subtree_control").write_text(" ".join(f"+{name}" for name in names))

    def inside(self, command: list[str]) -> list[str]:
        """The command, for later processes of the node."""
        return self._joining([str(group / SYSTEM if self._is_unified else group) for group in self._groups()], command)

    def remove(self) -> bool:
        """Whether they are gone: a process may still be ending."""
        for group in self._groups():
            if group.exists():
                for path, _, _ in os.walk(group, topdown=False):
                    try:
                        Path(path).rmdir()
                    except OSError:
                        return False
        return True

    def _groups(self) -> list[Path]:
        parents = [self._root] if self._is_unified else sorted(self._root.iterdir())
        return [parent / self._name for parent in parents]

    def _joining(self, groups: list[str], command: list[str]) -> list[str]:
        return ["bash", "-c", _JOIN.format(groups=" ".join(groups)), "join", *command]
