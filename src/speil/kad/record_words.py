"""The records of one key as bytes: eight for each, the number of a provider and the second of expiry."""

from __future__ import annotations

import struct
from collections.abc import Iterator

RECORD_BYTES = 8
_NUMBER = struct.Struct("<I")


def pack(number: int, until: float) -> bytes:
    """A record. `until` is rounded down to a second."""
    return struct.pack("<II", number, int(until))


def unpack(records: bytes) -> Iterator[tuple[int, int]]:
    """(number, second of expiry) of each record."""
    return struct.iter_unpack("<II", records)


def number_at(records: bytes, at: int) -> int:
    """The number of the provider whose record is at this offset."""
    number: int = _NUMBER.unpack_from(records, at)[0]
    return number


def numbers_and_ends(records: bytes) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The numbers and the seconds of expiry, in order."""
    halves = struct.unpack(f"<{len(records) // 4}I", records)
    return halves[::2], halves[1::2]


def find(records: bytes, number: int) -> int:
    """The offset of a provider's record; -1 where there is none."""
    wanted = number.to_bytes(4, "little")
    at = records.find(wanted)
    while at >= 0 and at % RECORD_BYTES:
        at = records.find(wanted, at + 1)
    return at


def without(records: bytes, at: int) -> bytes:
    """The records without the one at this offset."""
    return records[:at] + records[at + RECORD_BYTES :]
