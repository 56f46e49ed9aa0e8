"""Peers that fail: in every case the client sees a right prefix, then the rest from elsewhere, or a FIN."""

from __future__ import annotations

import asyncio
import functools
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from unittest.mock import ANY

import pytest

from speil.fetch import pace
from speil.fetch.peer_health import PeerRecord
from speil.fetch.settings import FetchSettings
from speil.fetch.transfer import FIRST_BYTE_SECONDS_MAX
from speil.libp2p.identity import Identity
from speil.multiformats.multiaddr import Multiaddr
from speil.multiformats.peer_info import PeerInfo
from speil.oci.digest import Digest
from speil.routing.memory import MemoryMesh, MemoryRouter
from speil.sources import peer_race
from speil.sources import relayed as relayed_module
from speil.testing.eventually import eventually
from speil.testing.images import random_image
from tests.shell.mirrors import Mirror, mirror, peer_at
from tests.shell.test_mirror_answers import DATA, IMAGE, INDEX, LAYER, NAME, ask

Script = Callable[[dict[str, str], asyncio.StreamWriter], Awaitable[None]]
pytestmark = pytest.mark.usefixtures("each_way")
PATH = f"/v2/lab/app/blobs/{LAYER}"
AS_IT_COMES = FetchSettings(verify_bytes_max=0)  # small content is otherwise verified first


@asynccontextmanager
async def scripted_peer(mesh: MemoryMesh, script: Script, *keys: str) -> AsyncIterator[list[dict[str, str]]]:
    """A peer in the mesh that answers by `script`; the requests it got."""
    requests: list[dict[str, str]] = []

    serving: set[asyncio.Task[None] | None] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        serving.add(asyncio.current_task())
        try:
            while True:
                lines = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
                headers = dict(line.split(": ", 1) for line in lines[1:] if line)
                requests.append({"line": lines[0], **headers})
                await script(headers, writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.transport.abort() if writer.transport.get_write_buffer_size() else writer.close()
            serving.discard(asyncio.current_task())

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    host, port = server.sockets[0].getsockname()[:2]
    peer = peer_at(host, port)
    for key in keys or (str(LAYER),):
        # first in line, so that it is asked before the honest ones
        mesh.records[key] = {peer: None, **mesh.records.get(key, {})}
    try:
        yield requests
    finally:
        server.close()
        for task in list(serving):
            if task:
                task.cancel()
        await eventually(lambda: not serving, what="the scripted peer has ended")


def head(status: int = 200, length: int = len(DATA), **headers: str) -> bytes:
    lines = [f"HTTP/1.1 {status} X", f"Content-Length: {length}", f"Docker-Content-Digest: {LAYER}"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode()


async def dies_after(size: int, headers: dict[str, str], writer: asyncio.StreamWriter) -> None:
    start = int(headers.get("Range", "bytes=0-").removeprefix("bytes=").partition("-")[0])
    if start:
        writer.write(head(206, len(DATA) - start, Content_Range=f"bytes {start}-{len(DATA) - 1}/{len(DATA)}"))
    else:
        writer.write(head())
    writer.write(DATA[start : start + size])
    await writer.drain()
    writer.transport.abort() if size % 2 else writer.close()
    raise ConnectionError


async def refuses(headers: dict[str, str], writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 404 X\r\nContent-Length: 0\r\n\r\n")


async def is_busy(headers: dict[str, str], writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 503 X\r\nContent-Length: 0\r\n\r\n")


async def never_answers(headers: dict[str, str], writer: asyncio.StreamWriter) -> None:
    await asyncio.Event().wait()


async def stalls(headers: dict[str, str], writer: asyncio.StreamWriter) -> None:
    writer.write(head() + DATA[:1000])
    await asyncio.Event().wait()


async def redirects(headers: dict[str, str], writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 307 X\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n")


async def encodes(headers: dict[str, str], writer: asyncio.StreamWriter) -> None:
    writer.write(head(Content_Encoding="gzip") + DATA)


async def chunks(headers: dict[str, str], writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 X\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n")


async def another_digest(headers: dict[str, str], writer: asyncio.StreamWriter) -> None:
    writer.write(f"HTTP/1.1 200 X\r\nContent-Length: 5\r\nDocker-Content-Digest: {INDEX}\r\n\r\nhello".encode())


async def talks_no_http(headers: dict[str, str], writer: asyncio.StreamWriter) -> None:
    writer.write(b"SSH-2.0-x\r\n\r\n\r\n\r\n")


async def endless_head(headers: dict[str, str], writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 X\r\n" + b"X: y\r\n" * 100_000)


def answers(data: bytes) -> Script:
    """A peer that sends these bytes, whatever it is asked."""

    async def script(headers: dict[str, str], writer: asyncio.StreamWriter) -> None:
        writer.write(data)

    return script


OK = b"HTTP/1.1 200 OK\r\nDocker-Content-Digest: " + str(LAYER).encode() + b"\r\n"
ODD_HEADS = {
    "superscript status": b"HTTP/1.1 \xb2\xb2\xb2 OK\r\nContent-Length: 5\r\n\r\nhello",
    "a length of 5000 digits": OK + b"Content-Length: " + b"9" * 5000 + b"\r\n\r\n",
    "a length above any file's": OK + b"Content-Length: " + b"9" * 18 + b"\r\n\r\n",
    "two lengths": OK + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
    "two lengths in one": OK + b"Content-Length: 5, 6\r\n\r\nhello",
    "a negative length": OK + b"Content-Length: -5\r\n\r\nhello",
    "no length": OK + b"\r\nhello",
    "length and chunks": OK + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
    "416 to no range": b"HTTP/1.1 416 X\r\nContent-Range: bytes */1\r\nContent-Length: 0\r\n\r\n",
    "416 with 5000 digits": b"HTTP/1.1 416 X\r\nContent-Range: bytes */"
    + b"1" * 5000
    + b"\r\nContent-Length: 0\r\n\r\n",
    "206 to no range": b"HTTP/1.1 206 X\r\nContent-Length: 5\r\nContent-Range: bytes 0-4/5\r\n\r\nhello",
    "206 with 5000 digits": OK.replace(b"200", b"206")
    + b"Content-Length: 1\r\nContent-Range: bytes 0-0/"
    + b"1" * 5000
    + b"\r\n\r\nh",
    "204": b"HTTP/1.1 204 X\r\n\r\n",
    "101": b"HTTP/1.1 101 X\r\nUpgrade: x\r\n\r\n",
    "interim answers without end": b"HTTP/1.1 100 X\r\n\r\n" * 500,
    "a hundred headers": OK + b"X-A: b\r\n" * 100 + b"Content-Length: 0\r\n\r\n",
    "encoded": OK + b"Content-Encoding: identity, gzip\r\nContent-Length: 5\r\n\r\nhello",
    "two digests": OK + b"Docker-Content-Digest: sha256:" + b"0" * 64 + b"\r\nContent-Length: 5\r\n\r\nhello",
    "a control character": OK + b"X: \0\r\nContent-Length: 5\r\n\r\nhello",
    "no HTTP": b"\x00\x01\x02\r\n\r\n",
    "a later HTTP": OK.replace(b"1.1", b"9.9") + b"Content-Length: 5\r\n\r\nhello",
    "nothing": b"\r\n\r\n",
}


@pytest.fixture
def quick_stall(monkeypatch: pytest.MonkeyPatch) -> None:
    """A stall is seen after a moment."""
    monkeypatch.setattr(relayed_module, "STALL_SECONDS_MAX", 0.2)


@pytest.mark.parametrize(
    "script",
    [refuses, is_busy, never_answers, redirects, encodes, chunks, another_digest, talks_no_http, endless_head],
)
async def test_a_peer_without_a_good_head_is_passed_over(script: Script) -> None:
    mesh = MemoryMesh()
    async with mirror(mesh) as holder, mirror(mesh) as asker:
        await holder.hold(IMAGE, NAME)
        async with scripted_peer(mesh, script) as requests:
            assert (await ask(asker, PATH))[::2] == (200, DATA)
            assert requests, "the bad peer was asked"


@pytest.mark.parametrize("odd", ODD_HEADS)
@pytest.mark.parametrize("method", ["GET", "HEAD"])
async def test_a_peer_with_an_odd_head_is_passed_over(odd: str, method: str, caplog: pytest.LogCaptureFixture) -> None:
    mesh = MemoryMesh()
    async with mirror(mesh) as holder, mirror(mesh) as asker:
        await holder.hold(IMAGE, NAME)
        async with scripted_peer(mesh, answers(ODD_HEADS[odd]), str(LAYER), INDEX, NAME) as requests:
            for path in (PATH, f"/v2/lab/app/manifests/{INDEX}", "/v2/lab/app/manifests/1?ns=reg.test"):
                status, headers, body = await ask(asker, path, method)
                data = DATA if path == PATH else IMAGE.blobs[IMAGE.index.digest]
                assert (status, headers["Content-Length"]) == (200, str(len(data)))
                assert body == (data if method == "GET" else b"")
            assert requests, "the odd peer was asked"
    ours = [record for record in caplog.records if record.name.startswith(("speil", "aiohttp"))]
    assert not [record for record in ours if record.levelno >= logging.ERROR or record.exc_info]


@pytest.mark.parametrize(
    "odd", ["superscript status", "a length of 5000 digits", "416 to no range", "no HTTP", "closes"]
)
async def test_six_liars_beside_one_honest_holder_cost_no_pull(odd: str) -> None:
    async def closes(headers: dict[str, str], writer: asyncio.StreamWriter) -> None:
        raise ConnectionError

    script, mesh, image = closes if odd == "closes" else answers(ODD_HEADS[odd]), MemoryMesh(), random_image(3)
    keys = list(map(str, image.blobs))
    async with AsyncExitStack() as stack:
        holder = await stack.enter_async_context(mirror(mesh))
        asker = await stack.enter_async_context(mirror(mesh))
        await holder.hold(image)
        liars = [await stack.enter_async_context(scripted_peer(mesh, script, *keys)) for _ in range(6)]
        for digest, data in image.blobs.items():
            found = await ask(asker, f"/v2/lab/app/{image.kind(digest)}/{digest}?ns=reg.test")
            assert found[::2] == (200, data)
        assert all(liars), "each was asked"


@pytest.mark.parametrize(
    "wanted", ["bytes=5-", "bytes=5-9", f"bytes=5-{len(DATA) + 5}", "bytes=-5", f"bytes=-{len(DATA) + 5}"]
)
@pytest.mark.parametrize("size", [10, len(DATA) - 1, len(DATA) + 1])
async def test_what_a_liar_says_of_a_range_does_not_cut_what_is_verified(wanted: str, size: int) -> None:
    async def lies(headers: dict[str, str], writer: asyncio.StreamWriter) -> None:
        if "Range" not in headers:
            writer.write(b"HTTP/1.1 404 X\r\nContent-Length: 0\r\n\r\n")
            return
        first, _, last = headers["Range"].removeprefix("bytes=").partition("-")
        start = int(first) if first else max(size - int(last), 0)
        stop = min(int(last) + 1, size) if first and last else size
        writer.write(head(206, stop - start, Content_Range=f"bytes {start}-{stop - 1}/{size}") + bytes(stop - start))

    mesh = MemoryMesh()
    async with mirror(mesh) as holder, mirror(mesh) as asker:
        await holder.hold(IMAGE, NAME)
        async with scripted_peer(mesh, lies) as requests:
            status, headers, body = await ask(asker, PATH, Range=wanted)
            right = await ask(holder, PATH, Range=wanted)
            assert (status, body) == (right[0], right[2])
            assert headers.get("Content-Range") == right[1].get("Content-Range")
            assert requests


@pytest.mark.parametrize("told", [1, 5, 1000])
async def test_a_range_is_not_refused_because_one_peer_says_so(told: int) -> None:
    mesh = MemoryMesh()
    async with mirror(mesh) as holder, mirror(mesh) as asker:
        await holder.hold(IMAGE, NAME)
        refusal = f"HTTP/1.1 416 X\r\nContent-Range: bytes */{told}\r\nContent-Length: 0\r\n\r\n".encode()
        async with scripted_peer(mesh, answers(refusal)) as requests:
            assert (await ask(asker, PATH, Range="bytes=1000-"))[::2] == (206, DATA[1000:])
            assert requests
            status, headers, _ = await ask(asker, PATH, Range=f"bytes={len(DATA)}-")
            assert status == 404, "they do not agree: the upstream decides"
        status, headers, _ = await ask(asker, PATH, Range=f"bytes={len(DATA)}-")
        assert (status, headers["Content-Range"]) == (416, f"bytes */{len(DATA)}")


async def test_a_peer_that_is_gone_is_passed_over() -> None:
    mesh = MemoryMesh()
    async with mirror(mesh) as holder, mirror(mesh) as asker:
        await holder.hold(IMAGE, NAME)
        mesh.records[str(LAYER)] = {peer_at("127.0.0.1", 1): None, **mesh.records[str(LAYER)]}
        assert (await ask(asker, PATH))[::2] == (200, DATA)
        assert asker.sample("speil_peer_requests_total", outcome="refused") == 1


@pytest.mark.parametrize("name", ["no..name", "a" * 64])
async def test_a_peer_whose_address_is_no_name_is_passed_over(name: str, caplog: pytest.LogCaptureFixture) -> None:
    mesh = MemoryMesh()
    nameless = PeerInfo(Identity.generate().peer_id, (Multiaddr.parse(f"/dns4/{name}/tcp/5000"),))
    async with mirror(mesh) as asker, mirror(mesh) as holder:
        mesh.records[str(LAYER)] = {nameless: None}
        await holder.hold(IMAGE, NAME)
        status, _, body = await ask(asker, PATH)
        assert (status, body == DATA) == (200, True)
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]


async def test_a_peer_on_ipv6() -> None:
    mesh = MemoryMesh()
    async with mirror(mesh, host="::1") as holder, mirror(mesh) as asker:
        await holder.hold(IMAGE, NAME)
        assert (await ask(asker, PATH))[::2] == (200, DATA)


@pytest.mark.parametrize("size", [0, 1, 10_000, 10_001, len(DATA) - 1])
async def test_a_peer_that_dies_in_the_body_is_replaced_at_the_same_offset(size: int) -> None:
    mesh = MemoryMesh()
    async with mirror(mesh) as holder, mirror(mesh, fetch=AS_IT_COMES) as asker:
        await holder.hold(IMAGE, NAME)
        async with scripted_peer(mesh, lambda headers, writer: dies_after(size, headers, writer)):
            status, headers, body = await ask(asker, PATH)
        assert (status, headers["Content-Length"], body) == (200, str(len(DATA)), DATA)
        assert asker.sample("speil_resumed_transfers_total") == 1
        assert holder.sample("speil_served_bytes_total", client="peer") <= len(DATA), "only the rest is asked for"


@pytest.mark.usefixtures("quick_stall")
async def test_a_peer_that_stalls_is_replaced_at_the_same_offset() -> None:
    mesh = MemoryMesh()
    async with mirror(mesh) as holder, mirror(mesh, fetch=AS_IT_COMES) as asker:
        await holder.hold(IMAGE, NAME)
        async with scripted_peer(mesh, stalls):
            assert (await ask(asker, PATH))[2] == DATA
        assert asker.sample("speil_resumed_transfers_total") == 1


async def test_several_peers_die_one_after_the_other() -> None:
    mesh = MemoryMesh()
    async with (
        mirror(mesh) as holder,
        mirror(mesh, mirror_resolve_retries=5, fetch=AS_IT_COMES) as asker,
        AsyncExitStack() as stack,
    ):
        await holder.hold(IMAGE, NAME)
        for size in (50_000, 20_000, 7):
            script = _dying(size)
            await stack.enter_async_context(scripted_peer(mesh, script))
        assert (await ask(asker, PATH))[2] == DATA


def _dying(size: int) -> Script:
    return lambda headers, writer: dies_after(size, headers, writer)


async def test_nobody_is_left_a_fin_then_404_on_the_range_retry() -> None:
    mesh = MemoryMesh()
    async with mirror(mesh, fetch=AS_IT_COMES) as asker, scripted_peer(mesh, _dying(30_000)) as requests:
        reader, writer = await asyncio.open_connection(asker.host, asker.port)
        writer.write(f"GET {PATH} HTTP/1.1\r\nHost: x\r\nUser-Agent: containerd/1\r\n\r\n".encode())
        answer = await reader.read()  # raises ConnectionResetError on RST: it must be a FIN
        writer.close()
        _, _, body = answer.partition(b"\r\n\r\n")
        assert body == DATA[:30_000]
        assert asker.sample("spegel_mirror_requests_total", cache="miss") == 1, "a body that broke off is no hit"
        status, _, nothing = await ask(asker, PATH, Range="bytes=30000-")
        assert status == 404
        assert nothing
        assert len(requests) == 1, "whoever broke off is not asked for the rest"


async def test_a_range_request_is_resumed_within_its_range() -> None:
    mesh = MemoryMesh()
    async with mirror(mesh) as holder, mirror(mesh, fetch=AS_IT_COMES) as asker:
        await holder.hold(IMAGE, NAME)
        async with scripted_peer(mesh, _dying(500)):
            status, headers, body = await ask(asker, PATH, Range="bytes=1000-")
        assert (status, body) == (206, DATA[1000:])
        assert headers["Content-Range"] == f"bytes 1000-{len(DATA) - 1}/{len(DATA)}"


async def test_a_manifest_with_wrong_bytes_is_never_passed_on() -> None:
    manifest = IMAGE.blobs[IMAGE.index.digest]
    wrong = manifest.replace(b"amd64", b"amd46")

    async def lies(headers: dict[str, str], writer: asyncio.StreamWriter) -> None:
        kind = IMAGE.media_types[IMAGE.index.digest]
        lines = f"HTTP/1.1 200 X\r\nContent-Length: {len(wrong)}\r\nContent-Type: {kind}\r\n"
        writer.write(f"{lines}Docker-Content-Digest: {INDEX}\r\n\r\n".encode() + wrong)

    mesh = MemoryMesh()
    async with mirror(mesh) as holder, mirror(mesh) as asker:
        await holder.hold(IMAGE, NAME)
        async with scripted_peer(mesh, lies, INDEX) as requests:
            assert (await ask(asker, f"/v2/lab/app/manifests/{INDEX}"))[::2] == (200, manifest)
            assert requests
    mesh = MemoryMesh()
    async with mirror(mesh) as asker, scripted_peer(mesh, lies, INDEX):
        assert (await ask(asker, f"/v2/lab/app/manifests/{INDEX}"))[0] == 404


async def test_content_that_is_removed_while_it_is_sent_is_sent_to_its_end() -> None:
    big = random_image(8, (8_000_000,))
    layer = max(big.blobs, key=lambda digest: len(big.blobs[digest]))
    async with mirror(MemoryMesh()) as holder:
        await holder.hold(big)
        reader, writer = await asyncio.open_connection(holder.host, holder.port)
        writer.write(f"GET /v2/a/blobs/{layer} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        await reader.readuntil(b"\r\n\r\n")
        holder.store.remove(layer)
        assert Digest.of(await reader.readexactly(len(big.blobs[layer]))) == layer
        writer.close()


async def test_requests_that_are_cancelled_leave_no_upload_and_no_request_behind() -> None:
    mesh = MemoryMesh()
    async with mirror(mesh) as asker, scripted_peer(mesh, never_answers) as requests:
        for _ in range(5):
            reader, writer = await asyncio.open_connection(asker.host, asker.port)
            writer.write(f"GET {PATH} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
            await eventually(lambda: requests, what="the peer was asked")
            writer.transport.abort()
            del reader
        await eventually(
            lambda: asker.sample("http_requests_inflight") == 0, timeout_seconds=10, what="no request is open"
        )


async def test_a_mirror_whose_store_fails_asks_peers() -> None:
    mesh = MemoryMesh()
    async with mirror(mesh) as holder, mirror(mesh) as asker:
        await holder.hold(IMAGE, NAME)
        asker.store.available = False
        assert (await ask(asker, PATH))[2] == DATA
        holder.store.available = False
        assert (await ask(asker, PATH))[0] == 404


async def test_fifty_stale_records_cost_fifty_round_trips() -> None:
    mesh = MemoryMesh()
    async with mirror(mesh) as holder, mirror(mesh) as asker, scripted_peer(mesh, refuses) as requests:
        await holder.hold(IMAGE, NAME)
        (stale, *_) = mesh.records[str(LAYER)]
        others = [PeerInfo(Identity.generate().peer_id, stale.addresses) for _ in range(49)]
        mesh.records[str(LAYER)] = {stale: None, **dict.fromkeys(others), **mesh.records[str(LAYER)]}
        assert (await ask(asker, PATH))[::2] == (200, DATA)
        assert len(requests) >= 50


@pytest.mark.parametrize("is_whole", [True, False], ids=["serves", "has lost it"])
async def test_others_are_searched_for_where_the_known_holder_does_not_serve(
    monkeypatch: pytest.MonkeyPatch, *, is_whole: bool
) -> None:
    """A search asks all nodes of a small region: it must not begin where nobody needs it."""
    mesh, searches = MemoryMesh(), 0
    known = list[PeerInfo]()
    monkeypatch.setattr(MemoryRouter, "known_providers", lambda self, key: known)

    async def search(self: MemoryRouter, key: str, *, timeout_seconds: float) -> AsyncIterator[PeerInfo]:
        nonlocal searches
        searches += 1
        for peer in self._mesh.records.get(key, ()):
            yield peer

    monkeypatch.setattr(MemoryRouter, "find_providers", search)
    monkeypatch.setattr(peer_race, "KNOWN_FIRST_SECONDS", 30.0)
    async with mirror(mesh) as first, mirror(mesh) as other, mirror(mesh, fetch=AS_IT_COMES) as asker:
        await (first if is_whole else other).hold(IMAGE, NAME)
        known.append(first.router.local)
        started = asyncio.get_running_loop().time()
        assert (await ask(asker, PATH))[::2] == (200, DATA)
        assert asyncio.get_running_loop().time() - started < 10
        assert searches == (0 if is_whole else 1)


async def test_holders_that_turn_up_during_a_transfer_are_found_after_a_break() -> None:
    mesh = MemoryMesh()
    async with mirror(mesh) as late, mirror(mesh, fetch=AS_IT_COMES) as asker:

        async def turns_up(headers: dict[str, str], writer: asyncio.StreamWriter) -> None:
            await late.hold(IMAGE, NAME)
            await dies_after(30_000, headers, writer)

        async with scripted_peer(mesh, turns_up):
            assert (await ask(asker, PATH))[::2] == (200, DATA)
        assert late.sample("speil_served_bytes_total", client="peer") == len(DATA) - 30_000


async def test_a_peer_that_crawls_is_replaced_at_the_same_offset(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pace, "PIECE_SECONDS_MAX", 0.3)

    async def crawls(headers: dict[str, str], writer: asyncio.StreamWriter) -> None:
        writer.write(head() + DATA[:1000])
        for position in range(1000, len(DATA), 10):
            await asyncio.sleep(0.02)
            writer.write(DATA[position : position + 10])

    mesh = MemoryMesh()
    async with mirror(mesh) as holder, mirror(mesh, fetch=AS_IT_COMES) as asker:
        await holder.hold(IMAGE, NAME)
        async with scripted_peer(mesh, crawls):
            assert (await ask(asker, PATH))[::2] == (200, DATA)
        assert asker.sample("speil_resumed_transfers_total") == 1


async def test_silent_peers_are_waited_for_twice_and_then_left_alone_for_a_while() -> None:
    mesh, loop = MemoryMesh(), asyncio.get_running_loop()
    async with mirror(mesh) as asker, scripted_peer(mesh, never_answers) as requests:
        for count in (1, 2):  # once may be our own overload
            started = loop.time()
            assert (await ask(asker, PATH))[0] == 404
            assert loop.time() - started >= FIRST_BYTE_SECONDS_MAX
            assert len(requests) == count
        assert (await ask(asker, PATH))[0] == 404
        assert len(requests) == 2, "it was not asked again"


async def test_a_search_that_fails_is_a_miss(monkeypatch: pytest.MonkeyPatch) -> None:
    async def fails(self: MemoryRouter, key: str, *, timeout_seconds: float) -> AsyncIterator[PeerInfo]:
        if key:
            raise RuntimeError("the table is on fire")
        yield peer_at("127.0.0.1", 1)

    async with mirror(MemoryMesh()) as asker:
        monkeypatch.setattr(MemoryRouter, "find_providers", fails)
        assert (await ask(asker, PATH))[0] == 404


# --- clients that hang up ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("reset", [False, True], ids=["FIN", "RST"])
async def test_a_client_that_hangs_up_is_nobodys_failure(reset: bool, caplog: pytest.LogCaptureFixture) -> None:
    big = random_image(9, (20_000_000,))
    layer = max(big.blobs, key=lambda digest: len(big.blobs[digest]))
    request = f"GET /v2/a/blobs/{layer} HTTP/1.1\r\nHost: x\r\nUser-Agent: containerd/2\r\nRange: bytes=0-\r\n\r\n"
    mesh = MemoryMesh()
    async with mirror(mesh) as holder, mirror(mesh) as asker:
        await holder.hold(big)
        for turn in range(3):
            reader, writer = await asyncio.open_connection(asker.host, asker.port)
            writer.write(request.encode())
            first = await reader.readuntil(b"\r\n\r\n")
            assert first.startswith(b"HTTP/1.1 200 "), "one stream, which is repaired after a break"
            await reader.readexactly(1 << 20)
            writer.transport.abort() if reset else writer.close()
            await eventually(
                functools.partial(_ended, asker, "499", turn + 1), timeout_seconds=10, what="the request has ended"
            )
        (peer,) = mesh.records[str(layer)]
        assert asker.known.health.record(peer.peer_id) == PeerRecord(first_byte_seconds=ANY)
        assert asker.sample("spegel_mirror_requests_total", cache="miss") == 0
        await eventually(lambda: holder.sample("http_requests_inflight") == 0, timeout_seconds=10, what="all is let go")
        assert not [record for record in caplog.records if record.levelno >= logging.WARNING]
        assert not asker.known.trust.unsettled, "it did not get it all: no suspicion"


def _ended(asker: Mirror, code: str, count: int) -> bool:
    return asker.sample("http_request_duration_seconds_count", code=code) == count
