"""A client's end of a body, without an HTTP server."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager
from socket import socketpair

from speil.wire.sink import Sink
from speil.wire.turns import Wire


class StreamOutlet:
    """An `Outlet` over an asyncio stream: the body and nothing else."""

    def __init__(self, writer: asyncio.StreamWriter) -> None:
        assert isinstance(writer.transport, asyncio.Transport)
        self.transport, self._writer = writer.transport, writer
        self.moved_bytes = 0  # past the transport

    async def write(self, data: bytes) -> None:
        """See Outlet."""
        self._writer.write(data)
        await self.drain()

    async def drain(self) -> None:
        """See Outlet."""
        await self._writer.drain()

    def moved(self, size: int) -> None:
        """See Outlet."""
        self.moved_bytes += size


@asynccontextmanager
async def sink_and_client(wire: Wire) -> AsyncIterator[tuple[Sink, asyncio.StreamReader, asyncio.StreamWriter]]:
    """A sink over a connected pair of sockets, and the client at its other end."""
    with ExitStack() as stack:
        ours, theirs = map(stack.enter_context, socketpair())
        _, writer = await asyncio.open_connection(sock=ours)
        stack.callback(writer.transport.abort)
        reader, client = await asyncio.open_connection(sock=theirs)
        stack.callback(client.transport.abort)
        sink = Sink(wire, StreamOutlet(writer), lambda size: None)
        stack.callback(sink.close)
        yield sink, reader, client
