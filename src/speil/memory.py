"""What a start or a flood leaves behind, given back: garbage, the collector's work on what stays, free heap pages.

Importing a node's modules takes a few MiB that are free again when it is done, but lie between what stays, and so do
the buffers of a busy hour. The C library keeps such pages for later; a node that is idle most of its life has no later
for them.
"""

from __future__ import annotations

import asyncio
import ctypes
import gc
import os
from pathlib import Path

LOOK_SECONDS = 10.0  # memory that is free again is back after this, and the time that the collector takes
GROWN_BYTES = 2 << 20  # above what the node had at its start; less is not worth a look
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


def settle() -> None:
    """Call once, when all that lives as long as the process has been made. Takes some milliseconds."""
    gc.collect()
    gc.freeze()  # what stands now stays: collections need not stop to look at it again
    _trim()


async def stay_small() -> None:
    """Give back what is free, whenever the node has grown; until cancelled."""
    idle = resident_bytes()
    while True:
        await asyncio.sleep(LOOK_SECONDS)
        if resident_bytes() > idle + GROWN_BYTES:
            gc.collect()
            _trim()


def resident_bytes() -> int:
    """What the process takes of the machine's memory."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * _PAGE_BYTES


def _trim() -> None:
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:  # glibc has it, musl has not
        trim(0)
