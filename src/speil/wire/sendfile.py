"""From an open file to a client's socket: the kernel sends from its page cache (sendfile)."""

from __future__ import annotations

import os

from speil.wire.pump import ClientEnd, ClientGoneError, Pump, Wait
from speil.wire.turns import Wire


class SendFile(Pump):
    """Sends `size` bytes of `fd` from `offset` on; a piece raises OSError where the disk fails or the file ends."""

    def __init__(self, wire: Wire, client: ClientEnd, fd: int, offset: int, size: int) -> None:
        super().__init__(wire, client)
        self._fd, self._offset, self._left = fd, offset, size
        # the kernel then reads ahead twice as far: a turn that waits for the disk blocks the event loop
        os.posix_fadvise(fd, offset, size, os.POSIX_FADV_SEQUENTIAL)

    def _turn(self, size_max: int) -> Wait:
        try:
            count = os.sendfile(self._client.fd, self._fd, self._offset, min(self._left, size_max))
        except BlockingIOError:
            return Wait.CLIENT
        except ConnectionError as error:
            raise ClientGoneError from error
        if not count:
            raise OSError("the file is shorter than it was")
        self._offset += count
        self._left -= count
        self.moved += count
        return Wait.CLIENT if self._left else Wait.NOTHING
