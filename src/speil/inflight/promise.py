"""The bytes that containerd is promised. Every source must continue exactly at the current offset."""

from __future__ import annotations

from speil.fetch.resume import Answer, Extent, Wanted, WrongAnswerError
from speil.sources.base import Opened
from speil.sources.peer_client import PeerResponse


class Promise:
    """From byte `start` to the end of the content. `extent` is None until a source has stated the size."""

    def __init__(self, wanted: Wanted, start: int) -> None:
        self._wanted, self.start = wanted, start
        self.extent: Extent | None = None

    def take(self, response: PeerResponse, offset: int) -> Extent:
        """The extent of a source's response to a request from `offset` on. Raises WrongAnswerError."""
        headers = response.headers
        answer = Answer(
            response.status, response.left, headers.get("content-range", ""), headers.get("docker-content-digest", "")
        )
        if self.extent is not None:
            return self._wanted.check(answer, self.extent, offset - self.start)
        found = self._wanted.check(answer, None, 0)
        if (found.start, found.stop) != (offset, found.size):
            raise WrongAnswerError(f"bytes {found.start}-{found.stop}/{found.size}, not those from {offset} on")
        self.extent = Extent(self.start, found.size, found.size)
        return found

    def takes(self, opened: Opened, offset: int) -> bool:
        """Whether content of a complete holder continues at `offset`, up to the end."""
        start = opened.part.start if opened.part else 0
        if (start, start + opened.length) != (offset, opened.size):
            return False
        if self.extent is None:
            self.extent = Extent(self.start, opened.size, opened.size)
        return self.extent.size == opened.size

    def forget(self) -> None:
        """Nothing was passed on: what one source stated does not bind the next one."""
        self.extent = None
