"""Processes of the lab: started with a log, ended by their own id."""

from __future__ import annotations

import signal
import subprocess
from pathlib import Path

from tests.system.lab.namespaces import Namespace

STOP_SECONDS_MAX = 10.0


class LabProcess:
    """A process in a namespace; `ip netns exec` becomes the program, so its pid is the program's."""

    def __init__(self, namespace: Namespace, argv: list[str], log: Path) -> None:
        self.namespace, self.argv, self.log = namespace, argv, log
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def running(self) -> bool:
        """Whether it has been started and has not ended."""
        return self._process is not None and self._process.poll() is None

    @property
    def pid(self) -> int:
        """Its process id."""
        assert self._process is not None
        return self._process.pid

    def start(self) -> None:
        """Start it."""
        with self.log.open("ab") as log:
            self._process = self.namespace.popen(self.argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log)

    def signal(self, number: signal.Signals) -> None:
        """Send a signal."""
        assert self._process is not None
        self._process.send_signal(number)

    def kill(self) -> None:
        """SIGKILL, and wait."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(STOP_SECONDS_MAX)

    def stop(self) -> int:
        """SIGTERM, and wait; SIGKILL where that does not help. The exit code."""
        if self._process is None:
            return 0
        self._process.terminate()
        try:
            return self._process.wait(STOP_SECONDS_MAX)
        except subprocess.TimeoutExpired:
            self.kill()
            return -9

    def log_text(self) -> str:
        """Its log so far."""
        return self.log.read_text(errors="replace")
