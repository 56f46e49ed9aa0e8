"""From a socket through a pipe to the client's socket (splice): the bytes stay in the kernel."""

from __future__ import annotations

import asyncio
import errno
import math
import os
import socket
import time

from speil.wire.bursts import LOOK_SECONDS, Bursts
from speil.wire.pipes import Pipe
from speil.wire.pump import PIECE_BYTES_MAX, ClientEnd, ClientGoneError, Pump, Wait
from speil.wire.turns import TURN_SECONDS_MAX, Wire

# errors of a kernel or a sandbox that does not splice these descriptors; the body is copied instead
_NOT_HERE = frozenset({errno.EINVAL, errno.ENOSYS, errno.EPERM, errno.EOPNOTSUPP})
FOLLOWED_BYTES_MIN = 64 << 10  # of a source that sends less at a time, the client gets each byte at once
_FLAGS = os.SPLICE_F_MOVE | os.SPLICE_F_NONBLOCK


class NotSpliceableError(Exception):
    """The kernel does not splice here; `rescue` returns the bytes that are in the pipe."""


class SourceBrokeOffError(Exception):
    """The source closed the connection with bytes missing; the message says how."""


class SourceStalledError(Exception):
    """The source sent nothing for too long."""


class Splice(Pump):
    """Moves exactly `size` bytes, however many more the source would send.

    A source that sends nothing for `stall_seconds` has failed; the caller may change it between pieces.
    """

    def __init__(self, wire: Wire, client: ClientEnd, source: socket.socket, pipe: Pipe, size: int) -> None:
        super().__init__(wire, client, source_fd=source.fileno())
        self.pipe = pipe
        self.left = size  # still to reach the client
        self.stall_seconds = math.inf
        self._source_left = size
        self._bursts = Bursts(source)
        self._in_pipe = 0
        self._silent_since: float | None = None
        self._broke_off: SourceBrokeOffError | None = None

    @property
    def is_empty(self) -> bool:
        """Whether the pipe holds no bytes."""
        return not self._in_pipe

    async def piece(self, size_max: int = PIECE_BYTES_MAX) -> int:
        """See Pump. Raises NotSpliceableError, SourceBrokeOffError, SourceStalledError, ClientGoneError."""
        self._look_timer = self._loop.call_later(LOOK_SECONDS, self._look)
        try:
            return await super().piece(size_max)
        finally:
            self._look_timer.cancel()

    def end(self) -> None:
        """Leave the source's socket as it was."""
        self._bursts.end()

    def rescue(self) -> bytes:
        """Read out the bytes that are in the pipe."""
        data = b""
        while self._in_pipe:
            piece = os.read(self.pipe.read_fd, self._in_pipe)
            self._in_pipe -= len(piece)
            data += piece
        return data

    def _turn(self, size_max: int) -> Wait:
        waits_for = self._move(size_max)
        if waits_for is Wait.SOURCE:
            self._bursts.wait_for_more(self._source_left, self._loop.time())
        return waits_for

    def _move(self, size_max: int) -> Wait:
        before, ends = self.moved, time.monotonic() + TURN_SECONDS_MAX
        while True:
            source_blocks = not self._fill() and not self._in_pipe
            if self._in_pipe and not self._drain():
                return Wait.CLIENT
            if not self.left:
                return Wait.NOTHING
            if not self._in_pipe:
                if self._broke_off:
                    raise self._broke_off
                if source_blocks:
                    if self._silent_since is None:
                        self._silent_since = self._loop.time()
                    return Wait.SOURCE
            if self.moved - before >= size_max or time.monotonic() >= ends:
                return Wait.CLIENT if self._in_pipe else Wait.SOURCE

    def _fill(self) -> bool:
        """From the source into the pipe; False where it has nothing now."""
        room = min(self.pipe.size - self._in_pipe, self._source_left)
        if not room or self._broke_off:
            return False
        try:
            count = os.splice(self._source_fd, self.pipe.write_fd, room, flags=_FLAGS)
        except BlockingIOError:  # the socket is empty, or the pipe has no slot left
            return False
        except OSError as error:
            if error.errno in _NOT_HERE:
                raise NotSpliceableError from error
            self._broke_off = SourceBrokeOffError(error.strerror or str(error))
            return False
        if not count:
            self._broke_off = SourceBrokeOffError("broke off")
            return False
        self._in_pipe += count
        self._source_left -= count
        self._bursts.came(count)
        self._silent_since = None
        return True

    def _drain(self) -> bool:
        """From the pipe to the client; False where it takes nothing now."""
        # with the flag the kernel keeps what fills no packet, on loopback up to 64 KiB, for the bytes that follow
        more = os.SPLICE_F_MORE if self._source_left and self._in_pipe >= FOLLOWED_BYTES_MIN else 0
        try:
            count = os.splice(self.pipe.read_fd, self._client.fd, self._in_pipe, flags=_FLAGS | more)
        except BlockingIOError:
            return False
        except OSError as error:
            if error.errno in _NOT_HERE:
                raise NotSpliceableError from error
            raise ClientGoneError from error
        self._in_pipe -= count
        self.left -= count
        self.moved += count
        return True

    def _look(self) -> None:
        self._bursts.look(self._loop.time())
        self._look_timer = self._loop.call_later(LOOK_SECONDS, self._look)

    def _source_deadline(self) -> float:
        since = self._silent_since if self._silent_since is not None else self._loop.time()
        return since + self.stall_seconds

    def _source_stalled(self) -> Exception:
        return SourceStalledError(f"no byte in {self.stall_seconds:g} s")


async def receive(wire: Wire, source: socket.socket, size_max: int, *, stall_seconds: float) -> bytes:
    """The next bytes of a socket, at least one: the copy path. Raises SourceBrokeOffError, SourceStalledError."""
    while True:
        await wire.copies.enter()
        try:
            data = source.recv(size_max)
        except BlockingIOError:
            await _until_readable(source, stall_seconds)
        except OSError as error:
            raise SourceBrokeOffError(error.strerror or str(error)) from error
        else:
            if not data:
                raise SourceBrokeOffError("broke off")
            return data


async def _until_readable(source: socket.socket, stall_seconds: float) -> None:
    loop = asyncio.get_running_loop()
    readable = loop.create_future()
    loop.add_reader(source, _come_true, readable)
    try:
        async with asyncio.timeout(stall_seconds):
            await readable
    except TimeoutError:
        raise SourceStalledError(f"no byte in {stall_seconds:g} s") from None
    finally:
        loop.remove_reader(source)


def _come_true(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
