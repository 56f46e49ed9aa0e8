"""A client that takes next to nothing is not waited for: its body holds a place, and others want it.

While bytes lie in the client's socket, so many of them have to leave it in each window. What has not come from the
source is not held against the client, nor is the pace that uploads are given.
"""

from __future__ import annotations

import asyncio
import fcntl
import socket
import struct
from collections.abc import Callable

WINDOW_SECONDS = 30.0  # shorter than any client's patience; containerd on this node has its own bound (`pump`)
BYTES_MIN = 256 << 10  # in a window; half of what makes a peer go elsewhere (64 KiB a second is too slow for us)
_SIOCOUTQ = 0x5411  # bytes that the client's side has not acknowledged


class Progress:
    """Watches one body until `close`; `too_slow` hears of its end."""

    def __init__(self, transport: asyncio.Transport, sent: Callable[[], int], too_slow: Callable[[], None]) -> None:
        self._transport, self._sent, self._too_slow = transport, sent, too_slow
        self._loop = asyncio.get_running_loop()
        self._before = 0
        self._timer = self._loop.call_later(WINDOW_SECONDS, self._look)

    def close(self) -> None:
        """The body is at its end."""
        self._timer.cancel()

    def _look(self) -> None:
        unsent = self._unsent_bytes()
        taken = self._sent() - unsent  # what lies in the kernel has not left it
        if unsent and taken - self._before < BYTES_MIN:
            self._too_slow()
            self._end()
            return
        self._before = taken
        self._timer = self._loop.call_later(WINDOW_SECONDS, self._look)

    def _unsent_bytes(self) -> int:
        waiting = self._transport.get_write_buffer_size()
        connection = self._transport.get_extra_info("socket")
        if connection is None:
            return waiting
        try:
            answer = fcntl.ioctl(connection.fileno(), _SIOCOUTQ, bytes(4))
        except OSError:
            return waiting  # closed, or no TCP
        return waiting + int(struct.unpack("i", answer)[0])

    def _end(self) -> None:
        """A pump writes to a duplicate of the descriptor: closing ours alone would end nothing."""
        connection = self._transport.get_extra_info("socket")
        try:
            if connection is not None:
                connection.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass  # it is gone already
        self._transport.abort()
