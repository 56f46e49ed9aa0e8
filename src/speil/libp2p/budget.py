"""How many received bytes that nobody has read yet a connection, an address or prefix, and all peers may hold.

Each connection has some bytes free, so that honest requests (under a KiB) always get through. Bytes above that count.
Where a limit is reached, the stream that holds the bytes is reset.
"""

from __future__ import annotations

from collections import Counter

FREE_BYTES = 16 * 1024  # of each connection: requests whose reader has not run yet
CONNECTION_BYTES_MAX = 2 << 20  # the largest answer is under 1 MiB, and few are requested at once
SHARE_BYTES_MAX = 4 << 20  # of all connections from one address or prefix
TOTAL_BYTES_MAX = 16 << 20  # a node has 128 MiB in all


class Budget:
    """The counts of one host."""

    def __init__(self) -> None:
        self._total = 0
        self._shares: Counter[str] = Counter()

    @property
    def held(self) -> int:
        """The bytes that count now."""
        return self._total

    def take(self, share: str, size: int, *, in_any_case: bool = False) -> bool:
        """Hold `size` bytes more if they fit into the share and, unless `in_any_case`, into the total; else False."""
        if self._shares.get(share, 0) + size > SHARE_BYTES_MAX:
            return False
        if self._total + size > TOTAL_BYTES_MAX and not in_any_case:
            return False
        self._total += size
        self._shares[share] += size
        return True

    def give(self, share: str, size: int) -> None:
        """Release `size` bytes."""
        self._total -= size
        self._shares[share] -= size
        if not self._shares[share]:
            del self._shares[share]


class Account:
    """The bytes of one connection."""

    __slots__ = ("_budget", "_closed", "_counted", "_held", "_share")

    def __init__(self, budget: Budget, share: str) -> None:
        self._budget, self._share = budget, share
        self._held = self._counted = 0
        self._closed = False

    @property
    def held(self) -> int:
        """The bytes held for the connection, with the free ones."""
        return self._held

    def hold(self, size: int, *, in_any_case: bool = False) -> bool:
        """Hold `size` bytes more if they fit, else False; see Budget.take."""
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
        """Release `size` bytes, which were read or dropped."""
        if self._closed:
            return
        self._held -= size
        less = self._counted - max(0, self._held - FREE_BYTES)
        if less > 0:
            self._budget.give(self._share, less)
            self._counted -= less

    def close(self) -> None:
        """Release everything: the connection has ended."""
        if not self._closed:
            self.release(self._held)
            self._closed = True
