"""The h11 server over real sockets: what clients of every kind send, and what they get."""

from __future__ import annotations

import asyncio
import io
import os
import re
import socket
import struct
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from random import Random

import aiohttp
import h11
import pytest

from speil.http1 import connection as connection_module
from speil.http1 import server as server_module
from speil.http1.head import HEAD_BYTES_MAX, HeadBuffer, parse_head
from speil.http1.message import FIELDS_MAX, QUERY_FIELDS_MAX, Headers, MalformedError, Request, parse_target
from speil.http1.places import Bounds, Refusal
from speil.http1.reply import Reply
from speil.http1.server import GuardedServer, Handler
from speil.observe import logs
from speil.setting import ListenAddress
from speil.testing.cancellation import cancel_at_each_step
from speil.testing.eventually import eventually, stands_still
from tests.shell.nodes import free_ports

HOST = "127.0.0.1"
STRANGER = "127.0.9.9"  # on loopback, but no address of an interface
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

    async def connect(self, source: str = HOST) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection(HOST, self.port, local_addr=(source, 0))

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


# --- what is a request, and what it says ----------------------------------------------------------------------

LAYER = "/v2/library/nginx/blobs/sha256:" + "0" * 64

GOOD: dict[str, tuple[bytes, str]] = {
    "a path with a query": (get(f"{LAYER}?ns=docker.io"), f"('GET', '{LAYER}', {{'ns': 'docker.io'}}"),
    "escapes in path and query": (get("/a%2Fb%c3%bc?ns=a%2bb+c&x&ns=2"), "'/a/bü', {'ns': 'a+b c', 'x': ''}"),
    "a broken escape": (get("/%zz%"), "'/%zz%'"),
    "a fragment": (get("/v2/#x"), "'/v2/'"),
    "dots stay": (get("/v2/../../etc/passwd"), "'/v2/../../etc/passwd'"),
    "a URL": (get("http://elsewhere/v2/x?ns=a"), "'/v2/x', {'ns': 'a'}"),
    "a URL without a path": (get("http://elsewhere"), "'/', {}"),
    "an asterisk": (get("*", method="OPTIONS"), "('OPTIONS', '*'"),
    "empty lines before it": (b"\r\n\r\n" + get("/x"), "'/x'"),
    "a field twice": (get("/", "X-A: 1", "x-a: 2"), "'x-a': '1, 2'"),
    "bytes that are no text": (get("/", "Authorization: Basic \xff\xfe"), "\\udcff"),
    "a tab and an empty value": (get("/", "X-A: a\tb", "X-B:"), "'x-a': 'a\\tb', 'x-b': ''"),
    "an upgrade": (get("/v2/", "Connection: Upgrade", "Upgrade: websocket"), "'/v2/'"),
    "a length of nothing": (get("/", "Content-Length: 0", method="POST"), "('POST', '/'"),
    "the longest head": (get("/", "X-A: " + "a" * (HEAD_BYTES_MAX - len(get("/", "X-A: ")))), "'/'"),
    "as many fields as may be": (get("/", *(f"X-{number}: y" for number in range(FIELDS_MAX - 1))), "'x-126'"),
}  # fmt: skip


@pytest.mark.parametrize("name", GOOD)
async def test_a_request_is_read_and_the_connection_is_kept(name: str) -> None:
    data, words = GOOD[name]
    async with serving(echo) as port:
        reader, writer = await port.connect()
        for _ in range(2):
            writer.write(data)
            status, fields, body = await read_answer(reader)
            assert status == 200
            assert words in body.decode("utf-8", "surrogateescape")
            assert "Connection" not in fields
        writer.close()
    assert not port.counted


BAD: dict[str, tuple[bytes, int]] = {
    "no HTTP": (b"nonsense\r\n\r\n", 400),
    "TLS": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400),
    "the preface of HTTP/2": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400),
    "HTTP/0.9": (b"GET /\r\n\r\n", 400),
    "HTTP/1.2": (get().replace(b"HTTP/1.1", b"HTTP/1.2"), 400),
    "HTTP/2.0": (get().replace(b"HTTP/1.1", b"HTTP/2.0"), 400),
    "an unknown method": (get(method="BREW"), 400),
    "a method in lower case": (get(method="get"), 400),
    "CONNECT": (get("127.66.0.1:22", method="CONNECT"), 400),
    "no path": (get("foo"), 400),
    "a broken URL": (get("http://[/"), 400),
    "a URL of another kind": (get("ftp://x/y"), 400),
    "no Host": (b"GET / HTTP/1.1\r\n\r\n", 400),
    "two Hosts": (get("/", "Host: y"), 400),
    "two lengths": (get("/", "Content-Length: 5", "Content-Length: 0", method="POST"), 400),
    "a list of lengths": (get("/", "Content-Length: 5, 0", method="POST"), 400),
    "a length and chunks": (get("/", "Content-Length: 4", "Transfer-Encoding: chunked", method="POST"), 400),
    "a length that is no number": (get("/", "Content-Length: x", method="POST"), 400),
    "a length with a sign": (get("/", "Content-Length: +5", method="POST"), 400),
    "a negative length": (get("/", "Content-Length: -5", method="POST"), 400),
    "a length of other digits": (get("/", "Content-Length: \xb2", method="POST"), 400),
    "a coding nobody knows": (get("/", "Transfer-Encoding: xchunked", method="POST"), 400),
    "two codings": (get("/", "Transfer-Encoding: gzip, chunked", method="POST"), 400),
    "two codings in two fields": (get("/", "Transfer-Encoding: chunked", "Transfer-Encoding: chunked"), 400),
    "lines that end with LF": (b"GET /livez HTTP/1.1\nHost: x\n\n", 400),
    "one line that ends with LF": (b"GET /livez HTTP/1.1\r\nHost: x\nX: y\r\n\r\n", 400),
    "a CR in a value": (get("/", "X-A: a\rb"), 400),
    "a folded field": (get("/", "X-A: a\r\n b"), 400),
    "a space before the colon": (get("/", "X-A : a"), 400),
    "a name with a space": (get("/", "A b: c"), 400),
    "no colon": (get("/", "nonsense"), 400),
    "no name": (get("/", ": x"), 400),
    "NUL": (get("/", "X-A: a\0b"), 400),
    "ESC": (get("/", "X-A: \x1b[2Jevil"), 400),
    "DEL": (get("/", "X-A: a\x7fb"), 400),
    "a target that is not ASCII": (get("/\xfc"), 400),
    "a space in the target": (get("/a b"), 400),
    "a query of many fields": (get("/?" + "a&" * (QUERY_FIELDS_MAX + 1)), 400),
    "a long target": (get("/" + "a" * 20_000), 431),
    "a long field": (get("/", "X-A: " + "a" * 20_000), 431),
    "many fields": (get("/", *(f"X-{number}: y" for number in range(FIELDS_MAX))), 431),
    "very many fields": (get("/", *(f"X-{number}: y" for number in range(20_000))), 431),
    "an endless line": (b"GET /" + b"a" * (HEAD_BYTES_MAX + 1), 431),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
async def test_what_is_no_request_is_refused_as_gos_server_does_and_nothing_behind_it_is_read(name: str) -> None:
    data, status = BAD[name]
    async with serving(echo) as port:
        answer = await port.raw(data + (get("/smuggled") if data.endswith(b"\n") else b""))
        head, _, body = answer.partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 %d " % status)
        assert body == head.partition(b"\r\n")[0].removeprefix(b"HTTP/1.1 ")
        assert b"Connection: close" in head
    assert port.counted == {"malformed": 1}


@pytest.mark.parametrize("data", [get("/\xfc"), get("/", "no\xff colon"), b"HTTP/1.1 nonsense\r\n\r\n"])
async def test_the_log_line_says_what_is_wrong_in_printable_text(data: bytes, caplog: pytest.LogCaptureFixture) -> None:
    async with serving(echo) as port:
        await port.raw(data)
    (why,) = [record.fields["why"] for record in caplog.records if "no HTTP request" in record.message]  # type: ignore[attr-defined]
    assert why.startswith("illegal ")
    assert "bytearray" not in why
    assert why.isascii()
    assert why.isprintable()


@pytest.mark.parametrize("data", [get("/x", "X-A: b"), b"\r\n" + get("/x")])
async def test_a_head_that_comes_byte_by_byte(data: bytes) -> None:
    async with serving(echo) as port:
        reader, writer = await port.connect()
        writer.transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for number in range(len(data)):
            writer.write(data[number : number + 1])
            await writer.drain()
            await asyncio.sleep(0)
        assert b"'/x'" in (await read_answer(reader))[2]
        writer.close()


@pytest.mark.parametrize("step", [1, 2, 3, 5, 7, 100])
def test_heads_are_cut_out_wherever_the_pieces_end(step: int) -> None:
    heads = [get(f"/{number}", "X: " + "y" * number) for number in range(40)]
    data, buffer, found = b"".join(heads), HeadBuffer(), list[bytes]()
    for start in range(0, len(data), step):
        buffer.add(data[start : start + step])
        while (head := buffer.take()) is not None:
            found.append(head)
    assert found == heads
    assert len(buffer) == 0


@pytest.mark.parametrize("seed", range(20))
def test_whatever_a_head_is_made_of_it_is_a_request_or_malformed(seed: int) -> None:
    rng = Random(seed)
    parts = [b" ", b"\r", b"\n", b"\r\n", b"\t", b"\0", b":", b",", b"Content-Length", b"Transfer-Encoding: chunked"]
    parts += [b"Host: x", b"GET", b"/", b"http://", b"HTTP/1.1", b"HTTP/1.0", b"5", b"\xff", b"?a=b", b"%", b"[", b"*"]
    outcomes: Counter[str] = Counter()
    for _ in range(500):
        data = bytearray(get("/v2/x?ns=y", "Content-Length: 3", method=rng.choice(("GET", "POST"))))
        for _ in range(rng.randrange(4)):
            place = rng.randrange(len(data))
            data[place : place + rng.randrange(4)] = rng.choice(parts)
        buffer = HeadBuffer()
        try:
            buffer.add(bytes(data))
            head = buffer.take()
            if head is None:
                outcomes["incomplete"] += 1
                continue
            event, _, _ = parse_head(h11.Connection(h11.SERVER), head)
            parse_target(event.target.decode("ascii"))
            outcomes["request"] += 1
        except MalformedError:
            outcomes["malformed"] += 1
    assert outcomes["request"] > 20
    assert outcomes["malformed"] > 20


def test_header_fields_are_found_in_any_case() -> None:
    headers = Headers([(b"x-a", b"1"), (b"x-b", b"\xc3\xbc"), (b"x-a", b"2")])
    assert headers["X-A"] == headers["x-a"] == headers.get("X-a") == "1, 2"
    assert (headers["X-B"], headers.get("X-C"), "X-B" in headers, "X-C" in headers) == ("ü", None, True, False)
    assert dict(headers.items()) == {"x-a": "1, 2", "x-b": "ü"}


# --- answers --------------------------------------------------------------------------------------------------


async def test_head_gets_the_head_of_get() -> None:
    async def answer(request: Request, reply: Reply) -> None:
        if request.path == "/whole":
            await reply.send(200, [("X-A", "b")], b"12345")
        else:
            async with reply.stream(200, [("X-A", "b")], 5) as out:
                if request.method == "GET":
                    await out.write(b"12345")

    async with serving(answer) as port:
        reader, writer = await port.connect()
        for path in ("/whole", "/streamed"):
            writer.write(get(path))
            status, fields, body = await read_answer(reader)
            assert (status, fields["X-A"], fields["Content-Length"], body) == (200, "b", "5", b"12345")
            writer.write(get(path, method="HEAD") + get(path))
            assert b"Content-Length: 5" in await reader.readuntil(b"\r\n\r\n")
            assert (await read_answer(reader))[2] == b"12345"
        writer.close()


@pytest.mark.parametrize("version", ["1.0", "1.1"])
async def test_a_connection_ends_with_fin_after_the_answer_where_the_client_says_so(version: str) -> None:
    data = get("/", "Connection: close") if version == "1.1" else get().replace(b"1.1", b"1.0")
    async with serving(echo) as port:
        answer = await port.raw(data + get("/next"))
        assert answer.count(b"HTTP/1.1 200 OK") == 1
        assert b"\r\nConnection: close\r\n" in answer


async def test_what_decorates_an_answer_sees_all_of_it_but_itself() -> None:
    seen: list[tuple[int, dict[str, str]]] = []

    def decorate(status: int, fields: list[tuple[str, str]]) -> list[tuple[str, str]]:
        seen.append((status, dict(fields)))
        return [("X-Proof", "p")]

    async def answer(request: Request, reply: Reply) -> None:
        reply.decorate = decorate  # type: ignore[assignment]
        await reply.send(503, [("Retry-After", "1")], b"busy")
        assert (reply.status, reply.body_bytes_sent) == (503, 4)

    async with serving(answer) as port:
        reader, writer = await port.connect()
        writer.write(get())
        status, fields, _ = await read_answer(reader)
        assert fields.pop("X-Proof") == "p"
        assert seen == [(status, fields)]
        assert {"Content-Length", "Date", "Retry-After"} == set(fields)
        writer.close()


@pytest.mark.parametrize("status", [204, 304])
async def test_answers_without_a_body_have_no_length(status: int) -> None:
    async def answer(request: Request, reply: Reply) -> None:
        await reply.send(status)

    async with serving(answer) as port:
        reader, writer = await port.connect()
        for _ in range(2):
            writer.write(get())
            assert b"Content-Length" not in await reader.readuntil(b"\r\n\r\n")
        writer.close()


async def test_a_small_answer_is_one_piece() -> None:
    async with serving(echo) as port:
        with socket.create_connection((HOST, port.port)) as client:
            client.setblocking(False)
            loop = asyncio.get_running_loop()
            for _ in range(20):
                await loop.sock_sendall(client, get())
                answer = await loop.sock_recv(client, 1 << 16)
                assert answer.startswith(b"HTTP/1.1 200")
                assert answer.endswith(b"})"), "head and body in one segment"


async def test_a_header_that_can_not_be_sent_is_not_sent() -> None:
    async def answer(request: Request, reply: Reply) -> None:
        await reply.send(200, [("X-A", "a\r\nX-Injected: b")])

    async with serving(answer) as port:
        found = await port.raw(get())
        assert found.startswith(b"HTTP/1.1 500 ")
        assert b"njected" not in found


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


async def test_more_than_the_length_is_not_sent() -> None:
    caught: list[Exception] = []

    async def answer(request: Request, reply: Reply) -> None:
        try:
            async with reply.stream(200, (), 5) as out:
                await out.write(b"123")
                await out.write(b"456")
        except h11.LocalProtocolError as error:
            caught.append(error)

    async with serving(answer) as port:
        assert (await port.raw(get())).endswith(b"\r\n\r\n123")
    assert len(caught) == 1


async def test_a_client_that_takes_nothing_holds_its_handler_and_no_memory() -> None:
    written = 0

    async def answer(request: Request, reply: Reply) -> None:
        nonlocal written
        async with reply.stream(200, (), 64 << 20) as out:
            while written < 64 << 20:
                await out.write(bytes(1 << 16))
                written += 1 << 16
                assert out.transport.get_write_buffer_size() < 1 << 20

    async with serving(answer) as port:
        reader, writer = await port.connect()
        writer.write(get())
        await reader.readuntil(b"\r\n\r\n")
        await stands_still(lambda: written, what="the handler waits")
        assert written < 32 << 20
        async with asyncio.timeout(SECONDS_MAX):
            assert len(await reader.readexactly(64 << 20)) == 64 << 20
        writer.close()


async def test_a_connection_that_the_server_ends_is_not_counted_as_one_without_a_head(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(connection_module, "LINGER_SECONDS", 0.05)
    async with serving(echo) as port:
        for data in (b"nonsense\r\n\r\n", get("/", "Connection: close")):
            reader, writer = await port.connect()
            writer.write(data)
            async with asyncio.timeout(SECONDS_MAX):
                assert (await reader.read()).startswith(b"HTTP/1.1 ")
            # the client keeps its side open: the server closes the connection after LINGER_SECONDS
            await eventually(lambda: not port.server.places.count, what="the server closed the connection")
            writer.transport.abort()
    assert port.counted == {"malformed": 1}


async def test_answers_that_are_not_taken_are_not_followed_by_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection_module, "KEEPALIVE_SECONDS", 0.3)
    answered = 0

    async def answer(request: Request, reply: Reply) -> None:
        nonlocal answered
        answered += 1
        await reply.send(200, (), bytes(60_000))

    async with serving(answer) as port:
        _, writer = await port.connect()
        writer.transport.pause_reading()  # type: ignore[attr-defined]
        writer.write(get() * 5000)
        await eventually(lambda: port.counted[Refusal.NO_HEAD] == 1, what="it is hung up on")
        assert 1 < answered * 60_000 < 32 << 20, "what the kernels take, not more"
        writer.transport.abort()


@pytest.mark.parametrize("how", ["reset", "fin"])
async def test_a_client_that_goes_away_in_mid_body_is_no_failure_of_the_handler(
    how: str, capsys: pytest.CaptureFixture[str]
) -> None:
    ended: list[BaseException] = []

    async def answer(request: Request, reply: Reply) -> None:
        try:
            async with reply.stream(200, (), 1 << 40) as out:
                while True:
                    await out.write(bytes(1 << 16))
                    await asyncio.sleep(0)
        except BaseException as error:
            ended.append(error)
            raise

    async with serving(answer) as port:
        reader, writer = await port.connect()
        writer.write(get())
        await reader.readexactly(1000)
        if how == "reset":
            linger = struct.pack("ii", 1, 0)
            writer.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        writer.transport.abort()
        await eventually(lambda: bool(ended), what="the handler has ended")
        assert isinstance(ended[0], ConnectionError)
        await eventually(lambda: port.server.places.count == 0, what="its place is free")
    assert "failed" not in capsys.readouterr().err


async def test_a_client_that_is_gone_before_the_answer_is_no_failure(capsys: pytest.CaptureFixture[str]) -> None:
    go_on, answered = asyncio.Event(), list[int | None]()

    async def answer(request: Request, reply: Reply) -> None:
        await go_on.wait()
        await reply.send(200, (), b"nobody is there")
        answered.append(reply.status)

    async with serving(answer) as port:
        _, writer = await port.connect()
        writer.write(get())
        await eventually(lambda: len(port.server._answers) == 1)
        writer.transport.get_extra_info("socket").setsockopt(
            socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0)
        )
        writer.transport.abort()
        await eventually(lambda: port.server.places.count == 0, what="the reset is noticed while the handler runs")
        go_on.set()
        await eventually(lambda: answered == [200])
    assert "failed" not in capsys.readouterr().err


@pytest.mark.parametrize("ending", ["breaks off", "is the last one", "is refused"])
async def test_a_reset_that_is_not_seen_yet_ends_one_connection_and_not_the_server(
    ending: str, capsys: pytest.CaptureFixture[str]
) -> None:
    client = socket.socket()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    async def answer(request: Request, reply: Reply) -> None:
        if request.path == "/next":
            await reply.send(200)
            return
        reply.closes = ending == "is the last one"
        # on loopback the server's socket is reset when close returns; its loop learns of it later
        if ending == "breaks off":
            async with reply.stream(200, (), 1000):
                client.close()
        else:
            await reply.send(200)
            client.close()

    async with serving(answer) as port:
        client.connect((HOST, port.port))
        client.sendall(get() + (b"nonsense\r\n\r\n" if ending == "is refused" else b""))
        await eventually(lambda: port.server.places.count == 0, what="its place is free")
        reader, writer = await port.connect()
        writer.write(get("/next"))
        assert (await read_answer(reader))[0] == 200
        writer.close()
    assert "failed" not in capsys.readouterr().err


# --- bodies of requests, which are not for us -----------------------------------------------------------------


@pytest.mark.parametrize("framing", ["Content-Length: 33", "Transfer-Encoding: chunked"])
@pytest.mark.parametrize("method", ["GET", "POST", "PUT"])
async def test_a_body_is_never_the_next_request(framing: str, method: str) -> None:
    async with serving(echo) as port:
        answer = await port.raw(get("/", framing, method=method) + get("/smuggled"))
        assert answer.count(b"HTTP/1.1") == 1
        assert b"Connection: close" in answer
        assert b"smuggled" not in answer


async def test_who_waits_to_be_told_to_send_a_body_gets_the_answer() -> None:
    async with serving(echo) as port:
        answer = await port.raw(get("/", "Content-Length: 5", "Expect: 100-continue", method="PUT"))
        assert answer.startswith(b"HTTP/1.1 200")
        assert b"HTTP/1.1 100" not in answer


@pytest.mark.parametrize("pace", ["fast", "slow"])
async def test_a_body_without_end_is_read_for_a_moment_and_the_answer_is_seen(pace: str) -> None:
    async with serving(echo) as port:
        reader, writer = await port.connect()
        writer.write(get("/", "Transfer-Encoding: chunked", method="POST"))
        assert (await read_answer(reader))[0] == 200

        async def ended() -> bool:
            if not writer.is_closing():
                writer.write(b"1\r\na\r\n" if pace == "slow" else bytes(1 << 18))
            return writer.is_closing() or port.server.places.count == 0

        await eventually(ended, what="the connection is ended")
        writer.transport.abort()


async def test_a_large_body_that_ends_is_taken_in_and_the_answer_is_seen() -> None:
    body = bytes(connection_module.LINGER_BYTES_MAX // 2)
    async with serving(echo) as port, aiohttp.ClientSession() as session:
        for _ in range(3):
            async with session.put(f"http://{HOST}:{port.port}/", data=body) as response:
                assert response.status == 200


# --- deadlines ------------------------------------------------------------------------------------------------


async def test_a_head_has_its_time_from_its_first_byte_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection_module, "HEAD_SECONDS_MAX", 0.3)
    async with serving(echo) as port:
        silent, slow, second, patient = [await port.connect() for _ in range(4)]
        slow[1].write(b"GET / HTTP/1.1\r\nX")
        for reader, writer in (second, patient):
            writer.write(get())
            await read_answer(reader)
        second[1].write(b"GET / HTTP/1.1\r\nX")
        for reader, writer in (silent, slow, second):

            async def is_closed(reader: asyncio.StreamReader = reader, writer: asyncio.StreamWriter = writer) -> bool:
                if (reader, writer) != silent and not writer.is_closing():
                    writer.write(b"a")  # it drips: that buys no time
                return reader.at_eof() or reader.exception() is not None

            await eventually(is_closed, what="it is closed")
        assert port.counted == {Refusal.NO_HEAD: 3}
        patient[1].write(get())
        assert (await read_answer(patient[0]))[0] == 200, "who sends nothing between requests keeps its connection"
        for _, writer in (silent, slow, second, patient):
            writer.transport.abort()


async def test_an_idle_connection_ends_with_fin(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection_module, "KEEPALIVE_SECONDS", 0.2)
    async with serving(echo) as port:
        reader, writer = await port.connect()
        writer.write(get())
        await read_answer(reader)
        async with asyncio.timeout(SECONDS_MAX):
            assert await reader.read() == b""
        writer.close()
        await eventually(lambda: port.server.places.count == 0)
    assert not port.counted


async def test_what_only_waits_can_make_way_and_what_is_answered_can_not() -> None:
    go_on = asyncio.Event()

    async def answer(request: Request, reply: Reply) -> None:
        if request.path == "/slow":
            await go_on.wait()
        await reply.send(200)

    async with serving(answer) as port:
        idle, busy = await port.connect(STRANGER), await port.connect(STRANGER)
        idle[1].write(get())
        await read_answer(idle[0])
        busy[1].write(get("/slow"))
        await eventually(lambda: len(port.server._answers) == 1)
        port.server.relieve()
        async with asyncio.timeout(SECONDS_MAX):
            assert await idle[0].read() == b""
        go_on.set()
        assert (await read_answer(busy[0]))[0] == 200
        assert port.counted == {Refusal.DESCRIPTORS: 1}
        for _, writer in (idle, busy):
            writer.transport.abort()


async def test_requests_are_read_ahead_within_a_bound() -> None:
    go_on = asyncio.Event()

    async def answer(request: Request, reply: Reply) -> None:
        await go_on.wait()
        await reply.send(200, (), request.path.encode())

    count, one_recv = 3000, 256 << 10
    async with serving(answer) as port:
        reader, writer = await port.connect()
        writer.write(b"".join(get(f"/{number}", "X: " + "y" * 1000) for number in range(count)))
        (connection,) = port.server._connections
        await eventually(lambda: not connection._transport.is_reading(), what="it reads no further")
        assert len(connection._heads) <= connection_module.READ_AHEAD_BYTES_MAX + one_recv
        go_on.set()
        for number in range(count):
            assert (await read_answer(reader))[2] == f"/{number}".encode()
        writer.close()


# --- failures of the handler, and the end of the server -------------------------------------------------------


@pytest.mark.parametrize("fault", ["raises", "resets", "sends nothing"])
async def test_a_handler_that_fails_is_a_500_and_one_line(fault: str) -> None:
    async def broken(request: Request, reply: Reply) -> None:
        if fault == "raises":
            raise RuntimeError("a bug")
        if fault == "resets":
            raise ConnectionResetError("of another connection")

    stream = io.StringIO()
    logs.configure("INFO", "text", stream)
    try:
        async with serving(broken) as port:
            for _ in range(5):
                assert (await port.raw(get())).startswith(b"HTTP/1.1 500 ")
    finally:
        logs.configure()
    assert len(re.findall("a request failed", stream.getvalue())) == 1, "the same bug is told once a minute"


async def test_a_server_that_stops_ends_what_waits_and_lets_answers_end() -> None:
    arrived = asyncio.Event()

    async def answer(request: Request, reply: Reply) -> None:
        arrived.set()
        await asyncio.sleep(0.2)
        async with reply.stream(200, (), len(BIG)) as out:
            await out.write(BIG)

    port = Port(answer)
    async with asyncio.TaskGroup() as group:
        async with port.server.serve(ListenAddress(HOST, port.port)):
            idle, busy = await port.connect(), await port.connect()
            busy[1].write(get() * 2)
            await arrived.wait()
            reading = group.create_task(busy[0].read())
        assert port.server.places.count == 0
    assert reading.result().endswith(BIG)
    assert reading.result().count(b"HTTP/1.1 200") == 1, "the next request is not begun"
    assert await idle[0].read() == b""
    for _, writer in (idle, busy):
        writer.transport.abort()


@pytest.mark.parametrize("ending", ["half-closes", "closes", "server stops"])
async def test_an_answer_learns_that_its_client_left_and_not_that_the_server_stops(ending: str) -> None:
    arrived, told, abandoned = asyncio.Event(), asyncio.Event(), asyncio.Event()
    ends_at_last = asyncio.Event()

    async def answer(request: Request, reply: Reply) -> None:
        reply.when_client_left(told.set)
        reply.when_abandoned(abandoned.set)
        arrived.set()
        await ends_at_last.wait()
        await reply.send(200)

    port = Port(answer)
    async with asyncio.timeout(SECONDS_MAX), asyncio.TaskGroup() as group:
        async with port.server.serve(ListenAddress(HOST, port.port)):
            _, writer = await port.connect()
            writer.write(get())
            await arrived.wait()
            if ending == "server stops":
                group.create_task(end_after(abandoned, ends_at_last))
            elif ending == "closes":
                writer.transport.abort()
            else:
                writer.write_eof()
            if ending != "server stops":
                await told.wait()
                assert abandoned.is_set()
                ends_at_last.set()
        assert told.is_set() == (ending != "server stops")
    writer.transport.abort()


async def end_after(abandoned: asyncio.Event, ends: asyncio.Event) -> None:
    """Let an answer end once it is abandoned."""
    await abandoned.wait()
    ends.set()


async def test_an_answer_that_goes_on_is_cancelled_at_last(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_module, "SHUTDOWN_SECONDS", 0.1)
    cancelled: list[str] = []

    async def answer(request: Request, reply: Reply) -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.append(request.path)
            raise

    port = Port(answer)
    async with asyncio.timeout(SECONDS_MAX), port.server.serve(ListenAddress(HOST, port.port)):
        _, writer = await port.connect()
        writer.write(get("/endless"))
        await eventually(lambda: len(port.server._answers) == 1)
    assert cancelled == ["/endless"]
    assert port.server.places.count == 0
    writer.transport.abort()


async def test_a_server_can_be_cancelled_at_each_step() -> None:
    (number,) = free_ports(HOST, 1)

    async def run() -> None:
        port = Port(echo)
        async with port.server.serve(ListenAddress(HOST, number)):
            await asyncio.sleep(0)
            await asyncio.sleep(0)

    assert await cancel_at_each_step(run) > 1


async def test_an_error_of_whoever_serves_stays_what_it_is() -> None:
    with pytest.raises(KeyError, match="mine"):
        async with serving(echo):
            raise KeyError("mine")
    port = Port(echo)
    async with port.server.serve(ListenAddress(HOST, port.port)):
        with pytest.raises(OSError, match="in use"):
            async with GuardedServer("test", echo, BOUNDS).serve(ListenAddress(HOST, port.port)):
                pass


@pytest.mark.parametrize("seed", range(4))
async def test_clients_of_every_manner_leave_the_server_as_it_was(
    seed: int, capsys: pytest.CaptureFixture[str]
) -> None:
    """Pieces of any size, requests in a row, nonsense among them, bodies, FIN and reset at any moment."""
    rng, endings = Random(seed), Counter[str]()

    async def answer(request: Request, reply: Reply) -> None:
        for _ in range(rng.randrange(3)):
            await asyncio.sleep(0)
        match rng.randrange(4):
            case 0:
                await reply.send(200, (), bytes(rng.choice((0, 10, 200_000))))
            case 1:
                async with reply.stream(200, (), 300_000) as out:
                    for _ in range(3 if request.method == "GET" else 0):
                        await out.write(bytes(100_000))
            case 2:
                async with reply.stream(200, (), 10) as out:
                    await out.write(b"short" if request.method == "GET" else b"")
            case _:
                await reply.send(404)

    async def client() -> None:
        requests = [get(f"/{number}", method=rng.choice(("GET", "HEAD", "OPTIONS"))) for number in range(5)]
        requests += [
            rng.choice([data for data, _ in BAD.values()]),
            get("/", "Content-Length: 5", method="PUT") + b"12345",
        ]
        rng.shuffle(requests)
        data = b"".join(requests[: rng.randrange(1, 8)])
        reader, writer = await port.connect()
        try:
            while data:
                piece, data = data[: (size := rng.choice((1, 7, 100, 5000)))], data[size:]
                writer.write(piece)
                if rng.random() < 0.1:
                    await asyncio.sleep(0)
            ending = rng.choice(("reads", "half-closes", "closes", "resets"))
            endings[ending] += 1
            if ending == "resets":
                linger = struct.pack("ii", 1, 0)
                writer.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            elif ending == "half-closes":
                writer.write_eof()
                await reader.read()
            elif ending == "reads":
                await reader.read(rng.choice((1, 1000, 100_000)))
        except OSError:
            pass  # the server has ended it
        finally:
            writer.transport.abort()

    async def many() -> None:
        for _ in range(25):
            await client()

    async with serving(answer) as port:
        async with asyncio.timeout(SECONDS_MAX * 2), asyncio.TaskGroup() as group:
            for _ in range(4):
                group.create_task(many())
        await eventually(lambda: port.server.places.count == 0, what="no connection is left")
        reader, writer = await port.connect()
        writer.write(get())
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 ")
        writer.transport.abort()
    assert len(endings) == 4
    assert "failed" not in capsys.readouterr().err
