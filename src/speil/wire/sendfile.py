"""From an open file to a client's socket: the kernel sends from its page cache (sendfile)."""

from __future__ import annotations

import os
import time

from speil.wire.pump import ClientEnd, ClientGoneError, Pump, Wait
from speil.wire.turns import CALL_BYTES_MAX, TURN_SECONDS_MAX, Wire


class SendFile(Pump):
    """Sends `size` bytes of `fd` from `offset` on; a piece raises OSError where the disk fails or the file ends."""

    def __init__(self, wire: Wire, client: ClientEnd, fd: int, offset: int, size: int) -> None:
        super().__init__(wire, client)
        self._fd, self._offset, self._left = fd, offset, size
        # the kernel then reads ahead twice as far: a turn that waits for the disk blocks the event loop
        os.posix_fadvise(fd, offset, size, os.POSIX_FADV_SEQUENTIAL)

    def _turn(self, size_max: int) -> Wait:
        count, is_full = send(self._client.fd, self._fd, self._offset, min(self._left, size_max))
        if not count and not is_full:
            raise OSError("the file is shorter than it was")
        self._offset += count
        self._left -= count
        self.moved += count
        return Wait.CLIENT if self._left else Wait.NOTHING


def send(client_fd: int, fd: int, offset: int, size_max: int) -> tuple[int, bool]:
    """Send up to `size_max` bytes, for about TURN_SECONDS_MAX at most; how many, and whether the socket is full.

    Neither bytes nor a full socket: the file ends at `offset`. Raises ClientGoneError, and OSError for the disk.
    """
    sent, ends = 0, time.monotonic() + TURN_SECONDS_MAX
    while sent < size_max:
        wanted = min(size_max - sent, CALL_BYTES_MAX)
        try:
            count = os.sendfile(client_fd, fd, offset + sent, wanted)
        except BlockingIOError:
            return sent, True
        except ConnectionError as error:
            if sent:
                break  # the next call raises it
            raise ClientGoneError from error
        except OSError:
            if sent:
                break
            raise
        sent += count
        if count < wanted:
            return sent, bool(count)
        if time.monotonic() >= ends:
            break
    return sent, False
