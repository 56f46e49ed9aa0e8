"""The answer to one request: a whole one in one write, a body of a known length that is streamed, or one without an
end, which goes on until its client is gone or the server stops.

h11 checks the order and the length of what is sent. Bytes that the kernel moves from a file or another socket into the
client's are counted by `Outgoing.moved`, so that h11 knows the end of the body all the same.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from email.utils import formatdate
from functools import lru_cache
from http import HTTPStatus
from typing import cast

import h11

from speil.http1.flow import Flow

ONE_WRITE_BYTES_MAX = 64 << 10  # head and body in one piece; a larger body is not copied for it

Fields = Iterable[tuple[str, str]]
Decorate = Callable[[int, Sequence[tuple[str, str]]], Fields]
_REASONS = {int(status): status.phrase.encode() for status in HTTPStatus}
_NO_LENGTH = frozenset({204, 304})


class Outgoing:
    """Where the body of one answer goes.

    A pump may write to the socket of `transport` itself while the transport's buffer is empty, and says so by `moved`.
    """

    def __init__(self, reply: Reply, transport: asyncio.Transport, flow: Flow) -> None:
        self.transport = transport
        self._reply, self._flow = reply, flow

    async def write(self, data: bytes) -> None:
        """Write bytes of the body and wait until more may be written. Raises ConnectionResetError, LocalProtocolError
        for more than the length that was said.
        """
        if self._flow.is_lost or self.transport.is_closing():
            raise ConnectionResetError("the connection is gone")
        if data:
            self.moved(len(data))
            self.transport.write(data)
            await self._flow.drain()

    async def drain(self) -> None:
        """Wait until the transport's buffer is below its low-water mark. Raises ConnectionResetError."""
        await self._flow.drain()

    def moved(self, size: int) -> None:
        """Count bytes of the body that reached the socket past the transport. Raises LocalProtocolError as `write`."""
        self._reply.count(size)


class OpenEnded:
    """A body without a known length: chunks in HTTP/1.1, until the connection's end in HTTP/1.0.

    `abandoned` is set where nobody waits for more of it: the client has sent FIN or is gone, or the server stops.
    """

    def __init__(self, machine: h11.Connection, transport: asyncio.Transport, flow: Flow, *, is_head: bool) -> None:
        self.abandoned = asyncio.Event()
        self._machine, self._transport, self._flow, self._is_head = machine, transport, flow, is_head

    async def write(self, data: bytes) -> None:
        """Write bytes, which go out at once, and wait until more may be written. Raises ConnectionResetError."""
        if self._flow.is_lost or self._transport.is_closing():
            raise ConnectionResetError("the connection is gone")
        if data and not self._is_head:
            self._transport.write(self._machine.send(h11.Data(data=data)) or b"")
            await self._flow.drain()

    def abort(self) -> None:
        """End the connection at once: its client does not take what is written."""
        self._transport.abort()


class _Notice:
    """Calls back once, also where it was given before anybody asked for the call."""

    def __init__(self) -> None:
        self._is_given, self._call = False, _nothing

    def when_given(self, call: Callable[[], None]) -> None:
        self._call = call
        if self._is_given:
            call()

    def give(self) -> None:
        if not self._is_given:
            self._is_given = True
            self._call()


class Reply:
    """The answer to one request. The server owns it; the handler sends one answer through it.

    Set `decorate` for fields that depend on all others: it is called with the status and the fields of the answer just
    before the head is written, and what it returns is added.
    """

    def __init__(self, machine: h11.Connection, transport: asyncio.Transport, flow: Flow, *, is_head: bool) -> None:
        self.status: int | None = None  # once the head is out
        self.body_bytes_sent = 0
        self.decorate: Decorate | None = None
        self.is_broken = False  # the body ended before its length
        self.closes = False  # the connection ends with this answer
        self._machine, self._transport, self._flow, self._is_head = machine, transport, flow, is_head
        self._abandoned, self._client_left = _Notice(), _Notice()

    async def send(self, status: int, headers: Fields = (), body: bytes = b"") -> None:
        """Send a whole answer; to HEAD the head alone, with the length of `body`.

        It does not wait for the client to take it, and a client that is gone is no error.
        """
        head = self._head(status, headers, len(body))
        if self._is_head or not body:
            self._machine.send(h11.EndOfMessage())
            self._write(head)
            return
        self._machine.send_with_data_passthrough(h11.Data(data=body))
        self._machine.send(h11.EndOfMessage())
        self.body_bytes_sent = len(body)
        if len(body) <= ONE_WRITE_BYTES_MAX:
            self._write(head + body)
        else:
            self._write(head)
            self._write(body)

    @asynccontextmanager
    async def stream(self, status: int, headers: Fields, length: int) -> AsyncIterator[Outgoing]:
        """Send the head, then the body that is written or moved while the context lasts. To HEAD the head alone.

        A body that is left, by an exception or without one, before `length` bytes of it ends the connection with FIN.
        Raises ConnectionResetError where the client is gone.
        """
        self._write(self._head(status, headers, length))
        try:
            if self._flow.is_lost or self._transport.is_closing():
                raise ConnectionResetError("the connection is gone")
            yield Outgoing(self, self._transport, self._flow)
        except BaseException:
            self.is_broken = True
            raise
        if not self._is_head and self.body_bytes_sent < length:
            self.is_broken = True
        else:
            self._machine.send(h11.EndOfMessage())

    @asynccontextmanager
    async def stream_open(self, status: int, headers: Fields) -> AsyncIterator[OpenEnded]:
        """Send the head, then what is written while the context lasts; its end is the body's. To HEAD the head alone.

        Nothing ends it but the caller: leave the context once `abandoned` is set. Raises ConnectionResetError.
        """
        self._write(self._head(status, headers, None))
        body = OpenEnded(self._machine, self._transport, self._flow, is_head=self._is_head)
        self.when_abandoned(body.abandoned.set)
        try:
            yield body
        except BaseException:
            self.is_broken = True
            raise
        self._write(self._machine.send(h11.EndOfMessage()) or b"")

    def when_abandoned(self, call: Callable[[], None]) -> None:
        """Call this, at most once, where the client has sent FIN or is gone, or the server stops.

        For answers that take long: others are finished all the same. The last call that was given counts.
        """
        self._abandoned.when_given(call)

    def when_client_left(self, call: Callable[[], None]) -> None:
        """Call this, at most once, where the client has sent FIN or is gone. The last call that was given counts."""
        self._client_left.when_given(call)

    def client_left(self) -> None:
        """The client has sent FIN or is gone; the connection calls it."""
        self._client_left.give()
        self.abandon()

    def abandon(self) -> None:
        """Nobody waits for the answer any more, or the server stops; the connection calls it."""
        self._abandoned.give()

    def count(self, size: int) -> None:
        """Bytes of the body that went out; `Outgoing` calls it."""
        self._machine.send_with_data_passthrough(h11.Data(data=cast(bytes, _Placeholder(size))))
        self.body_bytes_sent += size

    def _head(self, status: int, headers: Fields, length: int | None) -> bytes:
        fields = list(headers)
        if length is not None and status not in _NO_LENGTH:
            fields.append(("Content-Length", str(length)))
        fields.append(("Date", _date(int(time.time()))))
        if self.closes:
            fields.append(("Connection", "close"))
        if self.decorate is not None:
            fields += self.decorate(status, fields)
        data = self._machine.send(
            h11.Response(
                status_code=status,
                headers=[(name.encode("ascii"), value.encode("utf-8", "surrogateescape")) for name, value in fields],
                reason=_REASONS.get(status, b""),
            )
        )
        self.status = status
        return data

    def _write(self, data: bytes) -> None:
        if not self._flow.is_lost and not self._transport.is_closing():
            self._transport.write(data)


def _nothing() -> None:
    """No call was given."""


class _Placeholder:
    """Stands for bytes that Python never has; h11 asks for their number only."""

    __slots__ = ("_size",)

    def __init__(self, size: int) -> None:
        self._size = size

    def __len__(self) -> int:
        return self._size


@lru_cache(maxsize=1)
def _date(second: int) -> str:
    return formatdate(second, usegmt=True)
