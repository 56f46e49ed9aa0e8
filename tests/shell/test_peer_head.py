"""The head of a peer's answer, for any bytes that a peer may send."""

from __future__ import annotations

import asyncio
import contextlib
import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from speil.border.http import HttpDoor
from speil.border.record import BorderRecord
from speil.libp2p.identity import Identity
from speil.observe.metrics import Metrics
from speil.region.policy import Policy
from speil.sources.peer_client import PeerClient
from speil.sources.peer_error import PeerError
from speil.sources.peer_head import (
    CONTENT_BYTES_MAX,
    HEAD_BYTES_MAX,
    HEADERS_MAX,
    INTERIM_MAX,
    BadHeadError,
    HeadParser,
    ResponseHead,
)
from speil.wire.connection_pool import Endpoint
from speil.wire.turns import Wire
from tests.properties import examples

PIECES = st.lists(
    st.sampled_from(
        [
            b"HTTP/1.1 200 OK",
            b"HTTP/1.0 206 X",
            b"HTTP/1.1 100 Continue\r\n\r\n",
            b"HTTP/1.1 101 Switching\r\n\r\n",
            b"HTTP/1.1 \xb2\xb2\xb2 OK",
            b"HTTP/2 200",
            b"HTTP/1.1 999 ",
            b"\r\n",
            b"\n",
            b"\r",
            b"\r\n\r\n",
            b"Content-Length: ",
            b"Content-Length: 5\r\n",
            b"Transfer-Encoding: chunked\r\n",
            b"5",
            b", 6",
            b"9" * 30,
            b": ",
            b" ",
            b"\t",
            b"\0",
            b"\xff",
            b"X-A: b\r\n",
            b" folded\r\n",
            b"Connection: close\r\n",
        ]
    )
    | st.binary(max_size=8),
    max_size=14,
)


def parse(data: bytes, cuts: list[int], method: str = "GET") -> tuple[ResponseHead, bytes] | str:
    """The head and what came behind it, or how it failed; `data` comes in pieces."""
    parser, edges = HeadParser(method), sorted({0, len(data), *(cut % (len(data) + 1) for cut in cuts)})
    for start, stop in itertools.pairwise(edges):
        try:
            if (head := parser.feed(data[start:stop])) is not None:
                return head, parser.unread + data[stop:]
        except BadHeadError:
            return "bad"
    return "not whole"


@settings(max_examples=examples(250))
@given(PIECES.map(b"".join), st.lists(st.integers(0, 400), max_size=5), st.sampled_from(["GET", "HEAD"]))
def test_any_bytes_are_a_head_or_a_bad_one_however_they_are_cut(data: bytes, cuts: list[int], method: str) -> None:
    found = parse(data, cuts, method)
    if isinstance(found, tuple):
        head, rest = found
        assert 200 <= head.status <= 999
        assert head.length is None or 0 <= head.length <= CONTENT_BYTES_MAX
        assert data.endswith(rest)
        assert parse(data, [], method) == found


@given(
    st.integers(200, 599),
    st.dictionaries(st.sampled_from(["x-a", "content-type", "docker-content-digest"]), st.text("abc/:-", max_size=30)),
    st.integers(0, CONTENT_BYTES_MAX),
    st.binary(max_size=100),
    st.lists(st.integers(0, 400), max_size=8),
)
def test_a_good_head_is_read_and_what_follows_is_kept(
    status: int, headers: dict[str, str], length: int, body: bytes, cuts: list[int]
) -> None:
    lines = [f"HTTP/1.1 {status} Some Reason", *(f"{name.title()}: {value}" for name, value in headers.items())]
    data = "\r\n".join([*lines, f"Content-Length: {length}", "", ""]).encode() + body
    found = parse(data, cuts)
    assert isinstance(found, tuple)
    head, rest = found
    assert (head.status, head.length, head.keeps_alive, rest) == (status, length, True, body)
    assert {name: head.headers[name] for name in headers} == headers


GOOD = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n"


@pytest.mark.parametrize(
    "data",
    [
        b"HTTP/1.1 \xb2\xb2\xb2 OK\r\nContent-Length: 5\r\n\r\n",
        "HTTP/1.1 ²²² OK\r\nContent-Length: 5\r\n\r\n".encode(),
        "HTTP/1.1 ٢٠٠ OK\r\nContent-Length: 5\r\n\r\n".encode(),
        b"HTTP/1.1 2000 OK\r\n\r\n",
        b"HTTP/1.1 20 OK\r\n\r\n",
        b"HTTP/1.1 099 OK\r\n\r\n",
        b"HTTP/2.0 200 OK\r\n\r\n",
        b"SSH-2.0-x\r\n\r\n",
        GOOD + b"Content-Length: 6\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5, 6\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: " + b"9" * 5000 + b"\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: " + b"9" * 20 + b"\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: +5\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 0x5\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: ٥\r\n\r\n".encode(),
        b"HTTP/1.1 200 OK\r\nContent-Length: 5_0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent Length: 5\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX: a\0b\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\n\r\n",
        b"HTTP/1.1 100 Continue\r\n\r\n" * (INTERIM_MAX + 1) + GOOD + b"\r\n",
        GOOD + b"X: y\r\n" * HEADERS_MAX + b"\r\n",
        GOOD + b"X: " + b"y" * HEAD_BYTES_MAX + b"\r\n\r\n",
        b"x" * (HEAD_BYTES_MAX + 1),
    ],
    ids=range(25),
)
def test_what_is_no_head_is_told(data: bytes) -> None:
    assert parse(data, []) == "bad"
    assert parse(data, list(range(0, len(data), 7))) == "bad"


def test_what_is_odd_but_plain_is_taken() -> None:
    found = parse(b"HTTP/1.1 100 Continue\r\n\r\n" * INTERIM_MAX + GOOD + b"Content-Length: 5\r\n\r\nhello", [])
    assert isinstance(found, tuple)
    assert (found[0].length, found[1]) == (5, b"hello")
    found = parse(b"HTTP/1.1 200\r\nA: 1\r\na: 2\r\n\r\n", [])
    assert isinstance(found, tuple)
    assert (found[0].headers["a"], found[0].length) == ("1, 2", None)
    chunked = parse(GOOD + b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n", [])
    assert isinstance(chunked, tuple)
    assert chunked[0].length is None, "a chunked body has no length, whatever a header says"


@pytest.mark.parametrize("closing", [b"HTTP/1.0 200 OK\r\n", b"HTTP/1.1 200 OK\r\nConnection: Close\r\n"])
def test_who_closes_says_so(closing: bytes) -> None:
    found = parse(closing + b"Content-Length: 0\r\n\r\n", [])
    assert isinstance(found, tuple)
    assert not found[0].keeps_alive


def test_a_head_that_comes_byte_by_byte_costs_no_more_than_its_bound() -> None:
    parser, fed = HeadParser("GET"), 0
    with contextlib.suppress(BadHeadError):
        for byte in b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * HEAD_BYTES_MAX:
            assert parser.feed(bytes([byte])) is None
            fed += 1
    assert fed <= HEAD_BYTES_MAX


@settings(max_examples=examples(50), deadline=None)
@given(PIECES.map(b"".join), st.sampled_from(["GET", "HEAD"]), st.sampled_from(["", "bytes=1-"]))
def test_whatever_a_peer_sends_the_client_has_an_answer_or_an_error_of_its_own(
    data: bytes, method: str, range_header: str
) -> None:
    async def serve(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(data)
        writer.close()

    async def run() -> None:
        door = HttpDoor(Policy(), Identity.generate().peer_id, None, BorderRecord("", Metrics()), "")
        wire = Wire(zero_copy=False)
        client = PeerClient("speil/test", door, wire)
        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        try:
            endpoint, peer_id = Endpoint(*server.sockets[0].getsockname()[:2]), Identity.generate().peer_id
            response = await client.request(method, endpoint, peer_id, "/v2/a/blobs/b", range_header)
            assert response.status in (200, 206)
            while response.left:
                await response.read(5.0)
            response.close()
        except PeerError:
            pass
        finally:
            client.close()
            wire.close()
            server.close()
            await server.wait_closed()

    asyncio.run(run())
