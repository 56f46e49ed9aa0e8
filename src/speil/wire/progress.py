"""Ends a body whose client takes too little: it holds a place that other clients need.

While bytes wait in the client's socket, at least BYTES_MIN of them must leave it in each window. Waiting for the source
of the body, or for the upload limit, does not count against the client: then no bytes wait in its socket.
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
    """Watches one body until `close`; `too_slow` is called before a body is ended."""

    def __init__(self, transport: asyncio.Transport, sent: Callable[[], int], too_slow: Callable[[], None]) -> None:
        self._transport, self._sent, self._too_slow = transport, sent, too_slow
        self._loop = asyncio.get_running_loop()
        self._before = 0
        self._timer = self._loop.call_later(WINDOW_SECONDS, self._look)

    def close(self) -> None:
        """Stop watching."""
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
        """A pump writes to a duplicate of the descriptor: closing the transport alone does not end the connection."""
        connection = self._transport.get_extra_info("socket")
        try:
            if connection is not None:
                connection.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass  # it is gone already
        self._transport.abort()
