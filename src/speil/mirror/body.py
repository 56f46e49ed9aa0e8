"""Bodies on their way out: by sendfile from an open file, or moved piece by piece from a peer into a sink.

A body that can't be finished ends with FIN, never RST: containerd repairs the one and fails the pull on the other. A
client that hangs up is nobody's failure.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from aiohttp import web

from speil.store.base import OpenContent

SENDFILE_BYTES = 16 << 20  # per call, so that what was sent is known to within this when a client hangs up


class ClientGoneError(Exception):
    """The client closed the connection before the end."""


class BodySink:
    """The client's end of one response, while its body is moved; `sent` counts what has reached its socket."""

    def __init__(self, response: BodyResponse, count: Callable[[int], None]) -> None:
        self._response, self._count = response, count
        self.sent = 0

    async def write(self, data: bytes) -> None:
        """Pass bytes on. Raises ClientGoneError."""
        try:
            await self._response.write(data)
        except ConnectionError as error:
            raise ClientGoneError from error
        self.sent += len(data)
        self._count(len(data))


class BodyResponse(web.StreamResponse):
    """A response with a known length whose body is moved by `send_file` or into `open_sink`."""

    def __init__(self, status: int, headers: dict[str, str], length: int) -> None:
        super().__init__(status=status, headers=headers)
        self.content_length = length
        self.sent = 0
        self._broken = False

    async def send_file(self, request: web.BaseRequest, content: OpenContent, start: int) -> None:
        """The body is `content` from `start` on. Raises ClientGoneError, OSError when the disk fails."""
        await self._begin(request)
        left = self.content_length or 0
        loop = asyncio.get_running_loop()
        with open(content.fd, "rb", buffering=0, closefd=False) as file:
            while left:
                if (transport := request.transport) is None:
                    raise ClientGoneError
                try:
                    count = await loop.sendfile(transport, file, start, min(left, SENDFILE_BYTES))
                except (ConnectionError, RuntimeError) as error:  # RuntimeError: "Transport is closing"
                    raise ClientGoneError from error
                if count == 0:
                    self.break_off()
                    raise OSError("the file is shorter than it was")
                start, left, self.sent = start + count, left - count, self.sent + count
        await self._end()

    @asynccontextmanager
    async def open_sink(self, request: web.BaseRequest, count: Callable[[int], None]) -> AsyncIterator[BodySink]:
        """The body is what is moved into the sink; `count` hears of each piece. Raises ClientGoneError."""
        await self._begin(request)
        try:
            yield BodySink(self, count)
        except BaseException:
            self.break_off()
            raise
        await self._end()

    async def send_nothing(self, request: web.BaseRequest) -> None:
        """The head alone: the answer to HEAD."""
        await self._begin(request)
        await self._end()

    def break_off(self) -> None:
        """End with FIN what can't be finished."""
        self._broken = True
        self.force_close()

    async def write_eof(self, data: bytes = b"") -> None:
        """aiohttp calls this at the end; a broken body has none."""
        if not self._broken:
            await super().write_eof(data)

    async def _begin(self, request: web.BaseRequest) -> None:
        try:
            await self.prepare(request)
        except ConnectionError as error:
            raise ClientGoneError from error

    async def _end(self) -> None:
        try:
            await self.write_eof()
        except ConnectionError as error:
            raise ClientGoneError from error
