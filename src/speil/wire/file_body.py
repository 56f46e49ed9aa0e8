"""A body from an open file."""

from __future__ import annotations

import os

from speil.wire.pump import PIECE_BYTES_MAX
from speil.wire.sendfile import SendFile
from speil.wire.sink import Sink

COPY_BYTES = 128 << 10  # in user space for each body that is copied


class FileBody:
    """`left` bytes of `fd` from `offset` on. The caller owns the descriptor and keeps it open."""

    def __init__(self, fd: int, offset: int, size: int) -> None:
        self._fd, self._offset, self.left = fd, offset, size
        self._pump: SendFile | None = None

    async def send(self, sink: Sink) -> None:
        """Send all that is left, at the sink's pace. Raises ClientGoneError, OSError when the disk fails."""
        while self.left:
            granted = await sink.turn(min(self.left, PIECE_BYTES_MAX))
            sink.give_back(granted - await self.move(sink, granted))

    async def move(self, sink: Sink, size_max: int = PIECE_BYTES_MAX) -> int:
        """Send the next piece; its size. Raises ClientGoneError, OSError when the disk fails."""
        if self._pump is None and await sink.claim():
            self._pump = SendFile(sink.wire, sink, self._fd, self._offset, self.left)
        if self._pump is not None:
            size = await self._pump.piece(size_max)
            sink.moved(size)
        else:
            await sink.wire.copies.enter()
            data = os.pread(self._fd, min(self.left, size_max, COPY_BYTES), self._offset)
            if not data:
                raise OSError("the file is shorter than it was")
            await sink.write(data)
            size = len(data)
        self._offset += size
        self.left -= size
        return size
