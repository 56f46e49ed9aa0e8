"""When the next piece of an upload may be sent: a token bucket that all uploads share, peer by peer in turn.

An upload asks for one piece at a time. The bucket fills at the limit and holds a tenth of a second of it. The peer that
was sent the fewest bytes is next, so that a peer with ten uploads gets no more than a peer with one; a peer that was
idle for a while gets at most one burst more than the others. With more uploads the pieces are smaller: each upload has
its turn several times a second, and its peer does not take it for stalled.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

ROUND_SECONDS = 0.1  # in which each of the uploads may have one piece
PIECE_BYTES_MAX = 1 << 20
_ROUNDING_BYTES = 1e-3  # what floating point may lose between a deadline and the look at the bucket


@dataclass(frozen=True, slots=True)
class Turn:
    """A request for a piece of `size` bytes."""

    number: int
    peer: str
    size: int


class UploadPace:
    """Times are the caller's monotonic seconds."""

    def __init__(self, bytes_per_second: int, now: float) -> None:
        self._rate = bytes_per_second
        self.burst_bytes = max(int(bytes_per_second * ROUND_SECONDS), 1)
        self._tokens, self._filled_at = float(self.burst_bytes), now
        self._waiting: dict[str, deque[Turn]] = {}
        self._served: dict[str, float] = {}  # bytes; only the differences count
        self._least_served = 0.0  # of the peers that wait
        self._asked = 0

    def ask(self, peer: str, size: int, open_count: int) -> Turn:
        """Ask for a piece of up to `size` bytes; `open_count` uploads share the limit."""
        share = self.burst_bytes // max(open_count, 1)
        self._asked += 1
        turn = Turn(self._asked, peer, max(min(size, share, PIECE_BYTES_MAX), 1))
        if peer not in self._waiting:
            self._waiting[peer] = deque()
            self._served[peer] = max(self._served.get(peer, 0.0), self._least_served - self.burst_bytes)
        self._waiting[peer].append(turn)
        return turn

    def withdraw(self, turn: Turn) -> None:
        """Take back a request that was not granted."""
        if turn in self._waiting.get(turn.peer, ()):
            self._leave(turn)

    def give_back(self, size: int) -> None:
        """`size` bytes of a granted piece were not sent."""
        self._tokens = min(self._tokens + size, self.burst_bytes)

    def grant(self, now: float) -> list[Turn]:
        """The requests that are granted now."""
        self._tokens = min(self._tokens + (now - self._filled_at) * self._rate, self.burst_bytes)
        self._filled_at = now
        granted = []
        while (turn := self._first()) and turn.size <= self._tokens + _ROUNDING_BYTES:
            self._leave(turn)
            self._tokens -= turn.size
            self._least_served = max(self._least_served, self._served[turn.peer])
            self._served[turn.peer] += turn.size
            granted.append(turn)
        self._forget_idle()
        return granted

    def next_deadline(self) -> float | None:
        """When the next request can be granted; None where none waits."""
        if (turn := self._first()) is None:
            return None
        return self._filled_at + max(turn.size - self._tokens, 0) / self._rate

    def _first(self) -> Turn | None:
        peer = min(self._waiting, key=self._served.__getitem__, default=None)
        return None if peer is None else self._waiting[peer][0]

    def _leave(self, turn: Turn) -> None:
        line = self._waiting[turn.peer]
        line.remove(turn)
        if not line:
            del self._waiting[turn.peer]

    def _forget_idle(self) -> None:
        """A peer whose count would not differ from a new one's need not be remembered."""
        limit = self._least_served - self.burst_bytes
        for peer in [peer for peer, served in self._served.items() if served <= limit and peer not in self._waiting]:
            del self._served[peer]
