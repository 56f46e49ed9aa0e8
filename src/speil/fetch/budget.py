"""A bound on the bytes that all transfers together hold in memory."""

from __future__ import annotations


class MemoryBudget:
    """Up to `bytes_max` bytes may be taken. The caller of `take` calls `give` for the same number."""

    def __init__(self, bytes_max: int) -> None:
        self.bytes_max = bytes_max
        self.taken = 0

    def take(self, size: int) -> bool:
        """Take `size` bytes; False where fewer are left."""
        if self.taken + size > self.bytes_max:
            return False
        self.taken += size
        return True

    def give(self, size: int) -> None:
        """Give `size` bytes back."""
        self.taken -= size
