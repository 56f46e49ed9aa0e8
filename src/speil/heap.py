"""Gives memory that the process no longer uses back to the system.

Importing a node's modules takes a few MiB that are free again afterwards, but lie between objects that stay. So do the
buffers of a busy hour. The C library keeps such free pages for later use. A node is idle most of its life and has no
later use for them.
"""

from __future__ import annotations

import asyncio
import ctypes
import gc
import os
from pathlib import Path

LOOK_SECONDS = 10.0  # freed memory goes back to the system at most this much later, plus the time of one collection
GROWN_BYTES = 2 << 20  # growth since the last collection below which another one is not worth its CPU time
PAUSE_SECONDS = 60.0  # between two collections: memory that is trimmed and used again must not bring one each time
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


def freeze_and_trim() -> None:
    """Call once, when every object that lives as long as the process exists. Blocks for some milliseconds.

    Objects that exist now are never looked at by the garbage collector again (`gc.freeze`).
    """
    gc.collect()
    gc.freeze()
    _trim()


async def trim_when_grown() -> None:
    """Trim the heap while the process is larger by GROWN_BYTES than it was. Runs until cancelled.

    Garbage is collected first where it has grown as much since the last collection: what stayed then is in use, and a
    collection blocks the event loop for tens of milliseconds. While the size can't be read, because no file descriptor
    is left, nothing is trimmed.
    """
    smallest: int | None = None
    left, next_at = 0, 0.0  # the size that the last collection left, and when there may be another one
    while True:
        size = _resident_bytes_or_none()
        if size is not None:
            smallest, left = (size, size) if smallest is None else (min(smallest, size), min(left, size))
            now = asyncio.get_running_loop().time()
            is_collected = size > left + GROWN_BYTES and now >= next_at
            if is_collected:
                gc.collect()
                next_at = now + PAUSE_SECONDS
            if size > smallest + GROWN_BYTES:
                _trim()
            if is_collected:
                left = _resident_bytes_or_none() or size
        await asyncio.sleep(LOOK_SECONDS)


def resident_bytes() -> int:
    """The resident set size of this process. Raises OSError where no file descriptor is left."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * _PAGE_BYTES


def _resident_bytes_or_none() -> int | None:
    try:
        return resident_bytes()
    except OSError:
        return None


def _trim() -> None:
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:  # glibc has it, musl does not
        trim(0)
