"""Bytes that came and that nobody has taken yet: how many a connection, an address or prefix, and all may hold here.

A little is free for each connection, so that honest requests (under a KiB) always get through. What is above counts,
and where a bound is reached the stream that holds the bytes is reset.
"""

from __future__ import annotations

from collections import Counter

FREE_BYTES = 16 * 1024  # of each connection: requests, and what the reader has not been woken for yet
CONNECTION_BYTES_MAX = 2 << 20  # the largest answer is under 1 MiB, and few are asked for at once
SHARE_BYTES_MAX = 4 << 20  # of all connections from one address or prefix
TOTAL_BYTES_MAX = 16 << 20  # a node has 128 MiB in all


class Budget:
    """Of one host."""

    def __init__(self) -> None:
        self._total = 0
        self._shares: Counter[str] = Counter()

    @property
    def held(self) -> int:
        """Bytes that count, now."""
        return self._total

    def take(self, share: str, size: int, *, in_any_case: bool = False) -> bool:
        """Hold `size` bytes more, if they fit into the share, and (unless `in_any_case`) into what all may hold."""
        if self._shares.get(share, 0) + size > SHARE_BYTES_MAX:
            return False
        if self._total + size > TOTAL_BYTES_MAX and not in_any_case:
            return False
        self._total += size
        self._shares[share] += size
        return True

    def give(self, share: str, size: int) -> None:
        """Hold them no more."""
        self._total -= size
        self._shares[share] -= size
        if not self._shares[share]:
            del self._shares[share]


class Account:
    """Of one connection."""

    __slots__ = ("_budget", "_closed", "_counted", "_held", "_share")

    def __init__(self, budget: Budget, share: str) -> None:
        self._budget, self._share = budget, share
        self._held = self._counted = 0
        self._closed = False

    @property
    def held(self) -> int:
        """Bytes held for the connection, the free ones too."""
        return self._held

    def hold(self, size: int, *, in_any_case: bool = False) -> bool:
        """`size` bytes more, if they fit; see Budget.take."""
        held = self._held + size
        if held > CONNECTION_BYTES_MAX or self._closed:
            return False
        more = max(0, held - FREE_BYTES) - self._counted
        if more > 0 and not self._budget.take(self._share, more, in_any_case=in_any_case):
            return False
        self._held = held
        self._counted += max(0, more)
        return True

    def release(self, size: int) -> None:
        """`size` bytes were taken, or dropped."""
        if self._closed:
            return
        self._held -= size
        less = self._counted - max(0, self._held - FREE_BYTES)
        if less > 0:
            self._budget.give(self._share, less)
            self._counted -= less

    def close(self) -> None:
        """The connection has ended: it holds nothing any more."""
        if not self._closed:
            self.release(self._held)
            self._closed = True
