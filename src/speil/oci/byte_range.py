"""The Range header (RFC 9110 §14), for one range of bytes.

    bytes=0-499    first 500        bytes=500-   from 500        bytes=-500   last 500

Several ranges in one header may be ignored (RFC 9110 §14.2) and so are, like other units and malformed values: the
answer is then the whole representation, which every client has to accept. A well-formed range behind the end is
Unsatisfiable: 416 with the size.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

_ONE_RANGE = re.compile(r"bytes=[ \t]*(?:(\d{1,19})-(\d{1,19})?|-(\d{1,19}))[ \t]*", re.ASCII | re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class ByteRange:
    """Bytes `start` up to, not including, `stop` of a representation of `size` bytes."""

    start: int
    stop: int
    size: int

    @property
    def length(self) -> int:
        """How many bytes it holds."""
        return self.stop - self.start

    @property
    def content_range(self) -> str:
        """The Content-Range value of a 206."""
        return f"bytes {self.start}-{self.stop - 1}/{self.size}"


class UnsatisfiableError(ValueError):
    """A range that holds no byte of the representation: 416."""

    def __init__(self, size: int) -> None:
        super().__init__(f"range not satisfiable, size is {size}")
        self.size = size

    @property
    def content_range(self) -> str:
        """The Content-Range value of a 416."""
        return f"bytes */{self.size}"


def parse(header: str | None, size: int) -> ByteRange | None:
    """The range that `header` asks of `size` bytes; None for "send it all". Raises UnsatisfiableError.

    `bytes=0-` is None on purpose: a plain 200 keeps containerd's multipart fetch on one stream, which it repairs
    after a break, where a failed chunk would fail the pull (docs/decisions.md).
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
            return None  # RFC 9110 §14.1.1: an invalid spec, to be ignored
        if last is None and start == 0:
            return None
    if start >= size:
        raise UnsatisfiableError(size)
    return ByteRange(start, stop, size)


def first_byte(header: str | None) -> int:
    """Where the range that `header` asks begins; 0 where that takes the size to tell, or it asks for everything."""
    match = _ONE_RANGE.fullmatch(header) if header else None
    return int(match[1]) if match and match[1] else 0
