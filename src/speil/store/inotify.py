"""The kernel's file notices (inotify), read without a thread. `ctypes` is loaded in every node anyway (`heap`)."""

from __future__ import annotations

import ctypes
import os
import struct
from dataclasses import dataclass

MODIFY = 0x2
MOVED_FROM = 0x40
CREATE = 0x100
DELETE = 0x200
OVERFLOW = 0x4000  # notices were lost
IGNORED = 0x8000  # the watch has ended: its directory is gone
ONLY_DIRECTORY = 0x1000000
_NOTICE = struct.Struct("iIII")  # watch, mask, cookie, length of the name
READ_BYTES = 16 << 10  # some hundred notices; the rest comes with the next read


@dataclass(frozen=True, slots=True)
class Notice:
    """`watch` is -1 for OVERFLOW. `name` is that of a file in the watched directory."""

    watch: int
    mask: int
    name: str


class Inotify:
    """One queue of notices. Have the event loop watch `fd`, then call `read`. Close it.

    The constructor and `add` raise OSError: a user may have 128 queues (`fs.inotify.max_user_instances`), and a bounded
    number of watches.
    """

    def __init__(self) -> None:
        self._libc = ctypes.CDLL(None, use_errno=True)
        self.fd = self._checked(self._libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC))

    def add(self, path: str, mask: int) -> int:
        """Watch a directory, or change the mask of a watch. Returns the watch."""
        return self._checked(self._libc.inotify_add_watch(self.fd, os.fsencode(path), ctypes.c_uint32(mask)))

    def remove(self, watch: int) -> None:
        """End a watch; one that has ended is ignored."""
        self._libc.inotify_rm_watch(self.fd, watch)

    def read(self) -> list[Notice]:
        """The notices that are there now, up to READ_BYTES of them."""
        try:
            data = os.read(self.fd, READ_BYTES)
        except BlockingIOError:
            return []
        found, at = [], 0
        while at < len(data):
            watch, mask, _, length = _NOTICE.unpack_from(data, at)
            at += _NOTICE.size
            found.append(Notice(watch, mask, os.fsdecode(data[at : at + length].rstrip(b"\0"))))
            at += length
        return found

    def close(self) -> None:
        """End all watches; a second call does nothing."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1

    @staticmethod
    def _checked(result: int) -> int:
        if result < 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))
        return result
