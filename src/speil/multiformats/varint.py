"""Unsigned varints (multiformats "unsigned-varint"), which libp2p uses for every length.

Seven bits a byte, least significant group first, the top bit set on all but the last byte. The spec bounds them
to nine bytes; a longer or a non-minimal one is an error of the sender.
"""

from __future__ import annotations

from speil.multiformats.error import FormatError

BYTES_MAX = 9  # the spec's bound: 63 bits


def encode(value: int) -> bytes:
    """The shortest varint of a non-negative `value` below 2**63."""
    if not 0 <= value < 1 << 63:
        raise FormatError(f"varint out of range: {value}")
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def decode(data: bytes | bytearray | memoryview, offset: int = 0) -> tuple[int, int] | None:
    """(value, offset behind it), or None while `data` ends within the varint. Raises FormatError."""
    value = 0
    for index in range(BYTES_MAX):
        if offset + index >= len(data):
            return None
        byte = data[offset + index]
        value |= (byte & 0x7F) << (7 * index)
        if byte < 0x80:
            if byte == 0 and index > 0:
                raise FormatError("varint is not minimal")
            return value, offset + index + 1
    raise FormatError(f"varint is longer than {BYTES_MAX} bytes")


def take(data: bytes, offset: int) -> tuple[int, int]:
    """Like `decode`, for complete data: a cut varint is a FormatError."""
    if (found := decode(data, offset)) is None:
        raise FormatError("varint is cut off")
    return found
