"""The cluster's processes: each has a name, a log, and a file with its id, by which another process can end it."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.cluster.lab.waiting import wait_for

END_SECONDS_MAX = 20.0


def is_alive(pid: int) -> bool:
    """Whether it runs; a zombie does not."""
    return _state(pid) not in ("", "Z")


def children(pid: int) -> list[int]:
    """The processes that it started and that have not been waited for."""
    try:
        return [int(one) for one in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


def _stat(pid: int) -> list[str]:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []


def _state(pid: int) -> str:
    return (_stat(pid) or [""])[0]


def _started(pid: int) -> str:
    """Tells a process from a later one with the same id."""
    stat = _stat(pid)
    return stat[19] if stat else ""


class Processes:
    """`folder` holds a file a process, and their logs."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self._own: dict[str, int] = {}

    @property
    def names(self) -> list[str]:
        """Those that were started and not ended."""
        return sorted(path.stem for path in self._folder.glob("*.pid"))

    def log(self, name: str) -> Path:
        """Where its output goes."""
        return self._folder / f"{name}.log"

    def start(self, name: str, argv: Sequence[str], environment: Mapping[str, str] | None = None) -> int:
        """Start a process. Its id."""
        with self.log(name).open("ab") as log:
            process = subprocess.Popen(
                argv,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                env={**os.environ, **(environment or {})},
            )
        self._own[name] = process.pid
        process.returncode = 0  # it may outlive this program; `_reap` waits for it
        self._file(name).write_text(f"{process.pid} {_started(process.pid)}")
        return process.pid

    def pid(self, name: str) -> int:
        """Its id; 0 where it does not run."""
        self._reap(name)
        try:
            pid, started = self._file(name).read_text().split()
        except (OSError, ValueError):
            return 0
        return int(pid) if _started(int(pid)) == started and is_alive(int(pid)) else 0

    def inner_pid(self, name: str) -> int:
        """The program behind `nsenter`, which waits for it; 0 where it does not run."""
        pid = self.pid(name)
        return next(iter(children(pid)), pid) if pid else 0

    def signal(self, name: str, number: signal.Signals) -> None:
        """Send the program a signal."""
        if pid := self.inner_pid(name):
            os.kill(pid, number)

    def kill(self, name: str) -> None:
        """SIGKILL to the program, and wait for it and what started it."""
        if outer := self.pid(name):
            for pid in (self.inner_pid(name), outer):
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    continue
            wait_for(lambda: not self.pid(name), seconds=END_SECONDS_MAX, what=f"{name} has ended")
        self.forget(name)

    def forget(self, name: str) -> None:
        """It has ended by other means."""
        self._file(name).unlink(missing_ok=True)
        self._reap(name)
        self._own.pop(name, None)

    def _reap(self, name: str) -> None:
        """A process of this program that has ended is a zombie until it is waited for."""
        if pid := self._own.get(name):
            try:
                os.waitpid(pid, os.WNOHANG)
            except ChildProcessError:
                del self._own[name]

    def _file(self, name: str) -> Path:
        return self._folder / f"{name}.pid"
