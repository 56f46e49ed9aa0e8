"""Finds gaps in a file that is being written.

Where somebody truncates the file, its writer goes on behind the gap, and a reader would get zeros that nobody wrote.
"""

from __future__ import annotations

import errno
import os
import time

LOOK_SECONDS_MAX = 0.05  # a file system that takes longer (ZFS writes the file out first) is not asked again


class Holes:
    """One for each node: all its files that grow are in one file system."""

    def __init__(self) -> None:
        self.is_slow = False

    def between(self, fd: int, start: int, stop: int) -> bool:
        """Whether some of the bytes were never written. False where the file system can't say, or not quickly.

        A file that ends before `start` has lost bytes: its writer may go on behind them before they are read.
        """
        if self.is_slow:
            return False
        began = time.monotonic()
        try:
            return os.lseek(fd, start, os.SEEK_HOLE) < stop
        except OSError as error:
            return error.errno == errno.ENXIO  # with any other one holes are unknown here
        finally:
            self.is_slow = time.monotonic() - began > LOOK_SECONDS_MAX
