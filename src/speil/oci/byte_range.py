"""The Range header (RFC 9110 §14), for one range of bytes.

    bytes=0-499    first 500        bytes=500-   from 500        bytes=-500   last 500

Several ranges in one header, other units and malformed values are ignored (RFC 9110 §14.2 permits it). The response
is then the whole representation, which every client has to accept. A valid range behind the end raises
UnsatisfiableError: the response is 416 with the size.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

_ONE_RANGE = re.compile(r"bytes=[ \t]*(?:(\d{1,19})-(\d{1,19})?|-(\d{1,19}))[ \t]*", re.ASCII | re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class ByteRange:
    """The bytes from `start` to `stop` (exclusive) of a representation of `size` bytes."""

    start: int
    stop: int
    size: int

    @property
    def length(self) -> int:
        """The number of bytes in the range."""
        return self.stop - self.start

    @property
    def content_range(self) -> str:
        """The Content-Range header of a 206 response."""
        return f"bytes {self.start}-{self.stop - 1}/{self.size}"


class UnsatisfiableError(ValueError):
    """The range contains no byte of the representation. The response is 416."""

    def __init__(self, size: int) -> None:
        super().__init__(f"range not satisfiable, size is {size}")
        self.size = size

    @property
    def content_range(self) -> str:
        """The Content-Range header of a 416 response."""
        return f"bytes */{self.size}"


def parse(header: str | None, size: int) -> ByteRange | None:
    """The range that `header` requests of `size` bytes; None for the whole representation. Raises UnsatisfiableError.

    `bytes=0-` returns None on purpose. With a plain 200, containerd's multipart fetch stays on one stream, which
    containerd resumes after a break. A failed chunk would fail the pull (docs/decisions.md).
    """
    match = _ONE_RANGE.fullmatch(header) if header else None
    if match is None:
        return None
    first, last, suffix = match.groups()
    if suffix is not None:
        start, stop = max(size - int(suffix), 0), size
        if int(suffix) == 0:
            raise UnsatisfiableError(size)
    else:
        start, stop = int(first), min(int(last) + 1, size) if last is not None else size
        if last is not None and int(last) < int(first):
            return None  # RFC 9110 §14.1.1: an invalid range must be ignored
        if last is None and start == 0:
            return None
    if start >= size:
        raise UnsatisfiableError(size)
    return ByteRange(start, stop, size)


def first_byte(header: str | None) -> int:
    """Where the range that `header` asks begins; 0 where that takes the size to tell, or it asks for everything."""
    match = _ONE_RANGE.fullmatch(header) if header else None
    return int(match[1]) if match and match[1] else 0
