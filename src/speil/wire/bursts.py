"""Fewer wake-ups for a body that arrives fast: the kernel reports a socket as readable once a burst of bytes is there.

A link delivers packet by packet, and each wake-up costs more than moving one packet. So a source that is fast gets a
low-water mark (SO_RCVLOWAT) of what arrives in BURST_SECONDS; a slow one is reported at its first byte. The kernel
reports the end of the stream, an error, and a receive buffer that is nearly full whatever the mark.

A source may become slow while a burst is waited for. `look` then lowers the mark, so its bytes wait for at most two
LOOK_SECONDS.
"""

from __future__ import annotations

import socket

BURST_SECONDS = 0.002  # later than without a mark, at most as long as the source keeps its speed
BURST_BYTES_MAX = 256 << 10
BUFFER_PARTS_MIN = 4  # bursts in the receive buffer: with fewer the kernel would limit the window to the mark
BURST_BYTES_MIN = 32 << 10  # below it a mark saves too little
LOOK_SECONDS = 0.05


class Bursts:
    """The low-water mark of one socket. Times are the caller's monotonic seconds."""

    def __init__(self, source: socket.socket) -> None:
        self._source = source
        self._mark = 1
        self._came_bytes = 0
        self._measured_since: float | None = None
        self._waits_since = 0.0

    @property
    def mark_bytes(self) -> int:
        """How many bytes have to be there until the socket counts as readable."""
        return self._mark

    def came(self, size: int) -> None:
        """Bytes were taken from the socket."""
        self._came_bytes += size

    def wait_for_more(self, left: int, now: float) -> None:
        """The socket is empty, and the caller waits until it is readable; `left` bytes are still to come."""
        if self._measured_since is None:
            self._measured_since = now
            self._came_bytes = 0  # what was there before says nothing about the source's speed
        elif (seconds := now - self._measured_since) >= BURST_SECONDS:
            self._set(self._burst(self._came_bytes / seconds))
            self._measured_since, self._came_bytes = now, 0
        if self._mark > left:
            self._set(max(left, 1))
        self._waits_since = now

    def look(self, now: float) -> None:
        """Lower the mark of a source that takes longer than expected; call this every LOOK_SECONDS."""
        if self._mark > 1 and now - self._waits_since >= LOOK_SECONDS:
            self._set(1)

    def end(self) -> None:
        """The next reader of the socket is woken by its first byte."""
        self._set(1)

    def _burst(self, bytes_per_second: float) -> int:
        burst = min(int(bytes_per_second * BURST_SECONDS), BURST_BYTES_MAX)
        if burst < BURST_BYTES_MIN:
            return 1
        try:
            room = self._source.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF) // BUFFER_PARTS_MIN
        except OSError:
            return 1
        # a power of two: a speed that varies a little changes nothing
        return 1 << min(burst, max(room, 1)).bit_length() - 1

    def _set(self, mark: int) -> None:
        if mark == self._mark:
            return
        try:
            self._source.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, mark)
            self._mark = mark
        except OSError:
            self._mark = 1  # closed, or a socket without such a mark
