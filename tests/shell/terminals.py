"""A command on a terminal of its own, as a person at a keyboard has it: what it shows, and what an interrupt does."""

from __future__ import annotations

import fcntl
import os
import pty
import select
import signal
import struct
import subprocess
import termios
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

SECONDS_MAX = 60.0  # on a loaded machine
SHOWN_MAX = 1000  # characters of a terminal, in the message of a failure


class Terminal:
    """A pty, and the process that runs on it as the leader of its session. `output` is all that was shown."""

    def __init__(
        self, argv: Sequence[str], environ: Mapping[str, str], rows: int, columns: int, cwd: Path | None
    ) -> None:
        self._master, slave = pty.openpty()
        self.resize(rows, columns)
        self.output = b""
        self.process = subprocess.Popen(
            argv, stdin=slave, stdout=slave, stderr=slave, env=dict(environ), cwd=cwd, preexec_fn=_lead
        )
        os.close(slave)

    def resize(self, rows: int, columns: int) -> None:
        """As a person who drags the window's edge."""
        fcntl.ioctl(self._master, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def type(self, text: str) -> None:
        """Keys. `\\x03` is Ctrl-C: the terminal sends SIGINT to the process group that is in the foreground."""
        os.write(self._master, text.encode())

    def read(self, seconds: float = 0.05) -> bool:
        """Take what has been shown in the meantime. False: the process has closed the terminal."""
        ready, _, _ = select.select([self._master], [], [], seconds)
        if not ready:
            return True
        try:
            data = os.read(self._master, 65536)
        except OSError:  # EIO: nobody has it open any more
            return False
        self.output += data
        return bool(data)

    def until(self, what: str | Callable[[], bool], seconds_max: float = SECONDS_MAX) -> None:
        """Read until the output has a text, or a condition holds."""
        ends = time.monotonic() + seconds_max
        while not (what() if callable(what) else what.encode() in self.output):
            assert self.read(), f"it ended: {self.text[-SHOWN_MAX:]}"
            assert time.monotonic() < ends, f"{what} did not come: {self.text[-SHOWN_MAX:]}"

    def interrupt(self) -> tuple[int, float]:
        """Ctrl-C: the exit code, and the seconds until the process has ended, without its waits for a free CPU."""
        waited, began = self._waited_for_cpu(), time.monotonic()
        self.type("\x03")
        while os.waitid(os.P_PID, self.process.pid, os.WEXITED | os.WNOWAIT | os.WNOHANG) is None:
            if not self.read(0.002):
                time.sleep(0.002)
            assert time.monotonic() < began + SECONDS_MAX, f"it goes on: {self.text[-SHOWN_MAX:]}"
        seconds = time.monotonic() - began - (self._waited_for_cpu() - waited)
        return self.end(), seconds

    def _waited_for_cpu(self) -> float:
        """Seconds for which the process could have run and had no CPU (scheduler statistics, in nanoseconds)."""
        return int(Path(f"/proc/{self.process.pid}/schedstat").read_text().split()[1]) / 1e9

    def end(self, seconds_max: float = SECONDS_MAX) -> int:
        """Read until the process ends; its exit code."""
        ends = time.monotonic() + seconds_max
        while self.process.poll() is None:
            if not self.read(0.01):
                time.sleep(0.002)
            assert time.monotonic() < ends, f"it goes on: {self.text[-SHOWN_MAX:]}"
        while self.read(0.0) and select.select([self._master], [], [], 0)[0]:
            pass
        return self.process.returncode

    @property
    def text(self) -> str:
        """What was shown, with its control sequences."""
        return self.output.decode("utf-8", "replace")

    def close(self) -> None:
        """Kill what is left."""
        if self.process.poll() is None:
            with suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
        os.close(self._master)


def _lead() -> None:
    """Make the terminal the controlling one, and hear signals that a shell's background is deaf to."""
    os.setsid()
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGPIPE):
        signal.signal(number, signal.SIG_DFL)


@contextmanager
def terminal(
    *argv: str,
    rows: int = 24,
    columns: int = 80,
    cwd: Path | None = None,
    environ: Mapping[str, str] | None = None,
) -> Iterator[Terminal]:
    """A terminal on which `argv` runs; nothing of it is left afterwards. `environ` is added to this process's."""
    base = {name: value for name, value in os.environ.items() if name not in ("NO_COLOR", "COLUMNS", "LINES")}
    opened = Terminal(argv, {**base, "TERM": "xterm", **(environ or {})}, rows, columns, cwd)
    try:
        yield opened
    finally:
        opened.close()


INTERRUPT_SECONDS_MAX = 0.2
TRIES = 3


def check_interrupt(argv: Sequence[str], when: str, folder: Path, environ: Mapping[str, str] | None = None) -> str:
    """Ctrl-C when the output has `when`: exit code 130 in time, no process and no file left. What was shown.

    The time does not count waits for a CPU of the process itself. Its children and the disk wait too on a busy machine,
    so the limit grows with the load, and the best of TRIES counts.
    """
    seconds = []
    for number in range(TRIES):
        temporary = folder / f"tmp-{number}"
        temporary.mkdir()
        with terminal(*argv, environ={**(environ or {}), "TMPDIR": str(temporary)}, columns=200) as opened:
            opened.until(when, seconds_max=2 * SECONDS_MAX)
            code, took = opened.interrupt()
            assert code == 130, opened.text[-SHOWN_MAX:]
            assert "Traceback" not in opened.text, opened.text[-SHOWN_MAX:]
            assert _session(opened.process.pid) == []
        assert list(temporary.iterdir()) == []
        seconds.append(took)
        if took <= INTERRUPT_SECONDS_MAX * max(1.0, os.getloadavg()[0] / (os.cpu_count() or 1)):
            return opened.text
    raise AssertionError(f"an interrupt took {', '.join(f'{took:.2f}' for took in seconds)} s")


def _session(leader: int) -> list[str]:
    """The commands that run in the session of a terminal."""
    found = []
    for entry in Path("/proc").iterdir():
        with suppress(OSError, IndexError):
            if entry.name.isdigit():
                state, _, _, session = (entry / "stat").read_text().rpartition(")")[2].split()[:4]
                if int(session) == leader and state != "Z":
                    found.append((entry / "cmdline").read_bytes().replace(b"\0", b" ").decode())
    return found
