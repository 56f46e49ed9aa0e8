"""Is an answer what was asked for, and does it go on exactly where we are?

The first good answer settles what the client is promised: so many bytes from there to there of so many in all. Every
later one must fit it to the byte: containerd trusts what it gets, a wrong offset would be a corrupt blob.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from speil.oci import media_type
from speil.oci.digest import Digest, DigestError

_CONTENT_RANGE = re.compile(r"bytes (\d{1,19})-(\d{1,19})/(\d{1,19})", re.ASCII)


class WrongAnswerError(ValueError):
    """The peer's answer is not to the question."""


@dataclass(frozen=True, slots=True)
class Answer:
    """A peer's head, as far as it matters; `length` is the Content-Length, missing headers are empty."""

    status: int
    length: int
    content_range: str = ""
    digest: str = ""
    content_type: str = ""


@dataclass(frozen=True, slots=True)
class Extent:
    """Bytes `start` up to, not including, `stop` of `size`."""

    start: int
    stop: int
    size: int

    @property
    def length(self) -> int:
        """How many bytes it holds."""
        return self.stop - self.start

    @property
    def is_whole(self) -> bool:
        """Whether nothing is missing."""
        return self.length == self.size


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is asked for. `range_header` is the client's ("" for all); `size` is None where nobody has told it."""

    digest: Digest | None
    is_manifest: bool = False
    range_header: str = ""
    size: int | None = None

    def range_at(self, promised: Extent | None, offset: int) -> str:
        """The Range header of a request that goes on at `offset` of what was promised."""
        if promised is None or offset == 0:
            return self.range_header
        return f"bytes={promised.start + offset}-{promised.stop - 1}"

    def check(self, answer: Answer, promised: Extent | None, offset: int) -> Extent:
        """What the answer holds. Raises WrongAnswerError."""
        self._check_name(answer)
        found = _extent(answer)
        if self.size is not None and found.size != self.size:
            raise WrongAnswerError(f"{found.size} bytes, the manifest says {self.size}")
        if promised is not None:
            if found != Extent(promised.start + offset, promised.stop, promised.size):
                raise WrongAnswerError(f"bytes {found.start}-{found.stop}/{found.size}, not where we are")
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
        if self.is_manifest and answer.content_type not in media_type.MANIFESTS:
            raise WrongAnswerError("a manifest without a manifest's type")

    def _asked_for(self, found: Extent) -> bool:
        first, _, last = self.range_header.removeprefix("bytes=").partition("-")
        if not self.range_header:
            return False
        if not first:
            return found.stop == found.size and found.length == min(int(last), found.size)
        stop = min(int(last) + 1, found.size) if last else found.size
        return (found.start, found.stop) == (int(first), stop)


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
