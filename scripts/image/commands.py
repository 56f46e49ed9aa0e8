"""Runs the programs that make an image. An interrupt kills them at once; subprocess.run would wait for them first."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

_running: set[subprocess.Popen[bytes]] = set()


@dataclass(frozen=True, slots=True)
class Done:
    """What a program left."""

    code: int
    out: bytes
    err: bytes

    @property
    def text(self) -> str:
        """Its stdout."""
        return self.out.decode(errors="replace")

    @property
    def end(self) -> str:
        """The last of what it said, for an error."""
        return (self.out + self.err).decode(errors="replace")[-3000:]


class FailedError(Exception):
    """A program failed that must not."""


def run(
    command: Sequence[str],
    *,
    data: bytes = b"",
    folder: Path | None = None,
    environment: Mapping[str, str] | None = None,
    must: bool = False,
) -> Done:
    """Run a program to its end. `must`: raises FailedError unless it ends with 0."""
    pipe = subprocess.PIPE
    process = subprocess.Popen(
        list(command), cwd=folder, env=dict(environment or os.environ), stdin=pipe, stdout=pipe, stderr=pipe
    )
    _running.add(process)
    try:
        out, err = process.communicate(data)
    finally:
        _running.discard(process)
        if process.poll() is None:
            process.kill()
            process.wait()
    done = Done(process.returncode, out, err)
    if must and done.code:
        raise FailedError(f"{' '.join(command[:2])} failed:\n{done.end}")
    return done


def end_at_once() -> None:
    """Make SIGINT and SIGTERM kill the programs that run, and then interrupt this one."""
    for number in (signal.SIGINT, signal.SIGTERM):
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _interrupt)


def _interrupt(number: int, frame: FrameType | None) -> None:
    for process in tuple(_running):
        process.kill()
    raise KeyboardInterrupt
