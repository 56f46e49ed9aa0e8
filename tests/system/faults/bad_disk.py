"""A disk that fails in the middle of a file: a real read error, from a file system whose device is cut off.

The device is a file behind a loop device; what lies behind its end can't be read (EIO). It is mounted where one process
sees it, over single files.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import struct
import subprocess
from collections.abc import Sequence
from pathlib import Path

from tests.system.faults.node import FaultNode

DISK_BYTES = 64 << 20
READABLE_BYTES = 2 << 20  # of each file, about
_FIBMAP = 1


def put_on_bad_disk(node: FaultNode, files: Sequence[Path], folder: Path) -> None:
    """From now on the node's speil reads a bit of each of `files`, then errors."""
    disk, place = folder / "disk.img", folder / "disk"
    place.mkdir()
    with disk.open("wb") as image:
        image.truncate(DISK_BYTES)
    subprocess.run(["mkfs.ext4", "-q", "-F", "-O", "^has_journal", disk], check=True, capture_output=True, timeout=60)
    node.mount("-o", "loop", str(disk), str(place))
    seen = Path(f"/proc/{node.speil.pid}/root")  # the host's mount namespace does not have it
    inside = seen / place.relative_to("/")
    ends = []
    for file in files:
        copy = inside / file.name
        shutil.copyfile(file, copy)
        with copy.open("rb") as opened:
            os.fsync(opened.fileno())
            ends.append(_device_offset(opened.fileno(), READABLE_BYTES))
        node.mount("--bind", str(place / file.name), str(file))
    os.truncate(disk, min(ends))
    for file in files:
        with (inside / file.name).open("rb") as opened:
            os.posix_fadvise(opened.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def _device_offset(descriptor: int, offset: int) -> int:
    """Where on its device a file's byte is."""
    block_bytes = os.fstat(descriptor).st_blksize
    (block,) = struct.unpack("i", fcntl.ioctl(descriptor, _FIBMAP, struct.pack("i", offset // block_bytes)))
    return int(block) * block_bytes
