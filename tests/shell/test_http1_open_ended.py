"""Answers without an end: their framing, and what ends them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from speil.http1.message import Request
from speil.http1.places import Bounds
from speil.http1.reply import Reply
from speil.http1.server import GuardedServer
from speil.setting import ListenAddress
from speil.testing.eventually import eventually
from tests.shell.nodes import free_ports

HEAD = "GET / HTTP/1.1\r\nHost: x\r\n\r\n"


@dataclass
class Server:
    """A port that answers each request with two pieces, and then waits until it is abandoned."""

    port: int = 0
    ends_itself: bool = False
    abandoned: int = 0
    failures: list[BaseException] = field(default_factory=list)

    async def answer(self, request: Request, reply: Reply) -> None:
        try:
            async with reply.stream_open(200, [("Content-Type", "text/plain")]) as body:
                await body.write(b"one ")
                await body.write(b"two")
                if not self.ends_itself:
                    await body.abandoned.wait()
                    self.abandoned += 1
        except BaseException as error:
            self.failures.append(error)
            raise


@asynccontextmanager
async def serving(server: Server) -> AsyncIterator[GuardedServer]:
    (server.port,) = free_ports("127.0.0.1", 1)
    port = GuardedServer("test", server.answer, Bounds(16, 16, 16))
    async with port.serve(ListenAddress("127.0.0.1", server.port)):
        yield port


@asynccontextmanager
async def client(server: Server, head: str = HEAD) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    writer.write(head.encode())
    async with asyncio.timeout(20):
        yield reader, writer
    writer.close()


async def test_pieces_are_chunks_and_the_connection_is_kept_after_the_end() -> None:
    server = Server(ends_itself=True)
    async with serving(server), client(server) as (reader, writer):
        head = await reader.readuntil(b"\r\n\r\n")
        assert b"transfer-encoding: chunked" in head.lower()
        assert b"content-length" not in head.lower()
        assert await reader.readuntil(b"0\r\n\r\n") == b"4\r\none \r\n3\r\ntwo\r\n0\r\n\r\n"
        writer.write(HEAD.encode())
        assert (await reader.readuntil(b"\r\n")).startswith(b"HTTP/1.1 200")


async def test_http_1_0_gets_the_bytes_and_the_end_of_the_connection() -> None:
    server = Server(ends_itself=True)
    async with serving(server), client(server, "GET / HTTP/1.0\r\n\r\n") as (reader, _):
        head, _, body = (await reader.read()).partition(b"\r\n\r\n")
        assert b"chunked" not in head.lower()
        assert body == b"one two"


async def test_a_head_request_gets_the_head_alone() -> None:
    server = Server(ends_itself=True)
    async with serving(server), client(server, HEAD.replace("GET", "HEAD")) as (reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        writer.write(HEAD.encode())
        assert (await reader.readuntil(b"\r\n")).startswith(b"HTTP/1.1 200"), "nothing came in between"


async def test_a_piece_goes_out_at_once_and_fin_abandons_the_answer() -> None:
    server = Server()
    async with serving(server), client(server) as (reader, writer):
        await reader.readuntil(b"two\r\n")
        assert server.abandoned == 0
        writer.write_eof()
        assert await reader.read() == b"0\r\n\r\n", "it has a proper end"
    assert (server.abandoned, server.failures) == (1, [])


async def test_a_reset_abandons_the_answer() -> None:
    server = Server()
    async with serving(server) as port, client(server) as (reader, writer):
        await reader.readuntil(b"two\r\n")
        writer.transport.abort()
        await eventually(lambda: server.abandoned == 1)
        await eventually(lambda: port.places.count == 0, what="its place is free")
    assert server.failures == []


async def test_the_end_of_the_server_abandons_the_answer_and_waits_for_no_time_to_pass() -> None:
    server = Server()
    async with serving(server) as _:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(HEAD.encode())
        await reader.readuntil(b"two\r\n")
    assert (server.abandoned, server.failures) == (1, []), "it was not cancelled"
    assert (await reader.read()).endswith(b"0\r\n\r\n")
    writer.close()
