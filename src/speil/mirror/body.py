"""Bodies on their way out: by sendfile from an open file, or piece by piece from a peer.

A body that can't be finished ends with FIN, never RST: containerd repairs the one and fails the pull on the other. A
client that hangs up is nobody's failure.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable

from aiohttp import web

from speil.store.base import OpenContent

SENDFILE_BYTES = 16 << 20  # per call, so that what was sent is known to within this when a client hangs up


class ClientGoneError(Exception):
    """The client closed the connection before the end."""


class BodyResponse(web.StreamResponse):
    """A response with a known length whose body is moved by `send_file` or `send_pieces`."""

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

    async def send_pieces(
        self, request: web.BaseRequest, pieces: AsyncIterator[bytes], count: Callable[[int], None]
    ) -> None:
        """The body is `pieces`; `count` hears of each. Raises ClientGoneError, and what `pieces` raises."""
        await self._begin(request)
        try:
            async for piece in pieces:
                await self._write(piece)
                self.sent += len(piece)
                count(len(piece))
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

    async def _write(self, piece: bytes) -> None:
        try:
            await self.write(piece)
        except ConnectionError as error:
            raise ClientGoneError from error

    async def _end(self) -> None:
        try:
            await self.write_eof()
        except ConnectionError as error:
            raise ClientGoneError from error
