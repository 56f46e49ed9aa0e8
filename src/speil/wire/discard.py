"""A sink that drops what it gets: for a pull that only measures."""

from __future__ import annotations

from speil.wire.sink import Sink
from speil.wire.turns import Wire


class Discard(Sink):
    """It has no socket, so that bodies are read into memory piece by piece. `sent` counts the bytes."""

    def __init__(self, wire: Wire) -> None:
        self.wire = wire
        self.fd = -1
        self.sent = 0

    @property
    def is_gone(self) -> bool:
        """Never."""
        return False

    @property
    def is_paced(self) -> bool:
        """Never."""
        return False

    async def turn(self, size: int) -> int:
        """All at once."""
        return size

    def give_back(self, size: int) -> None:
        """Nothing was limited."""

    async def write(self, data: bytes) -> None:
        """Count and drop."""
        self.sent += len(data)

    def moved(self, size: int) -> None:
        """Count."""
        self.sent += size

    async def claim(self) -> bool:
        """There is no descriptor to write to."""
        return False

    def hang_up(self) -> None:
        """There is no connection."""

    def close(self) -> None:
        """There is nothing to close."""
