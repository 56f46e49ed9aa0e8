"""Is a response what was asked for, and does it continue exactly at the current offset?

The first good response decides what the client is promised: the extent of the body and the size of the content. Every
later response must fit it to the byte: a wrong offset would be a corrupt blob.

A response that no digest can check (a stream of large content, a head without a body) must have a size that a manifest
states, where one does. For small content the digest shows whether the peer or the manifest is wrong.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from speil.oci import byte_range
from speil.oci.digest import Digest, DigestError

_CONTENT_RANGE = re.compile(r"bytes (\d{1,19})-(\d{1,19})/(\d{1,19})", re.ASCII)


class WrongAnswerError(ValueError):
    """The peer's response is not what was asked for."""


class ContradictionError(WrongAnswerError):
    """It contradicts a manifest or another peer; which of them is wrong is not known.

    `size` is the size that this peer states, where the manifest states another one.
    """

    def __init__(self, message: str, size: int | None = None) -> None:
        super().__init__(message)
        self.size = size


@dataclass(frozen=True, slots=True)
class Answer:
    """The parts of a response's head that matter; `length` is the Content-Length, a missing header is empty."""

    status: int
    length: int
    content_range: str = ""
    digest: str = ""


@dataclass(frozen=True, slots=True)
class Extent:
    """Bytes `start` up to, not including, `stop` of `size`."""

    start: int
    stop: int
    size: int

    @property
    def length(self) -> int:
        """How many bytes it has."""
        return self.stop - self.start

    @property
    def is_whole(self) -> bool:
        """Whether it is all of the content."""
        return self.length == self.size


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is asked for. `range_header` is the client's ("" for all).

    `sizes` are the sizes that manifests state, empty where none does. Content of up to `checked_bytes_max` bytes is
    checked against its digest before it is passed on.
    """

    digest: Digest | None
    range_header: str = ""
    sizes: frozenset[int] = frozenset()
    checked_bytes_max: int = -1

    def range_at(self, promised: Extent | None, offset: int) -> str:
        """The Range header of a request that continues at `offset` of what was promised."""
        if promised is None or offset == 0:
            return self.range_header
        return f"bytes={promised.start + offset}-{promised.stop - 1}"

    def check(self, answer: Answer, promised: Extent | None, offset: int) -> Extent:
        """The extent of the response's body. Raises WrongAnswerError."""
        self._check_name(answer)
        found = _extent(answer)
        if promised is not None:
            if found != Extent(promised.start + offset, promised.stop, promised.size):
                raise ContradictionError(f"bytes {found.start}-{found.stop}/{found.size}, not those at the offset")
        elif not self._may_have(found.size):
            raise ContradictionError(f"{found.size} bytes, the manifest says {_either(self.sizes)}", found.size)
        elif answer.status == 206 and not self._asked_for(found):
            raise WrongAnswerError(f"bytes {found.start}-{found.stop}/{found.size} for {self.range_header or 'all'}")
        return found

    def _check_name(self, answer: Answer) -> None:
        if self.digest is None:
            try:
                Digest.parse(answer.digest)
            except DigestError:
                raise WrongAnswerError("a tag without its digest") from None
        elif answer.digest and answer.digest != str(self.digest):
            raise WrongAnswerError("another digest")

    def check_refusal(self, size: int) -> None:
        """Check a 416 that states this size. Raises WrongAnswerError where it can't be true."""
        if not self._may_have(size):
            raise ContradictionError(f"416, the size is {size}; the manifest says {_either(self.sizes)}", size)
        try:
            byte_range.parse(self.range_header, size)
        except byte_range.UnsatisfiableError:
            return
        raise WrongAnswerError(f"416, the size is {size}, to {self.range_header or 'no range'}")

    def _may_have(self, size: int) -> bool:
        return not self.sizes or size in self.sizes or size <= self.checked_bytes_max

    def _asked_for(self, found: Extent) -> bool:
        first, _, last = self.range_header.removeprefix("bytes=").partition("-")
        if not self.range_header:
            return False
        if not first:
            return found.stop == found.size and found.length == min(int(last), found.size)
        stop = min(int(last) + 1, found.size) if last else found.size
        return (found.start, found.stop) == (int(first), stop)


def _either(sizes: frozenset[int]) -> str:
    return " or ".join(map(str, sorted(sizes)))


def _extent(answer: Answer) -> Extent:
    if answer.status == 200:
        return Extent(0, answer.length, answer.length)
    match = _CONTENT_RANGE.fullmatch(answer.content_range)
    if answer.status != 206 or match is None:
        raise WrongAnswerError(f"status {answer.status}, Content-Range {answer.content_range!r}")
    first, last, size = (int(group) for group in match.groups())
    if not first <= last < size or answer.length != last + 1 - first:
        raise WrongAnswerError(f"{answer.length} bytes, Content-Range {answer.content_range!r}")
    return Extent(first, last + 1, size)
