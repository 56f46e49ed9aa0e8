"""A body that arrives on a socket: moved to a sink in the kernel, copied, or read into memory."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from speil.observe.logs import get_log
from speil.wire.connection_pool import Connection
from speil.wire.file_body import COPY_BYTES
from speil.wire.sink import Sink
from speil.wire.splice import NotSpliceableError, SourceBrokeOffError, SourceStalledError, Splice, receive
from speil.wire.turns import Wire

__all__ = ["SocketBody", "SourceBrokeOffError", "SourceStalledError"]

SPLICE_BYTES_MIN = 64 << 10  # below it, setting up costs more than a copy

log = get_log("wire")


class SocketBody:
    """`left` counts the body bytes still to come. Close it."""

    def __init__(self, wire: Wire, connection: Connection, size: int, give_back: Callable[[bool], None]) -> None:
        """`give_back` is called once, by `close`: with True where the body was taken to its last byte."""
        self.left = size
        self._wire, self._connection, self._give_back = wire, connection, give_back
        self._splice: Splice | None = None
        self._read_seconds = 0.0
        self._closed = False
        self._moving = False
        self._writing = False  # a copied piece, to the client
        self._waiting: asyncio.Timeout | None = None  # for bytes to be copied

    @property
    def source_seconds(self) -> float:
        """Time spent waiting for the source's bytes; what a slow client took is not in it."""
        return self._read_seconds + (self._splice.source_seconds if self._splice else 0.0)

    @property
    def moving(self) -> int:
        """Bytes that the piece under way has moved; they are not counted in `left` before its end."""
        return self._splice.moved if self._splice and self._moving else 0

    @property
    def moved_at(self) -> float:
        """When the kernel moved bytes last (loop time); 0.0 where it did not move any."""
        return self._splice.moved_at if self._splice else 0.0

    @property
    def waits_for_client(self) -> bool:
        """Whether bytes are there that the client does not take now."""
        return self._writing or (self._splice is not None and self._splice.waits_for_client)

    def interrupt(self) -> None:
        """End a wait for the source's bytes as if it had stalled."""
        if self._splice is not None:
            self._splice.interrupt()
        if self._waiting is not None:
            waiting, self._waiting = self._waiting, None  # a limit that has passed can't be set again
            waiting.reschedule(asyncio.get_running_loop().time())

    async def move(self, sink: Sink, stall_seconds: float) -> int:
        """Move the next piece to the client; its size. A piece that was moved is returned before a break is raised.

        Raises SourceStalledError where the source sends nothing for `stall_seconds`, SourceBrokeOffError,
        ClientGoneError.
        """
        if self._splice is None and not self._connection.unread:
            self._splice = await self._open_splice(sink)
        if self._splice is not None:
            self._splice.stall_seconds = stall_seconds
            self._moving = True
            try:
                size = await self._splice.piece()
            except NotSpliceableError as error:
                log.warning("the kernel does not splice here: bodies are copied from now on", error=error.__cause__)
                self._wire.splices = False
                self._connection.unread = self._splice.rescue()
                self._end_splice()
            else:
                self.left -= size
                sink.moved(size)
                return size
            finally:
                self._moving = False
        data = await self.read(stall_seconds)
        self._writing = True
        try:
            await sink.write(data)
        finally:
            self._writing = False
        return len(data)

    async def read(self, stall_seconds: float, size_max: int = COPY_BYTES) -> bytes:
        """The next piece, empty behind the end. Raises SourceStalledError, SourceBrokeOffError."""
        wanted = min(self.left, size_max)
        if not wanted:
            return b""
        if unread := self._connection.unread:
            data, self._connection.unread = unread[:wanted], unread[wanted:]
        else:
            loop = asyncio.get_running_loop()
            started = loop.time()
            try:
                # the limit is for `interrupt`; a wait that is too long ends by itself
                async with asyncio.timeout(None) as self._waiting:
                    data = await receive(self._wire, self._connection.socket, wanted, stall_seconds=stall_seconds)
            except TimeoutError:
                raise SourceStalledError("interrupted") from None
            finally:
                self._waiting = None
                self._read_seconds += loop.time() - started
        self.left -= len(data)
        return data

    def close(self) -> None:
        """Give the connection back; a second call does nothing."""
        if not self._closed:
            self._closed = True
            self._end_splice()
            self._give_back(not self.left)

    async def _open_splice(self, sink: Sink) -> Splice | None:
        if self.left < SPLICE_BYTES_MIN or not self._wire.splices or not await sink.claim():
            return None
        if (pipe := self._wire.pipes.take()) is None:
            return None
        return Splice(self._wire, sink, self._connection.socket, pipe, self.left)

    def _end_splice(self) -> None:
        if self._splice is not None:
            self._splice.end()
            self._read_seconds += self._splice.source_seconds
            self._wire.pipes.give_back(self._splice.pipe, is_empty=self._splice.is_empty)
            self._splice = None
