"""The h11 client over real sockets: servers of every kind, kept connections, bounds, and who is said to have erred."""

from __future__ import annotations

import asyncio
import ssl
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from random import Random

import aiohttp
import pytest
from aiohttp import web

from speil.http1.client import (
    Answer,
    AnswerTooLargeError,
    BadAnswerError,
    HttpClient,
    HttpError,
    NoAnswerError,
    RequestError,
    UnreachableError,
)
from speil.http1.client_connection import HEAD_BYTES_MAX, INTERIM_MAX
from speil.http1.message import FIELDS_MAX, Request
from speil.http1.places import Bounds
from speil.http1.reply import Reply
from speil.http1.server import GuardedServer
from speil.http1.url import parse_url
from speil.setting import ListenAddress
from speil.testing.cancellation import cancel_at_each_step
from speil.testing.certificates import CertificateAuthority
from speil.testing.eventually import eventually, stands_still
from tests.shell.nodes import free_ports
from tests.shell.tls_server import tls_server

HOST = "127.0.0.1"
SECONDS_MAX = 30.0  # for whatever is waited for
BYTES_MAX = 8 << 20
BIG = Random(1).randbytes(3 << 20)
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"

Script = Callable[[bytes, asyncio.StreamWriter], Awaitable[bool]]


class RawServer:
    """Calls `script` with each request's head; the connection ends where it returns False."""

    def __init__(self, script: Script) -> None:
        self._script = script
        self.connections, self.open, self.heads = 0, 0, list[bytes]()
        self.port = 0

    @property
    def url(self) -> str:
        return f"http://{HOST}:{self.port}"

    @asynccontextmanager
    async def serve(self) -> AsyncIterator[RawServer]:
        server = await asyncio.start_server(self._serve, HOST, 0, limit=1 << 20)
        self.port = server.sockets[0].getsockname()[1]
        try:
            yield self
        finally:
            server.close()
            await eventually(lambda: self.open == 0, what="the client has closed its connections")

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self.open += 1
        try:
            goes_on = True
            while goes_on:
                head = await reader.readuntil(b"\r\n\r\n")
                self.heads.append(head)
                length = head.lower().partition(b"content-length: ")[2].partition(b"\r")[0]
                await reader.readexactly(int(length or 0))
                goes_on = await self._script(head, writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()
            self.open -= 1


def answers(data: bytes, *, stays: bool = True) -> RawServer:
    async def script(head: bytes, writer: asyncio.StreamWriter) -> bool:
        writer.write(data)
        await writer.drain()
        return stays

    return RawServer(script)


@asynccontextmanager
async def http_client(timeout_seconds: float = SECONDS_MAX, **options: object) -> AsyncIterator[HttpClient]:
    client = HttpClient(timeout_seconds=timeout_seconds, **options)  # type: ignore[arg-type]
    try:
        yield client
    finally:
        await client.close()


async def ask(client: HttpClient, url: str, method: str = "GET", **options: object) -> Answer:
    options.setdefault("answer_bytes_max", BYTES_MAX)
    return await client.request(method, url, **options)  # type: ignore[arg-type]


# --- answers --------------------------------------------------------------------------------------------------

CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


@pytest.mark.parametrize(
    ("data", "body"),
    [
        (OK, b"ok"),
        (CHUNKED + b"1\r\no\r\n1;x=y\r\nk\r\n0\r\n\r\n", b"ok"),
        (CHUNKED + b"2\r\nok\r\n0\r\nX-Trailer: y\r\n\r\n", b"ok"),
        (b"HTTP/1.1 204 No Content\r\n\r\n", b""),
        (b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n" * INTERIM_MAX + OK, b"ok"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 2\r\n\r\nok", b"ok"),
        (b"HTTP/1.1 200\r\nContent-Length: 2\r\n\r\nok", b"ok"),
        (b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n", b""),
        (b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n", b""),
    ],
)
async def test_answers_of_every_framing_leave_the_connection_for_the_next(data: bytes, body: bytes) -> None:
    async with http_client() as client, answers(data).serve() as server:
        for _ in range(3):
            answer = await ask(client, server.url)
            assert answer.body == body
        assert server.connections == 1
        await client.close()


@pytest.mark.parametrize(
    ("data", "body"),
    [
        (b"HTTP/1.1 200 OK\r\n\r\nto the end", b"to the end"),
        (b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok", b"ok"),
        (b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok", b"ok"),
    ],
)
async def test_answers_that_end_the_connection(data: bytes, body: bytes) -> None:
    async with http_client() as client, answers(data, stays=False).serve() as server:
        for number in range(1, 4):
            assert (await ask(client, server.url)).body == body
            assert server.connections == number


async def test_a_head_answer_has_a_length_and_no_body() -> None:
    async with http_client() as client, answers(b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n").serve() as server:
        for _ in range(2):
            answer = await ask(client, server.url, "HEAD")
            assert (answer.headers["content-length"], answer.body) == ("99", b"")
        assert server.connections == 1
        await client.close()


async def test_what_is_sent() -> None:
    async with http_client(headers={"User-Agent": "t"}) as client, answers(OK).serve() as server:
        url = server.url.replace("//", "//me:p%40ss@") + "/a b/ü?x=y#part"
        await ask(client, url, "PUT", params={"n s": "1&2"}, headers={"X-A": "ü"}, body=b"body")
        await ask(client, server.url, "POST")
        await ask(client, server.url)
        await client.close()
    put, post, get = (head.decode().split("\r\n") for head in server.heads)
    assert put[:2] == ["PUT /a%20b/%C3%BC?x=y&n+s=1%262 HTTP/1.1", f"Host: {HOST}:{server.port}"]
    assert {"User-Agent: t", "X-A: ü", "Content-Length: 4", "Authorization: Basic bWU6cEBzcw=="} <= set(put)
    assert (post[0], "Content-Length: 0" in post) == ("POST / HTTP/1.1", True)
    assert get == ["GET / HTTP/1.1", f"Host: {HOST}:{server.port}", "User-Agent: t", "", ""]


# --- who erred ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "before it answered"),
        (b"HTT", "broken answer"),
        (b"SSH-2.0-OpenSSH_9.9\r\n\r\n", "broken answer: illegal status line"),
        (b"\x15\x03\x01\x00\x02\x02\x46", "broken answer"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nshort", "without sending complete message body"),
        (CHUNKED + b"5\r\nshort", "incomplete chunked read"),
        (CHUNKED + b"no size\r\n", "illegal chunk header"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\nContent-Length: 5\r\n\r\n", "conflicting Content-Length"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n", "chunked is supported"),
        (b"HTTP/1.1 103 X\r\n\r\n" * (INTERIM_MAX + 1), "interim answers"),
        (b"HTTP/1.1 101 Switching\r\n\r\n", "broken answer"),
        (b"HTTP/1.1 200 OK\r\nX: " + b"y" * HEAD_BYTES_MAX, "broken answer"),
        (b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * (FIELDS_MAX + 1) + b"\r\n", "header fields"),
    ],
)
async def test_a_server_that_sends_no_whole_http_erred(data: bytes, words: str) -> None:
    async with http_client() as client, answers(data, stays=False).serve() as server:
        with pytest.raises(BadAnswerError, match=words) as caught:
            await ask(client, server.url)
        assert f"{HOST}:{server.port}" in str(caught.value)


async def test_nobody_is_there_or_the_name_is_nobodys() -> None:
    (port,) = free_ports(HOST, 1)
    async with http_client() as client:
        with pytest.raises(UnreachableError, match=rf"http://{HOST}:{port} can't be reached: "):
            await ask(client, f"http://me:secret@{HOST}:{port}/")
        with pytest.raises(UnreachableError, match=r"nowhere\.invalid") as caught:
            await ask(client, "http://me:secret@nowhere.invalid/")
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    "url", ["", "x", "/x", "ftp://x/", "http://", "http://[", "http://x:99999/", "http://me:secret@/", "//x/"]
)
async def test_what_is_no_url_is_the_callers_fault(url: str) -> None:
    async with http_client() as client:
        with pytest.raises(RequestError) as caught:
            await ask(client, url)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("headers", [{"X": "a\r\nY: b"}, {"X Y": "a"}, {"ü": "a"}, {"X": "a\0b"}])
async def test_a_header_that_can_not_be_sent_is_the_callers_fault(headers: dict[str, str]) -> None:
    async with http_client() as client, answers(OK).serve() as server:
        with pytest.raises(RequestError, match="can't be sent"):
            await ask(client, server.url, headers=headers)
        assert (await ask(client, server.url)).body == b"ok"
        await client.close()


@pytest.mark.parametrize("data", [b"", b"HTTP/1.1 200 O", b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nab"])
async def test_one_time_limit_for_all_of_a_request(data: bytes) -> None:
    async with http_client(0.2) as client, answers(data).serve() as server:
        with pytest.raises(NoAnswerError, match=r"gave no answer within 0\.2 s"):
            await ask(client, server.url)


async def test_the_limit_is_for_what_drips_too() -> None:
    async def drip(head: bytes, writer: asyncio.StreamWriter) -> bool:
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        while not writer.is_closing():
            writer.write(b"a")
            await writer.drain()
            await asyncio.sleep(0.01)
        return False

    async with http_client(0.3) as client, RawServer(drip).serve() as server:
        with pytest.raises(NoAnswerError):
            await ask(client, server.url)


async def test_a_timeout_of_the_caller_stays_the_callers() -> None:
    async with http_client() as client, answers(b"").serve() as server:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.1):
                await ask(client, server.url)


@pytest.mark.parametrize(
    "data", [b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n123456789", CHUNKED + b"9\r\n123456789\r\n0\r\n\r\n"]
)
async def test_an_answer_has_a_bound(data: bytes) -> None:
    async with http_client() as client, answers(data).serve() as server:
        assert (await ask(client, server.url, answer_bytes_max=9)).body == b"123456789"
        with pytest.raises(AnswerTooLargeError, match="more than 8 bytes"):
            await ask(client, server.url, answer_bytes_max=8)
        await client.close()


# --- kept connections -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "is_asked_again"), [("GET", True), ("PUT", True), ("POST", False), ("PATCH", False)]
)
async def test_a_connection_that_the_server_has_just_closed(method: str, is_asked_again: bool) -> None:
    """The server takes the second request on a connection and closes it without an answer."""
    requests: Counter[asyncio.StreamWriter] = Counter()

    async def script(head: bytes, writer: asyncio.StreamWriter) -> bool:
        requests[writer] += 1
        if requests[writer] > 1:
            return False
        writer.write(OK)
        return True

    async with http_client() as client, RawServer(script).serve() as server:
        await ask(client, server.url, method, body=b"x")
        if is_asked_again:
            assert (await ask(client, server.url, method, body=b"x")).body == b"ok"
            assert len(server.heads) == 3
        else:
            with pytest.raises(BadAnswerError, match="before it answered"):
                await ask(client, server.url, method, body=b"x")
            assert len(server.heads) == 2, "it may have been done: the caller has to look"
        await client.close()


async def test_a_server_that_never_answers_is_asked_once_more_and_not_on_and_on() -> None:
    async with http_client() as client:
        server, first = answers(b"", stays=False), True

        async def script(head: bytes, writer: asyncio.StreamWriter) -> bool:
            nonlocal first
            is_first, first = first, False
            if is_first:
                writer.write(OK)
            return is_first

        server = RawServer(script)
        async with server.serve():
            await ask(client, server.url)
            with pytest.raises(BadAnswerError):
                await ask(client, server.url)
            assert len(server.heads) == 3


async def test_a_connection_that_is_seen_to_be_closed_is_not_used_whatever_the_method() -> None:
    async def script(head: bytes, writer: asyncio.StreamWriter) -> bool:
        writer.write(OK)
        return False  # without a word in the answer

    async with http_client() as client, RawServer(script).serve() as server:
        for _ in range(3):
            assert (await ask(client, server.url, "POST")).body == b"ok"
            await eventually(lambda: server.open == 0, what="the server has closed it")
            await asyncio.sleep(0)
        assert len(server.heads) == 3


async def test_bytes_that_nobody_asked_for_are_no_answer() -> None:
    more = asyncio.Event()

    async def script(head: bytes, writer: asyncio.StreamWriter) -> bool:
        writer.write(OK)
        await more.wait()
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil")
        await writer.drain()
        return True

    async with http_client() as client, RawServer(script).serve() as server:
        await ask(client, server.url)
        more.set()
        await eventually(lambda: server.open == 0, what="the client has closed it")
        assert (await ask(client, server.url)).body == b"ok"
        await client.close()


async def test_more_than_the_answer_is_not_the_next_answer() -> None:
    async with (
        http_client() as client,
        answers(OK + b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil").serve() as server,
    ):
        for _ in range(3):
            assert (await ask(client, server.url)).body == b"ok"
        assert server.connections == 3
        await client.close()


async def test_idle_connections_are_closed_in_time() -> None:
    async with http_client(idle_seconds_max=0.1) as client, answers(OK).serve() as server:
        await asyncio.gather(*(ask(client, server.url) for _ in range(3)))
        await eventually(lambda: server.open == 0, what="they are closed")
        assert (await ask(client, server.url)).body == b"ok"


async def test_connections_are_few_and_the_others_wait() -> None:
    most = 0

    async def script(head: bytes, writer: asyncio.StreamWriter) -> bool:
        nonlocal most
        most = max(most, server.open)
        await asyncio.sleep(0.01)
        writer.write(OK)
        return True

    server = RawServer(script)
    async with http_client(connections_max=2) as client, server.serve():
        found = await asyncio.gather(*(ask(client, server.url) for _ in range(10)))
        assert [answer.body for answer in found] == [b"ok"] * 10
        assert (most, server.connections) == (2, 2)
        async with answers(OK).serve() as other, answers(OK).serve() as third:
            for one in (other, third):
                await ask(client, one.url)
            await eventually(lambda: server.open == 0, what="those that are idle the longest make way")
            await client.close()


async def test_who_is_cancelled_fails_nobody_else() -> None:
    go_on = asyncio.Event()

    async def script(head: bytes, writer: asyncio.StreamWriter) -> bool:
        await go_on.wait()
        writer.write(OK)
        return True

    async with http_client(connections_max=1) as client, RawServer(script).serve() as server:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(ask(client, server.url)) for _ in range(4)]
            await eventually(lambda: len(server.heads) == 1)
            tasks[0].cancel()
            tasks[2].cancel()
            go_on.set()
        assert [task.result().body for task in (tasks[1], tasks[3])] == [b"ok"] * 2
        await client.close()


@pytest.mark.parametrize(
    "data", [OK, CHUNKED + b"2\r\nok\r\n0\r\n\r\n", b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nok"]
)
async def test_a_request_can_be_cancelled_at_each_step(data: bytes) -> None:
    closes = b"close" in data
    async with answers(data, stays=not closes).serve() as server:

        async def run() -> None:
            async with http_client() as client:
                for _ in range(2):
                    assert (await ask(client, server.url, "PUT", body=b"x")).body == b"ok"

        assert await cancel_at_each_step(run, afterwards=lambda: _all_closed(server)) > 3


async def _all_closed(server: RawServer) -> None:
    await eventually(lambda: server.open == 0)


# --- bodies that stream ---------------------------------------------------------------------------------------


async def test_a_body_is_taken_at_the_callers_pace() -> None:
    sent = 0

    async def script(head: bytes, writer: asyncio.StreamWriter) -> bool:
        nonlocal sent
        sent = 0
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % (64 << 20))
        while sent < 64 << 20:
            writer.write(bytes(1 << 16))
            await writer.drain()
            sent += 1 << 16
        return True

    async with http_client() as client, RawServer(script).serve() as server:
        async with client.stream("GET", server.url) as answer:
            await stands_still(lambda: sent, what="the server has to wait")
            assert sent < 32 << 20
            assert sum([len(chunk) async for chunk in answer]) == 64 << 20
        assert (server.connections, server.open) == (1, 1)
        async with client.stream("GET", server.url) as answer:
            async for _ in answer:
                break
        await eventually(lambda: server.open == 0, what="a body that is left costs the connection")


# --- TLS ------------------------------------------------------------------------------------------------------


async def test_the_servers_certificate_is_checked_for_the_host_or_another_name(tmp_path: Path) -> None:
    authority = CertificateAuthority()
    trust = ssl.create_default_context(cadata=authority.pem.decode())
    async with tls_server(authority, tmp_path, "api.test") as server, http_client(tls=trust) as client:
        for _ in range(2):
            assert (await ask(client, server.url, server_hostname="api.test")).body == b"{}"
        for name in ("", "other.test"):
            with pytest.raises(UnreachableError, match="certificate verify failed"):
                await ask(client, server.url, server_hostname=name)
        async with http_client() as stranger:
            with pytest.raises(UnreachableError, match="certificate verify failed"):
                await ask(stranger, server.url, server_hostname="api.test")
        with pytest.raises(HttpError):
            await ask(client, server.url.replace("https", "http"))


async def test_https_where_nobody_speaks_tls() -> None:
    async with http_client() as client, answers(OK).serve() as server:
        with pytest.raises((UnreachableError, NoAnswerError)):
            async with asyncio.timeout(SECONDS_MAX):
                await HttpClient(timeout_seconds=0.5).request(
                    "GET", server.url.replace("http", "https"), answer_bytes_max=BYTES_MAX
                )
        assert (await ask(client, server.url)).body == b"ok"
        await client.close()


# --- both ends, and others' ends ------------------------------------------------------------------------------


async def serve_paths(request: Request, reply: Reply) -> None:
    match request.path:
        case "/big":
            async with reply.stream(200, [("X-Query", repr(dict(request.query)))], len(BIG)) as out:
                for start in range(0, len(BIG) if request.method == "GET" else 0, 1 << 18):
                    await out.write(BIG[start : start + (1 << 18)])
        case "/whole":
            await reply.send(200, [("X-Query", repr(dict(request.query)))], BIG)
        case _:
            await reply.send(404)


@asynccontextmanager
async def our_server() -> AsyncIterator[str]:
    (port,) = free_ports(HOST, 1)
    async with GuardedServer("test", serve_paths, Bounds(64, 32, 32)).serve(ListenAddress(HOST, port)):
        yield f"http://{HOST}:{port}"


@asynccontextmanager
async def aiohttp_server() -> AsyncIterator[str]:
    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        headers = {"X-Query": repr(dict(request.query))}
        match request.path:
            case "/big":
                response = web.StreamResponse(headers=headers)  # chunked
                await response.prepare(request)
                if request.method == "GET":
                    await response.write(BIG)
                return response
            case "/whole":
                return web.Response(body=BIG, headers=headers)
        return web.Response(status=404)

    runner = web.ServerRunner(web.Server(answer))
    await runner.setup()
    try:
        await web.TCPSite(runner, HOST, 0).start()
        yield f"http://{HOST}:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


Ask = Callable[[str, str, dict[str, str]], Awaitable[tuple[int, str, bytes]]]


@asynccontextmanager
async def our_client() -> AsyncIterator[Ask]:
    async with http_client() as client:

        async def one(method: str, url: str, params: dict[str, str]) -> tuple[int, str, bytes]:
            answer = await ask(client, url, method, params=params)
            return answer.status, answer.headers.get("X-Query", ""), answer.body

        yield one


@asynccontextmanager
async def aiohttp_client() -> AsyncIterator[Ask]:
    async with aiohttp.ClientSession() as session:

        async def one(method: str, url: str, params: dict[str, str]) -> tuple[int, str, bytes]:
            async with session.request(method, url, params=params) as response:
                return response.status, response.headers.get("X-Query", ""), await response.read()

        yield one


@pytest.mark.parametrize("client", [our_client, aiohttp_client])
@pytest.mark.parametrize("server", [our_server, aiohttp_server])
async def test_each_client_understands_each_server(client: Callable[[], object], server: Callable[[], object]) -> None:
    if (client, server) == (aiohttp_client, aiohttp_server):
        return
    async with server() as url, client() as one:  # type: ignore[attr-defined]
        for _ in range(3):
            query = {"ns": "a b&c=ü", "x": ""}
            for path in ("/big", "/whole"):
                assert await one("GET", url + path, query) == (200, repr(query), BIG)
                assert await one("HEAD", url + path, query) == (200, repr(query), b"")
            assert await one("GET", f"{url}/nothing", {}) == (404, "", b"")
            assert (await one("POST", f"{url}/whole", {}))[0] == 200


@pytest.mark.parametrize(
    ("text", "origin", "target"),
    [
        ("http://h", "http://h", "/"),
        ("http://h:80/", "http://h", "/"),
        ("https://h:443/a?b", "https://h", "/a?b"),
        ("http://[fd00::1]:81/%2f", "http://[fd00::1]:81", "/%2f"),
        ("http://H/A", "http://h", "/A"),
        ("http://bücher.test/", "http://xn--bcher-kva.test", "/"),
        ("http://h?q=ü", "http://h", "/?q=%C3%BC"),
    ],
)
def test_urls(text: str, origin: str, target: str) -> None:
    found = parse_url(text)
    assert (str(found.origin), found.target) == (origin, target)
