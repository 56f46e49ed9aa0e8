"""Pipes for splice. The kernel moves bytes between two sockets through a pipe, at most its size in one call.

An open pipe costs two descriptors and the pages of the bytes in it. So the number of pipes is bounded, and so is the
number of large ones; a body that gets no pipe is copied. A pipe that still holds bytes of an aborted body is closed.
"""

from __future__ import annotations

import fcntl
import os
from dataclasses import dataclass

PIPES_MAX = 1024  # open at once, as many as requests may be; beyond it bodies are copied
LARGE_PIPES_MAX = 32  # with the next constant: at most 32 MiB lie in large pipes; the others have the kernel's 64 KiB
LARGE_PIPE_BYTES = 1 << 20  # what fs.pipe-max-size allows without privileges
IDLE_PIPES_MAX = 8  # kept for the next bodies; they hold no pages


@dataclass(slots=True)
class Pipe:
    """An open pipe; `size` is its capacity in bytes."""

    read_fd: int
    write_fd: int
    size: int

    def close(self) -> None:
        """Close both ends; bytes in it are lost."""
        os.close(self.read_fd)
        os.close(self.write_fd)


class PipePool:
    """Hands out pipes, PIPES_MAX at once. Close it."""

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
        """Take a pipe back; one that is not empty is closed."""
        del self._out[pipe.read_fd]
        if is_empty and len(self._idle) < IDLE_PIPES_MAX:
            self._idle.append(pipe)
        else:
            self._close(pipe)

    def close(self) -> None:
        """Close the idle pipes."""
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
