"""Snapshots of a certs.d directory (kind, content, mode, owner and times of each entry), and killed runs on it."""

from __future__ import annotations

import os
import signal
import stat
import sys
from collections.abc import Callable
from pathlib import Path

from speil.host_config.operator import BACKUP
from speil.host_config.record import RECORD
from speil.host_config.switch import STAGING_PREFIX, entries

Entry = tuple[object, ...]
Snapshot = dict[str, Entry]


def snapshot(root: Path, *, whole: bool = True) -> Snapshot:
    """A snapshot of all entries; without backup and record unless `whole`."""
    found: Snapshot = {}
    waiting = list(entries(root))
    while waiting:
        name, path = waiting.pop()
        if not whole and name in (BACKUP, RECORD):
            continue
        status = path.lstat()
        common = (stat.S_IMODE(status.st_mode), status.st_uid, status.st_gid)
        if path.is_symlink():
            found[name] = ("link", str(path.readlink()))
        elif path.is_dir():
            found[name] = ("directory", *common)
            waiting += [(f"{name}/{one.name}", one) for one in path.iterdir()]
        else:
            found[name] = ("file", path.read_bytes(), *common, status.st_mtime_ns)
    return found


def without_times_of_ours(found: Snapshot) -> Snapshot:
    """Without the times of files that speil writes, to compare two equal runs."""
    return {
        name: entry[:-1] if entry[0] == "file" and (name == RECORD or name.endswith("hosts.toml")) else entry
        for name, entry in found.items()
    }


def leftovers(root: Path) -> list[str]:
    """Staging paths that killed runs left, in the directory and beside it."""
    return [name for place in (root, root.parent) for name in os.listdir(place) if name.startswith(STAGING_PREFIX)]


# audit events of operations that change the disk; a kill before a read leaves what a kill after the last write left
WRITES = (
    "os.mkdir",
    "os.rename",
    "os.remove",
    "os.rmdir",
    "os.chmod",
    "os.chown",
    "os.utime",
    "os.setxattr",
    "os.symlink",
    "ctypes.dlsym",  # renameat2 is looked up before each call
)
_OPEN_TO_WRITE = os.O_WRONLY | os.O_RDWR | os.O_CREAT


def _writes(event: str, arguments: tuple[object, ...]) -> bool:
    if event == "open":
        flags = arguments[2]
        return isinstance(flags, int) and bool(flags & _OPEN_TO_WRITE)
    return event in WRITES


def killed_after(steps: int, work: Callable[[], object]) -> bool:
    """Run `work` in a child process that kills itself before its n-th write; returns whether it ended before that."""
    child = os.fork()
    if child == 0:
        count = 0

        def watch(event: str, arguments: tuple[object, ...]) -> None:
            nonlocal count
            if _writes(event, arguments):
                count += 1
                if count > steps:
                    os.kill(os.getpid(), signal.SIGKILL)

        sys.addaudithook(watch)
        try:
            work()
        except BaseException:
            os._exit(3)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status) or os.waitstatus_to_exitcode(status) == 0, "the work failed by itself"
    return not os.WIFSIGNALED(status)
