"""Take symbols and debug sections out of the wheels' compiled modules: a fifth of the image.

`strip` works on one architecture; this works on all of 64 bits. The loader reads the segments alone, so everything
behind the last one can go, and with it the table of sections. Debian's packages are stripped already.
"""

from __future__ import annotations

import struct
from pathlib import Path

_MAGIC = b"\x7fELF\x02\x01\x01"  # 64 bits, little-endian
_HEADER = struct.Struct("<16sHHIQQQIHHHHHH")
_SEGMENT = struct.Struct("<IIQQQQQQ")


def strip_modules(folder: Path) -> None:
    """Strip every shared object below a folder."""
    for file in folder.rglob("*.so*"):
        if file.is_file() and not file.is_symlink():
            file.write_bytes(strip(file.read_bytes()))


def strip(data: bytes) -> bytes:
    """An ELF file without what no segment holds; other files as they are."""
    if not data.startswith(_MAGIC):
        return data
    header = list(_HEADER.unpack_from(data))
    segments_offset, segment_size, segment_count = header[5], header[9], header[10]
    end = segments_offset + segment_size * segment_count
    for number in range(segment_count):
        segment = _SEGMENT.unpack_from(data, segments_offset + segment_size * number)
        offset, size_in_file = segment[2], segment[5]
        end = max(end, offset + size_in_file)
    header[6] = header[12] = header[13] = 0  # where the sections are, how many, and which has their names
    return _HEADER.pack(*header) + data[_HEADER.size : end]
