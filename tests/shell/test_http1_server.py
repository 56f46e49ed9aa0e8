"""The h11 server over real sockets: what clients of every kind send, and what they get."""

from __future__ import annotations

import asyncio
import os
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from random import Random

import pytest

from speil.http1.message import Request
from speil.http1.places import Bounds, Refusal
from speil.http1.reply import Reply
from speil.http1.server import GuardedServer, Handler
from speil.setting import ListenAddress
from tests.shell.nodes import free_ports

HOST = "127.0.0.1"
SECONDS_MAX = 30.0  # for whatever is waited for
BIG = Random(1).randbytes(3 << 20)
BOUNDS = Bounds(total=64, own=32, per_share=32)


class Port:
    """A server with one handler; `counted` are its refusals and malformed requests."""

    def __init__(self, handler: Handler) -> None:
        self.counted: Counter[str] = Counter()
        (self.port,) = free_ports(HOST, 1)
        self.server = GuardedServer(
            "test",
            handler,
            BOUNDS,
            count_refused=self._count_refused,
            count_malformed=lambda: self.counted.update(["malformed"]),
        )

    def _count_refused(self, reason: Refusal) -> None:
        self.counted[reason] += 1

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection(HOST, self.port)

    async def raw(self, data: bytes, *, fin: bool = False) -> bytes:
        """All that comes for these bytes until the server ends the connection."""
        reader, writer = await self.connect()
        try:
            writer.write(data)
            if fin:
                writer.write_eof()
            async with asyncio.timeout(SECONDS_MAX):
                return await reader.read()
        finally:
            writer.transport.abort()


@asynccontextmanager
async def serving(handler: Handler) -> AsyncIterator[Port]:
    port = Port(handler)
    async with port.server.serve(ListenAddress(HOST, port.port)):
        yield port


async def echo(request: Request, reply: Reply) -> None:
    """Says what it was asked."""
    told = repr((request.method, request.path, dict(request.query), dict(request.headers)))
    await reply.send(200, {"X-Echo": "1"}.items(), told.encode("utf-8", "surrogateescape"))


def get(path: str = "/", *fields: str, method: str = "GET") -> bytes:
    return "\r\n".join([f"{method} {path} HTTP/1.1", "Host: x", *fields, "", ""]).encode("latin-1")


async def read_answer(reader: asyncio.StreamReader) -> tuple[int, dict[str, str], bytes]:
    async with asyncio.timeout(SECONDS_MAX):
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        status, *lines = head.split("\r\n")
        fields = dict(line.split(": ", 1) for line in lines if line)
        return int(status.split(" ")[1]), fields, await reader.readexactly(int(fields["Content-Length"]))


async def test_a_body_is_written_and_moved_past_the_transport() -> None:
    async def half_by_the_kernel(request: Request, reply: Reply) -> None:
        async with reply.stream(200, (), len(BIG)) as out:
            half = len(BIG) // 2
            await out.write(BIG[:half])
            out.transport.set_write_buffer_limits(high=0)
            await out.drain()
            assert not out.transport.get_write_buffer_size()
            connection = out.transport.get_extra_info("socket").fileno()
            while half < len(BIG):
                try:
                    size = os.write(connection, BIG[half : half + 65536])
                except BlockingIOError:
                    await asyncio.sleep(0)
                    continue
                out.moved(size)
                half += size
            out.transport.set_write_buffer_limits()
        assert reply.body_bytes_sent == len(BIG)

    async with serving(half_by_the_kernel) as port:
        reader, writer = await port.connect()
        writer.write(get() * 3)
        for _ in range(3):
            assert (await read_answer(reader))[2] == BIG
        writer.close()


async def test_a_thousand_requests_in_a_row_are_answered_in_order() -> None:
    async with serving(echo) as port:
        reader, writer = await port.connect()
        writer.write(b"".join(get(f"/{number}") for number in range(1000)))
        for number in range(1000):
            assert f"'/{number}'".encode() in (await read_answer(reader))[2]
        writer.close()


async def test_a_client_that_sends_fin_still_gets_its_answers() -> None:
    async with serving(echo) as port:
        found = await port.raw(get("/one") + get("/two"), fin=True)
        assert found.count(b"HTTP/1.1 200 OK") == 2
        assert b"'/two'" in found


@pytest.mark.parametrize("leave", ["raises", "returns"])
async def test_a_body_that_is_not_finished_ends_with_fin(leave: str) -> None:
    async def breaks_off(request: Request, reply: Reply) -> None:
        async with reply.stream(200, (), 1000) as out:
            await out.write(b"a" * 10)
            if leave == "raises":
                raise RuntimeError("a bug")

    async with serving(breaks_off) as port:
        assert (await port.raw(get() + get())).endswith(b"\r\n\r\n" + b"a" * 10)  # RST would raise
