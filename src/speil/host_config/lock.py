"""One run at a time: two pods of a node, an old one and a new one, may configure at once."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import time
from collections.abc import Iterator
from pathlib import Path

from speil.host_config.errors import HostConfigError

WAIT_SECONDS_MAX = 60.0  # a run takes a fraction of a second; the kubelet starts an init container again
POLL_SECONDS = 0.05


@contextlib.contextmanager
def locked(directory: Path) -> Iterator[None]:
    """Hold the directory, which is exchanged for another meanwhile: then the new one is what the next waits for.

    Raises HostConfigError when another run holds it for too long, and OSError.
    """
    directory.mkdir(parents=True, exist_ok=True, mode=0o755)
    deadline = time.monotonic() + WAIT_SECONDS_MAX
    while True:
        descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            _wait(descriptor, directory, deadline)
            here, there = os.fstat(descriptor), directory.stat()
            if (here.st_dev, here.st_ino) == (there.st_dev, there.st_ino):
                yield
                return
        finally:
            os.close(descriptor)


def _wait(descriptor: int, directory: Path, deadline: float) -> None:
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except OSError as error:
            if error.errno in (errno.ENOTSUP, errno.ENOLCK, errno.EINVAL):
                return  # a file system without locks
            if error.errno not in (errno.EAGAIN, errno.EACCES):
                raise
        if time.monotonic() > deadline:
            raise HostConfigError(f"another run has held {directory} for {WAIT_SECONDS_MAX:.0f} s: end it, or wait")
        time.sleep(POLL_SECONDS)
