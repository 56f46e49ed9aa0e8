"""A bound on what all transfers together hold in memory."""

from __future__ import annotations


class Budget:
    """`bytes_max` to be taken and given back."""

    def __init__(self, bytes_max: int) -> None:
        self.bytes_max = bytes_max
        self.taken = 0

    def take(self, size: int) -> bool:
        """Take `size` bytes if they are there."""
        if self.taken + size > self.bytes_max:
            return False
        self.taken += size
        return True

    def give(self, size: int) -> None:
        """Give back what was taken."""
        self.taken -= size
