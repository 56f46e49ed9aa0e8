"""What a start leaves behind, given back: garbage, the collector's work on what stays, and free pages of the heap.

Importing a node's modules takes a few MiB that are free again when it is done, but lie between what stays. The
C library keeps such pages for later; a node that is idle most of its life has no later for them.
"""

from __future__ import annotations

import ctypes
import gc


def settle() -> None:
    """Call once, when all that lives as long as the process has been made. Takes some milliseconds."""
    gc.collect()
    gc.freeze()  # what stands now stays: collections need not stop to look at it again
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:  # glibc has it, musl has not
        trim(0)
