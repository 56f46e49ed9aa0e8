"""One connection of the client: h11 over an asyncio transport, one request after the other."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from contextlib import suppress

import h11

from speil.http1.error import BadAnswerError, RequestError
from speil.http1.flow import Flow
from speil.http1.message import Headers, MalformedError
from speil.http1.reason import reason_of

HEAD_BYTES_MAX = 64 << 10  # of an answer; proxies before an API server add to it
INTERIM_MAX = 4  # 1xx answers before the one that counts
BUFFERED_BYTES_MAX = 256 << 10  # of the body, while the caller takes none


class StaleError(BadAnswerError):
    """The server closed the connection before the first byte of an answer."""


class ClientConnection(asyncio.Protocol):
    """Raises BadAnswerError for what the server does; `name` says in errors who it is."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._machine = h11.Connection(h11.CLIENT, max_incomplete_event_size=HEAD_BYTES_MAX)
        self._flow = Flow()
        self._transport: asyncio.Transport
        self._came: asyncio.Future[None] | None = None  # waits for the next bytes
        self._buffered_bytes = 0
        self._is_idle = self._is_silent = True
        self._has_ended = self._is_spoilt = False
        self._error: BaseException | None = None
        self.idle_since = 0.0  # of the pool's clock

    @property
    def is_usable(self) -> bool:
        """Whether the next request may be sent on it."""
        return self._is_idle and not (self._is_spoilt or self._has_ended or self._transport.is_closing())

    def abort(self) -> None:
        """End it at once."""
        self._transport.abort()

    async def ask(
        self, method: str, target: str, fields: Iterable[tuple[str, str]], body: bytes
    ) -> tuple[int, Headers]:
        """Send a request; the status and fields of the answer. Raises StaleError, RequestError."""
        self._is_idle, self._is_silent = False, True
        self._write_request(method, target, fields, body)
        with suppress(ConnectionError):  # the answer may have come all the same
            await self._flow.drain()
        for _ in range(INTERIM_MAX + 1):
            event = await self._event()
            if isinstance(event, h11.Response):
                try:
                    return event.status_code, Headers(event.headers)
                except MalformedError as error:
                    raise BadAnswerError(f"{self._name} answered with {error}") from None
        raise BadAnswerError(f"{self._name} sent more than {INTERIM_MAX} interim answers")

    async def next_chunk(self) -> bytes | None:
        """The next piece of the answer's body; None at its end, when the connection may be used again."""
        while not isinstance(event := await self._event(), h11.EndOfMessage):
            if isinstance(event, h11.Data):
                return bytes(event.data)
        if self._machine.our_state is h11.DONE and self._machine.their_state is h11.DONE:
            self._is_spoilt |= bool(self._machine.trailing_data[0])
            self._machine.start_next_cycle()
            self._is_idle = True
        return None

    def _write_request(self, method: str, target: str, fields: Iterable[tuple[str, str]], body: bytes) -> None:
        try:
            headers = [(name.encode("ascii"), value.encode()) for name, value in fields]
            data = self._machine.send(h11.Request(method=method, target=target, headers=headers)) or b""
            if body:
                data += self._machine.send(h11.Data(data=body))
            data += self._machine.send(h11.EndOfMessage())
        except (h11.LocalProtocolError, UnicodeEncodeError) as error:
            raise RequestError(f"the request to {self._name} can't be sent: {error}") from None
        self._transport.write(data)

    async def _event(self) -> h11.Event:
        while True:
            try:
                event = self._machine.next_event()
            except h11.RemoteProtocolError as error:
                raise self._failure(reason_of(error)) from None
            if isinstance(event, h11.Event):
                return event
            if event is h11.PAUSED or self._flow.is_lost:
                raise self._failure(str(self._error or "it closed the connection"))
            self._buffered_bytes = 0
            self._transport.resume_reading()
            self._came = asyncio.get_running_loop().create_future()
            try:
                await self._came
            finally:
                self._came = None

    def _failure(self, why: str) -> BadAnswerError:
        if self._is_silent:
            return StaleError(f"{self._name} closed the connection before it answered: {self._error or 'no error'}")
        return BadAnswerError(f"{self._name} gave a broken answer: {why}")

    # --- what asyncio calls ---------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See Protocol."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        """See Protocol."""
        if self._is_idle:
            self._is_spoilt = True  # bytes that nobody asked for would be taken for the next answer
            self._transport.abort()
            return
        self._is_silent = False
        self._machine.receive_data(data)
        self._buffered_bytes += len(data)
        if self._buffered_bytes > BUFFERED_BYTES_MAX:
            self._transport.pause_reading()
        self._wake()

    def eof_received(self) -> None:
        """See Protocol."""
        self._has_ended = True
        self._machine.receive_data(b"")
        self._wake()

    def connection_lost(self, exc: BaseException | None) -> None:
        """See Protocol."""
        if not self._has_ended:
            self._has_ended = True
            self._error = exc
            if exc is None or self._is_idle:
                self._machine.receive_data(b"")
        self._flow.lose()
        self._wake()

    def pause_writing(self) -> None:
        """See Protocol."""
        self._flow.pause()

    def resume_writing(self) -> None:
        """See Protocol."""
        self._flow.resume()

    def _wake(self) -> None:
        if self._came is not None and not self._came.done():
            self._came.set_result(None)
