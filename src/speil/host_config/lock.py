"""A lock on the directory. Two pods of a node, an old and a new one, may run `speil configuration` at the same time."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import time
from collections.abc import Iterator
from pathlib import Path

from speil.host_config.errors import HostConfigError

WAIT_SECONDS_MAX = 60.0  # a run takes less than a second; the kubelet restarts an init container that fails
POLL_SECONDS = 0.05


@contextlib.contextmanager
def locked(directory: Path) -> Iterator[None]:
    """Hold the lock on `directory`; create the directory if it is missing.

    A run exchanges the directory for a new one. A waiting run then takes the lock on the new one.
    Raises OSError, and HostConfigError if another run holds the lock for more than WAIT_SECONDS_MAX.
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
            raise HostConfigError(f"another run has locked {directory} for {WAIT_SECONDS_MAX:.0f} s: end it, or wait")
        time.sleep(POLL_SECONDS)
