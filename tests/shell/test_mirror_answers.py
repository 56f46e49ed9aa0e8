"""The answers of the registry port, over real sockets."""

from __future__ import annotations

import asyncio
import json
import os
import re
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import aiohttp
import pytest

from speil.http1 import connection as connection_module
from speil.http1.head import HEAD_BYTES_MAX
from speil.oci.media_type import OCI_INDEX
from speil.routing.memory import MemoryMesh
from speil.testing.eventually import eventually
from speil.testing.images import random_image
from tests.shell.mirrors import Mirror, mirror

IMAGE = random_image(1)
NAME = "reg.test/lab/app:1"
INDEX = str(IMAGE.index.digest)
LAYER = next(digest for digest in IMAGE.blobs if IMAGE.media_types[digest].endswith("gzip"))
DATA = IMAGE.blobs[LAYER]
UNKNOWN = "sha256:" + "00" * 32
CONTAINERD = {"User-Agent": "containerd/2.4.2"}


@pytest.fixture
async def one() -> AsyncIterator[Mirror]:
    """A mirror that holds the image."""
    async with mirror(MemoryMesh()) as found:
        await found.hold(IMAGE, NAME)
        yield found


@pytest.fixture
async def two() -> AsyncIterator[tuple[Mirror, Mirror]]:
    """A mirror that holds the image, and an empty one."""
    mesh = MemoryMesh()
    async with AsyncExitStack() as stack:
        holder = await stack.enter_async_context(mirror(mesh))
        asker = await stack.enter_async_context(mirror(mesh))
        await holder.hold(IMAGE, NAME)
        yield holder, asker


async def ask(mirror: Mirror, path: str, method: str = "GET", **headers: str) -> tuple[int, dict[str, str], bytes]:
    """A request; (status, headers, body)."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    async with (
        aiohttp.ClientSession(auto_decompress=False) as session,
        session.request(method, mirror.url + path, headers=named) as response,
    ):
        return response.status, dict(response.headers), await response.read()


# --- from the own store and from a peer: the same answers ----------------------------------------------------


@pytest.fixture(params=["own store", "peer"])
def serving(each_way: str, request: pytest.FixtureRequest, two: tuple[Mirror, Mirror]) -> Mirror:
    """Whoever is asked: the one that holds the image, or the one that gets it from there."""
    holder, asker = two
    return holder if request.param == "own store" else asker


@pytest.mark.parametrize("reference", ["1", INDEX])
async def test_a_manifest_by_tag_and_by_digest(serving: Mirror, reference: str) -> None:
    path = f"/v2/lab/app/manifests/{reference}?ns=reg.test"
    status, headers, body = await ask(serving, path)
    assert (status, body) == (200, IMAGE.blobs[IMAGE.index.digest])
    assert headers["Content-Type"] == OCI_INDEX
    assert headers["Docker-Content-Digest"] == INDEX
    assert headers["OCI-Namespace"] == "reg.test"
    head_status, head, nothing = await ask(serving, path, "HEAD")
    assert (head_status, nothing) == (200, b"")
    assert {name: head[name] for name in head if name != "Date"} == {n: headers[n] for n in headers if n != "Date"}


async def test_a_blob_with_and_without_ns(serving: Mirror) -> None:
    for query in ("", "?ns=reg.test"):
        path = f"/v2/lab/app/blobs/{LAYER}{query}"
        status, headers, body = await ask(serving, path)
        assert (status, body) == (200, DATA)
        assert headers["Content-Type"] == "application/octet-stream"
        assert headers["Content-Length"] == str(len(DATA))
        assert headers["Accept-Ranges"] == "bytes"
        assert "Content-Encoding" not in headers
        _, head, nothing = await ask(serving, path, "HEAD")
        assert nothing == b""
        assert {name: head[name] for name in head if name != "Date"} == {n: headers[n] for n in headers if n != "Date"}


@pytest.mark.parametrize(
    ("wanted", "start", "stop"),
    [
        ("bytes=0-9", 0, 10),
        ("bytes=100-", 100, len(DATA)),
        ("bytes=-7", len(DATA) - 7, len(DATA)),
        (f"bytes=5-{10**9}", 5, len(DATA)),
    ],
)
async def test_one_range(serving: Mirror, wanted: str, start: int, stop: int) -> None:
    status, headers, body = await ask(serving, f"/v2/lab/app/blobs/{LAYER}", Range=wanted)
    assert (status, body) == (206, DATA[start:stop])
    assert headers["Content-Range"] == f"bytes {start}-{stop - 1}/{len(DATA)}"
    assert headers["Content-Length"] == str(stop - start)


@pytest.mark.parametrize("wanted", ["bytes=0-", "bytes=9-1", "bytes=1-2,4-5", "lines=1-2", "nonsense"])
async def test_ranges_that_mean_everything(serving: Mirror, wanted: str) -> None:
    status, headers, body = await ask(serving, f"/v2/lab/app/blobs/{LAYER}", Range=wanted)
    assert (status, len(body)) == (200, len(DATA))
    assert "Content-Range" not in headers


async def test_a_range_behind_the_end(serving: Mirror) -> None:
    status, headers, body = await ask(serving, f"/v2/lab/app/blobs/{LAYER}", Range=f"bytes={len(DATA)}-")
    assert (status, body) == (416, b"")
    assert headers["Content-Range"] == f"bytes */{len(DATA)}"


async def test_a_range_of_a_manifest_is_ignored(serving: Mirror) -> None:
    status, _, body = await ask(serving, f"/v2/lab/app/manifests/{INDEX}", Range="bytes=1-2")
    assert (status, body) == (200, IMAGE.blobs[IMAGE.index.digest])


async def test_a_manifest_is_a_blob_too_and_a_blob_no_manifest(serving: Mirror) -> None:
    status, headers, body = await ask(serving, f"/v2/lab/app/blobs/{INDEX}")
    assert (status, body) == (200, IMAGE.blobs[IMAGE.index.digest])
    assert headers["Content-Type"] == "application/octet-stream"
    assert headers["Docker-Content-Digest"] == INDEX
    for digest, kind in IMAGE.media_types.items():
        if "manifest" not in kind and "index" not in kind:
            assert (await ask(serving, f"/v2/lab/app/manifests/{digest}"))[0] == 404


# --- what is not served --------------------------------------------------------------------------------------


async def test_unknown_digests_by_who_asks(one: Mirror) -> None:
    path = f"/v2/lab/app/blobs/{UNKNOWN}?ns=reg.test"
    status, headers, body = await ask(one, path, **CONTAINERD)
    assert (status, body, headers["Content-Length"]) == (404, b"", "0"), "containerd keeps its connection"
    status, headers, body = await ask(one, path)
    assert (status, headers["Content-Type"]) == (404, "application/json; charset=utf-8".partition(";")[0])
    (error,) = json.loads(body)["errors"]
    assert error["code"] == "BLOB_UNKNOWN"
    assert UNKNOWN in error["message"]
    status, _, body = await ask(one, f"/v2/lab/app/manifests/{UNKNOWN}")
    assert json.loads(body)["errors"][0]["code"] == "MANIFEST_UNKNOWN"


async def test_a_tag_needs_ns(one: Mirror) -> None:
    assert (await ask(one, "/v2/lab/app/manifests/1"))[::2] == (404, b"")
    async with mirror(MemoryMesh(), default_registry="reg.test") as lenient:
        await lenient.hold(IMAGE, NAME)
        assert (await ask(lenient, "/v2/lab/app/manifests/1"))[0] == 200


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "PROPFIND"])
async def test_other_methods_are_an_empty_404(one: Mirror, method: str) -> None:
    for path in (f"/v2/lab/app/blobs/{LAYER}", "/readyz", "/v2/"):
        assert (await ask(one, path, method))[::2] == (404, b"")


@pytest.mark.parametrize(
    "path", ["/", "/v1/", "/v2/lab/app/tags/list", "/v2/../etc/passwd", "/v2/lab/app/blobs/x", "/metrics"]
)
async def test_other_paths_are_an_empty_404(one: Mirror, path: str) -> None:
    assert (await ask(one, path))[::2] == (404, b"")


async def test_filtered_images_registries_that_are_not_mirrored_and_tags_that_may_not_be_resolved() -> None:
    async with mirror(
        MemoryMesh(),
        registry_filters=(re.compile("secret"), re.compile(":latest$")),
        mirrored_registries=("https://reg.test",),
    ) as strict:
        await strict.hold(IMAGE, NAME)
        strict.store.tag("reg.test/lab/app:latest", IMAGE.index.digest)
        assert (await ask(strict, f"/v2/lab/app/blobs/{LAYER}?ns=reg.test"))[0] == 200
        assert (await ask(strict, f"/v2/secret/app/blobs/{LAYER}?ns=reg.test"))[::2] == (404, b"")
        assert (await ask(strict, "/v2/lab/app/manifests/latest?ns=reg.test"))[::2] == (404, b"")
        assert (await ask(strict, f"/v2/lab/app/blobs/{LAYER}?ns=other.test"))[::2] == (404, b"")
    async with mirror(MemoryMesh(), resolve_tags=False) as digests_alone:
        await digests_alone.hold(IMAGE, NAME)
        assert (await ask(digests_alone, "/v2/lab/app/manifests/1?ns=reg.test"))[::2] == (404, b"")
        assert (await ask(digests_alone, f"/v2/lab/app/manifests/{INDEX}?ns=reg.test"))[0] == 200


async def test_what_a_peer_asks_is_answered_from_the_store_alone(two: tuple[Mirror, Mirror]) -> None:
    holder, asker = two
    peer = {"X-Spegel-Mirrored": "true"}
    assert (await ask(holder, f"/v2/lab/app/blobs/{LAYER}", **peer))[0] == 200
    assert (await ask(asker, f"/v2/lab/app/blobs/{LAYER}", **peer))[::2] == (404, b"")
    assert asker.sample("speil_peer_requests_total") == 0


async def test_uploads_above_the_bound_are_sent_elsewhere_and_containerd_is_not() -> None:
    async with mirror(MemoryMesh(), uploads_max=0) as busy:
        await busy.hold(IMAGE, NAME)
        assert (await ask(busy, f"/v2/lab/app/blobs/{LAYER}", **{"X-Spegel-Mirrored": "true"}))[0] == 503
        assert (await ask(busy, f"/v2/lab/app/blobs/{LAYER}"))[0] == 200


async def test_basic_auth_lets_in_who_knows_it_and_challenges_nobody(tmp_path: Path) -> None:
    (tmp_path / "username").write_text("u\n")
    (tmp_path / "password").write_text("p\n")
    mesh = MemoryMesh()
    async with mirror(mesh, basic_auth_dir=tmp_path) as holder, mirror(mesh, basic_auth_dir=tmp_path) as asker:
        await holder.hold(IMAGE, NAME)
        status, headers, body = await ask(asker, "/v2/")
        assert status == 401
        assert "WWW-Authenticate" not in headers
        assert json.loads(body)["errors"][0]["code"] == "UNAUTHORIZED"
        right = {"Authorization": "Basic dTpw"}
        assert (await ask(asker, f"/v2/lab/app/blobs/{LAYER}", **right))[2] == DATA, "peers know it too"
        (tmp_path / "password").write_text("changed")
        os.utime(tmp_path / "password", ns=(1, 1))
        assert (await ask(asker, "/v2/", **right))[0] == 401, "the files are read anew"


async def test_the_probes() -> None:
    async with mirror(MemoryMesh(), ready=False) as waiting:
        assert (await ask(waiting, "/livez"))[0] == 200
        for path in ("/readyz", "/healthz"):
            status, _, body = await ask(waiting, path)
            assert status == 500
            assert b"bootstrap" in body
    async with mirror(MemoryMesh()) as ready:
        for path in ("/livez", "/readyz", "/healthz", "/v2", "/v2/"):
            assert (await ask(ready, path))[::2] == (200, b"")


# --- clients that misbehave ----------------------------------------------------------------------------------


async def raw(mirror: Mirror, data: bytes) -> bytes:
    """Send bytes; all that comes back until the other side closes."""
    reader, writer = await asyncio.open_connection(mirror.host, mirror.port)
    writer.write(data)
    answer = b""
    try:
        async with asyncio.timeout(5):
            while piece := await reader.read(65536):
                answer += piece
    except (ConnectionError, TimeoutError):
        pass
    writer.close()
    return answer


@pytest.mark.parametrize(
    "data",
    [
        b"GET /v2/ HTTP/1.1\r\nHost: x\r\nX: " + b"a" * 20_000 + b"\r\n\r\n",
        b"GET /v2/" + b"a" * 20_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"nonsense\r\n\r\n",
        b"BREW /v2/ HTTP/1.1\r\nHost: x\r\n\r\n",
    ],
)
async def test_what_is_no_request_is_a_400_and_the_end(
    one: Mirror, data: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    answer = await raw(one, data)
    assert answer.startswith((b"HTTP/1.1 400 ", b"HTTP/1.1 431 ") if len(data) > HEAD_BYTES_MAX else b"HTTP/1.1 400 ")
    assert (await ask(one, "/v2/"))[0] == 200
    assert "Traceback" not in capsys.readouterr().err


async def test_a_head_that_does_not_come_is_not_waited_for(monkeypatch: pytest.MonkeyPatch, one: Mirror) -> None:
    monkeypatch.setattr(connection_module, "HEAD_SECONDS_MAX", 0.2)
    assert await raw(one, b"GET /v2/ HT") == b""


@pytest.mark.usefixtures("each_way")
async def test_a_hundred_clients_that_hang_up_leave_nothing_open(two: tuple[Mirror, Mirror]) -> None:
    holder, asker = two
    big = random_image(9, (6_000_000,))
    await holder.hold(big)
    layer = max(big.blobs, key=lambda digest: len(big.blobs[digest]))
    request = f"GET /v2/lab/app/blobs/{layer} HTTP/1.1\r\nHost: x\r\n\r\n".encode()
    before = len(os.listdir("/proc/self/fd"))
    for number in range(100):
        target = holder if number % 2 else asker
        reader, writer = await asyncio.open_connection(target.host, target.port)
        writer.write(request)
        await reader.readexactly(1000)
        writer.transport.abort()
    await eventually(lambda: holder.sample("speil_open_uploads") == 0, what="no upload is left")
    # what is left open are connections between the two that are kept for the next request
    await eventually(lambda: len(os.listdir("/proc/self/fd")) <= before + 10, what="no descriptor is left")
    assert (await ask(asker, f"/v2/lab/app/blobs/{layer}"))[2] == big.blobs[layer]


async def test_metrics_and_the_list_of_recent_requests(two: tuple[Mirror, Mirror]) -> None:
    holder, asker = two
    await ask(asker, f"/v2/lab/app/blobs/{LAYER}?ns=reg.test")
    await ask(asker, f"/v2/lab/app/blobs/{UNKNOWN}?ns=reg.test")
    await ask(holder, f"/v2/lab/app/blobs/{LAYER}?ns=reg.test")
    assert asker.sample("spegel_mirror_requests_total", registry="reg.test", cache="hit") == 1
    assert asker.sample("spegel_mirror_requests_total", registry="reg.test", cache="miss") == 1
    assert holder.sample("spegel_mirror_requests_total") == 0, "what the own store has is not mirrored"
    assert asker.sample("speil_served_bytes_total", source="peer", client="node") == len(DATA)
    assert holder.sample("speil_served_bytes_total", source="store", client="peer") == len(DATA)
    assert holder.sample("speil_served_bytes_total", source="store", client="node") == len(DATA)
    assert asker.sample("http_request_duration_seconds_count", handler="/v2/*", method="GET", code="200") == 1
    assert asker.sample("http_request_duration_seconds_count", handler="/v2/*", method="GET", code="404") == 1
    latest = asker.recent.snapshot()[0]
    assert (latest["key"], latest["source"]) == (UNKNOWN, "none")
