"""Protobuf's wire format, parsed field by field.

The protobuf library builds an object for each element before anyone can count them, and a message of 4 MiB can hold two
million. Here the caller gets one field at a time and decides when to stop.
"""

from __future__ import annotations

from collections.abc import Iterator

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5
_VARINT_BYTES_MAX = 10  # 64 bits, as protobuf writes negative numbers
_WORD = (1 << 64) - 1


class WireError(ValueError):
    """The bytes are not a protobuf message."""


def fields(data: bytes, start: int, end: int) -> Iterator[tuple[int, int, int, int]]:
    """Each field of `data[start:end]`: number, kind, and either (value, 0) or where its bytes begin and end.

    Raises WireError at the first malformed field; the fields before it were yielded.
    """
    while start < end:
        tag, start = _varint(data, start, end)
        number, kind = tag >> 3, tag & 7
        if not number:
            raise WireError("a field without a number")
        if kind == VARINT:
            value, start = _varint(data, start, end)
            yield number, kind, value, 0
            continue
        if kind == BYTES:
            size, start = _varint(data, start, end)
        elif kind in (FIXED64, FIXED32):
            size = 8 if kind == FIXED64 else 4
        else:
            raise WireError(f"a field of kind {kind}")
        if size > end - start:
            raise WireError("a field is cut off")
        yield number, kind, start, start + size
        start += size


def _varint(data: bytes, start: int, end: int) -> tuple[int, int]:
    """(value, offset behind it)."""
    if start < end and data[start] < 0x80:
        return data[start], start + 1
    value = 0
    for index in range(min(_VARINT_BYTES_MAX, end - start)):
        byte = data[start + index]
        value |= (byte & 0x7F) << (7 * index)
        if byte < 0x80:
            return value & _WORD, start + index + 1
    raise WireError("a number is cut off")
