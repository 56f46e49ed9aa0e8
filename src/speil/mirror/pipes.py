"""Pipes for splice: between two sockets the kernel needs one, and its size is how much is moved in one call.

An open pipe costs two descriptors, and the pages of what lies in it. So the number of pipes is bounded, and only so
many of them are large; a relay that gets none copies. A pipe that still holds bytes of an aborted transfer is never
used again.
"""

from __future__ import annotations

import fcntl
import os
from dataclasses import dataclass

PIPES_MAX = 1024  # open at once, as many as requests may be; beyond it relays copy
LARGE_PIPES_MAX = 32  # with the next constant: at most 32 MiB lie in large pipes; the others have the kernel's 64 KiB
LARGE_PIPE_BYTES = 1 << 20  # what fs.pipe-max-size allows without privileges
IDLE_PIPES_MAX = 8  # kept for the next relays; they hold no pages


@dataclass(slots=True)
class Pipe:
    """An open pipe; `size` is its capacity in bytes."""

    read_fd: int
    write_fd: int
    size: int

    def close(self) -> None:
        """Close both ends, and with them what lies in it."""
        os.close(self.read_fd)
        os.close(self.write_fd)


class PipePool:
    """Hands out pipes, up to a bound."""

    def __init__(self) -> None:
        self._idle: list[Pipe] = []
        self._out: dict[int, Pipe] = {}
        self._large = 0

    @property
    def open_count(self) -> int:
        """Pipes that are open, in use or idle."""
        return len(self._out) + len(self._idle)

    def take(self) -> Pipe | None:
        """An empty pipe; None where the bound is reached or the system has no descriptor left."""
        if len(self._out) >= PIPES_MAX:
            return None
        if self._idle:
            pipe = self._idle.pop()
        else:
            try:
                pipe = self._open()
            except OSError:
                return None
        self._out[pipe.read_fd] = pipe
        return pipe

    def give_back(self, pipe: Pipe, *, is_empty: bool) -> None:
        """Take a pipe back."""
        del self._out[pipe.read_fd]
        if is_empty and len(self._idle) < IDLE_PIPES_MAX:
            self._idle.append(pipe)
        else:
            self._close(pipe)

    def close(self) -> None:
        """Close what is idle."""
        while self._idle:
            self._close(self._idle.pop())

    def _open(self) -> Pipe:
        read_fd, write_fd = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        if self._large < LARGE_PIPES_MAX:
            try:
                size = fcntl.fcntl(write_fd, fcntl.F_SETPIPE_SZ, LARGE_PIPE_BYTES)
            except OSError:  # above what this user may have (fs.pipe-user-pages-soft): the size it has will do
                size = fcntl.fcntl(write_fd, fcntl.F_GETPIPE_SZ)
        else:
            size = fcntl.fcntl(write_fd, fcntl.F_GETPIPE_SZ)
        self._large += size >= LARGE_PIPE_BYTES
        return Pipe(read_fd, write_fd, size)

    def _close(self, pipe: Pipe) -> None:
        self._large -= pipe.size >= LARGE_PIPE_BYTES
        pipe.close()
