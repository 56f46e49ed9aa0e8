"""What a directory is, to be compared: each entry's kind, content, mode, owner and time, whatever a killed run left."""

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
    """Of all entries; without backup and record where it is not the `whole`."""
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
    """To compare two runs of one kind: a file that was written has the time of its writing."""
    return {
        name: entry[:-1] if entry[0] == "file" and (name == RECORD or name.endswith("hosts.toml")) else entry
        for name, entry in found.items()
    }


def leftovers(root: Path) -> list[str]:
    """What runs left behind, in the directory and beside it."""
    return [name for place in (root, root.parent) for name in os.listdir(place) if name.startswith(STAGING_PREFIX)]


WATCHED = (
    "open",
    "os.mkdir",
    "os.rename",
    "os.remove",
    "os.rmdir",
    "os.chmod",
    "os.chown",
    "os.utime",
    "os.listdir",
    "os.scandir",
    "ctypes.dlsym",
    "os.symlink",
    "shutil.",
)


def killed_after(steps: int, work: Callable[[], object]) -> bool:
    """Run `work` in a child that SIGKILLs itself at its n-th file operation; whether it came to its end before."""
    child = os.fork()
    if child == 0:
        count = 0

        def watch(event: str, arguments: object) -> None:
            nonlocal count
            if event.startswith(WATCHED):
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
