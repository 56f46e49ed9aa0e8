"""Is a peer's body fast enough? Only the time spent waiting for the peer counts.

Two rules: a peer that sends nothing for STALL_SECONDS_MAX has stalled, one that takes longer than PIECE_SECONDS_MAX
for PIECE_BYTES is slow. Time in which a slow client takes the bytes does not count.
"""

from __future__ import annotations

STALL_SECONDS_MAX = 3.0  # containerd itself would wait for minutes, and then fail the pull
PIECE_BYTES = 320 * 1024
PIECE_SECONDS_MAX = 5.0  # 64 KiB/s: any upstream is quicker, and a layer of a gigabyte would take hours


class BodyPace:
    """One body of one peer: read `wait_seconds` before each wait, call `came` after it."""

    def __init__(self, stall_seconds: float = STALL_SECONDS_MAX, total_seconds: float | None = None) -> None:
        """`total_seconds` bounds the sum of all waits; None: no bound."""
        self._stall_seconds, self._left_seconds = stall_seconds, total_seconds
        self._bytes, self._waited_seconds = 0, 0.0

    @property
    def wait_seconds(self) -> float:
        """How long the next wait for the peer's bytes may last."""
        wait = min(self._stall_seconds, PIECE_SECONDS_MAX - self._waited_seconds)
        return max(wait if self._left_seconds is None else min(wait, self._left_seconds), 0.0)

    def came(self, size: int, waited_seconds: float) -> None:
        """`size` bytes came after `waited_seconds`."""
        self._bytes += size
        self._waited_seconds += waited_seconds
        if self._left_seconds is not None:
            self._left_seconds -= waited_seconds
        if self._bytes >= PIECE_BYTES:
            self._bytes, self._waited_seconds = 0, 0.0

    @property
    def complaint(self) -> str:
        """Why the peer is too slow, for the log: once `wait_seconds` is 0."""
        if self._left_seconds is not None and self._left_seconds < self._stall_seconds:
            return "too slow for content that is verified before it is passed on"
        if self.wait_seconds < self._stall_seconds:
            return f"too slow: {self._bytes} bytes in {PIECE_SECONDS_MAX:g} s"
        return f"no byte in {self._stall_seconds:g} s"
