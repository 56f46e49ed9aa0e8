"""The client's end of one response while its body is sent.

The head goes through the server's transport. Then, where the connection is a plain socket, a pump writes to a duplicate
of its descriptor: the transport's own buffer is empty, and nothing is written to it until the body's end. Over TLS, or
where zero-copy is off, the bytes go through the transport too.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Protocol

from speil.wire.pump import CLIENT_STALL_SECONDS_MAX, PIECE_BYTES_MAX, ClientGoneError
from speil.wire.turns import Wire

_CLOSE_WAIT = 8  # Linux's tcp_states.h

__all__ = ["ClientGoneError", "Outlet", "Pacing", "Sink"]


class Outlet(Protocol):
    """The server's side of a response whose head has been written."""

    @property
    def transport(self) -> asyncio.Transport:
        """The connection's transport."""

    async def write(self, data: bytes) -> None:
        """Write body bytes; returns when the buffer has room again. Raises ConnectionError."""

    async def drain(self) -> None:
        """Wait until the buffer is below its high-water mark. Raises ConnectionError."""

    def moved(self, size: int) -> None:
        """Body bytes were written to the socket behind the transport's back."""


class Pacing(Protocol):
    """How fast a body may be sent."""

    @property
    def is_limited(self) -> bool:
        """Whether there is a limit."""

    async def turn(self, size: int) -> int:
        """How many of `size` bytes may be sent now, at least one; waits where there is a limit."""

    def give_back(self, size: int) -> None:
        """Bytes of a turn that were not sent."""


class Sink:
    """One response's body; `sent` counts the bytes that were handed to the client's socket or its transport."""

    def __init__(self, wire: Wire, outlet: Outlet, count: Callable[[int], None], pacing: Pacing | None = None) -> None:
        """`count` is called with the size of each piece that was sent. Without `pacing` there is no limit."""
        self.wire = wire
        self.fd = -1
        self.sent = 0
        self._outlet, self._transport, self._count, self._pacing = outlet, outlet.transport, count, pacing

    @property
    def is_gone(self) -> bool:
        """Whether the connection is closed or closing."""
        return self._transport.is_closing()

    @property
    def has_ended(self) -> bool:
        """Whether the client has sent FIN. A peer that does so reads no more; other clients may."""
        connection = self._transport.get_extra_info("socket")
        if connection is None or self.is_gone:
            return self.is_gone
        try:
            info = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)
        except OSError:  # no TCP
            return False
        return bool(info[0] == _CLOSE_WAIT)

    @property
    def is_paced(self) -> bool:
        """Whether turns are limited."""
        return self._pacing is not None and self._pacing.is_limited

    async def turn(self, size: int) -> int:
        """How many of `size` bytes may be sent now; `give_back` the rest of them."""
        return size if self._pacing is None else await self._pacing.turn(min(size, PIECE_BYTES_MAX))

    def give_back(self, size: int) -> None:
        """Bytes of a turn that were not sent."""
        if self._pacing is not None:
            self._pacing.give_back(size)

    async def write(self, data: bytes) -> None:
        """Send bytes through the transport. Raises ClientGoneError."""
        async with self._patience():
            await self._outlet.write(data)
        self._sent(len(data))

    def moved(self, size: int) -> None:
        """A pump has written `size` bytes to `fd`."""
        self._outlet.moved(size)
        self._sent(size)

    async def claim(self) -> bool:
        """Whether a pump may write to `fd`; the transport has then nothing left to send. Raises ClientGoneError."""
        if self.fd < 0 and self._is_plain():
            self._transport.set_write_buffer_limits(high=0)  # drain then means: the buffer is empty
            async with self._patience():
                await self._outlet.drain()
            if self.is_gone:
                raise ClientGoneError
            try:
                # a duplicate, because asyncio refuses to watch the descriptor of a transport
                self.fd = os.dup(self._transport.get_extra_info("socket").fileno())
            except OSError:  # no descriptor left: the copy path needs none
                self._transport.set_write_buffer_limits()
        return self.fd >= 0

    def hang_up(self) -> None:
        """End the connection: the client would take anything that is written to it now for the body."""
        if self._transport.get_write_buffer_size():
            self._transport.abort()  # close would wait for ever for a client that takes nothing
        else:
            self._transport.close()

    def close(self) -> None:
        """Close the duplicate; the connection stays open."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1
            self._transport.set_write_buffer_limits()

    def _sent(self, size: int) -> None:
        self.sent += size
        self._count(size)

    def _is_plain(self) -> bool:
        plain = self._transport.get_extra_info("ssl_object") is None
        return self.wire.zero_copy and plain and self._transport.get_extra_info("socket") is not None

    @asynccontextmanager
    async def _patience(self) -> AsyncIterator[None]:
        try:
            async with asyncio.timeout(CLIENT_STALL_SECONDS_MAX):
                yield
        except (ConnectionError, TimeoutError) as error:
            raise ClientGoneError from error
