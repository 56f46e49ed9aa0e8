"""When the next piece of an upload may go: a token bucket that all uploads share, peer by peer in turn.

An upload asks for a piece at a time. The bucket fills at the limit and holds a tenth of a second of it; peers take
turns, and so do the uploads of one peer, so that a peer with ten uploads gets no more than a peer with one. The more
uploads, the smaller the pieces: each has its turn several times a second, and none looks stalled to its peer.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from dataclasses import dataclass

ROUND_SECONDS = 0.1  # in which each of the uploads may have one piece
PIECE_BYTES_MAX = 1 << 20
_ROUNDING_BYTES = 1e-3  # what floating point may lose between a deadline and the look at the bucket


@dataclass(frozen=True, slots=True)
class Turn:
    """A piece that was asked for; granted in the order of peers."""

    number: int
    peer: str
    size: int


class Pace:
    """Times are the caller's monotonic seconds."""

    def __init__(self, bytes_per_second: int, now: float) -> None:
        self._rate = bytes_per_second
        self.burst_bytes = max(int(bytes_per_second * ROUND_SECONDS), 1)
        self._tokens, self._filled_at = float(self.burst_bytes), now
        self._waiting: OrderedDict[str, deque[Turn]] = OrderedDict()
        self._asked = 0

    def ask(self, peer: str, size: int, open_count: int) -> Turn:
        """Wait in line for a piece of up to `size` bytes; `open_count` uploads share the limit."""
        share = self.burst_bytes // max(open_count, 1)
        self._asked += 1
        turn = Turn(self._asked, peer, max(min(size, share, PIECE_BYTES_MAX), 1))
        self._waiting.setdefault(peer, deque()).append(turn)
        return turn

    def withdraw(self, turn: Turn) -> None:
        """Leave the line."""
        if turn in (line := self._waiting.get(turn.peer, deque())):
            line.remove(turn)
            if not line:
                del self._waiting[turn.peer]

    def give_back(self, size: int) -> None:
        """Of a granted piece `size` bytes were not sent."""
        self._tokens = min(self._tokens + size, self.burst_bytes)

    def grant(self, now: float) -> list[Turn]:
        """Whose pieces may go now."""
        self._tokens = min(self._tokens + (now - self._filled_at) * self._rate, self.burst_bytes)
        self._filled_at = now
        granted = []
        while self._waiting:
            peer, line = next(iter(self._waiting.items()))
            if line[0].size > self._tokens + _ROUNDING_BYTES:
                break
            turn = line.popleft()
            self._tokens -= turn.size
            granted.append(turn)
            if line:
                self._waiting.move_to_end(peer)
            else:
                del self._waiting[peer]
        return granted

    def next_deadline(self) -> float | None:
        """When the first in line may go."""
        if not self._waiting:
            return None
        line = next(iter(self._waiting.values()))
        return self._filled_at + max(line[0].size - self._tokens, 0) / self._rate
