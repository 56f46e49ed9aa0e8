"""The registry port against requests that are HTTP, and hostile: odd paths, registries, ranges and peers' headers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from speil.region.policy import Policy
from speil.routing.memory import MemoryMesh
from speil.testing.images import random_image
from tests.shell.mirrors import Mirror, mirror

IMAGE = random_image(3)
NAME = "docker.io/library/nginx:prod"
LAYER = next(digest for digest in IMAGE.blobs if IMAGE.media_types[digest].endswith("gzip"))
DATA = IMAGE.blobs[LAYER]
MANIFEST = "/v2/library/nginx/manifests/prod?ns=docker.io"
BLOB = f"/v2/library/nginx/blobs/{LAYER}?ns=docker.io"
HEX = str(LAYER).removeprefix("sha256:")
SECONDS_MAX = 30.0
WEST = {"X-Speil-Region": "west"}
PEER = {"X-Spegel-Mirrored": "true"}


@pytest.fixture
async def node() -> AsyncIterator[Mirror]:
    """A node of region west that has the image, and no secret."""
    async with mirror(MemoryMesh(), policy=Policy("west", unsaid=False)) as found:
        await found.hold(IMAGE, NAME)
        yield found


async def ask(
    node: Mirror, target: str, method: str = "GET", headers: dict[str, str] | None = None
) -> tuple[int, dict[str, str], bytes]:
    """Send the target as it stands; status, fields and body of the answer."""
    reader, writer = await asyncio.open_connection(node.host, node.port)
    fields = {"Host": "x", "Connection": "close"} | (headers or {})
    lines = [f"{method} {target} HTTP/1.1", *(f"{name}: {value}" for name, value in fields.items()), "", ""]
    try:
        writer.write("\r\n".join(lines).encode("latin-1"))
        async with asyncio.timeout(SECONDS_MAX):
            head, _, body = (await reader.read()).partition(b"\r\n\r\n")
    finally:
        writer.transport.abort()
    status, *rest = head.decode("latin-1").split("\r\n")
    return int(status.split(" ")[1]), dict(line.split(": ", 1) for line in rest), body


@pytest.mark.parametrize(
    ("target", "status"),
    [
        (MANIFEST, 200),
        (BLOB, 200),
        (f"http://evil{MANIFEST}", 200),  # an absolute target is the same path, whatever host it names
        (f"/v2/library/nginx/blobs/sha256%3a{HEX}", 200),
        ("/v2/?x", 200),
        ("http://169.254.169.254/latest", 404),
        ("/v2/../../etc/passwd", 404),
        ("/v2/a/blobs/sha256:../../secretfile", 404),
        ("/v2/a/blobs/..%2f..%2fsecretfile", 404),
        ("/v2/a/blobs/sha256:%2e%2e/secretfile", 404),
        (f"/v2/a%00b/blobs/{LAYER}", 404),
        (f"/v2/%c3%bc/blobs/{LAYER}", 404),
        (f"/v2//blobs/{LAYER}", 404),
        (f"/v2/./a/../b/blobs/{LAYER}", 404),
        (f"/v2/a/blobs/{LAYER}%00", 404),
        (f"/v2/a/blobs/{LAYER}%0a", 404),
        (f"/v2/a/blobs/{str(LAYER).upper()}", 404),
        ("//v2/", 404),
        ("/V2/", 404),
        ("/debug/state", 404),
        ("/metrics", 404),
        (f"/livez/..{MANIFEST}", 404),
        *(
            (f"/v2/library/nginx/blobs/{LAYER}?ns={ns}", 404)
            for ns in (
                "http://169.254.169.254",
                "a%0ab",
                "..",
                "../../x",
                "a" * 300,
                "%00",
                "%e2%80%ae",
                "docker.io/../evil",
            )
        ),
        # what is not the registry is not asked for: a digest is the same content wherever it comes from
        (f"/v2/library/nginx/blobs/{LAYER}?ns=docker.io&ns=evil", 200),
        (f"/v2/library/nginx/blobs/{LAYER}?ns=d%6fcker.io", 200),
    ],
)
async def test_targets(node: Mirror, target: str, status: int) -> None:
    found, _, body = await ask(node, target)
    assert found == status
    if status == 404:
        assert not body.startswith((DATA[:50], b"root:")), "nothing of the node's disk"


async def test_a_registry_can_not_add_a_header(node: Mirror) -> None:
    _, fields, body = await ask(node, f"{BLOB}%0d%0aX-Injected:%201")
    assert not any("njected" in name for name in fields)
    assert b"X-Injected: 1\r\n" not in body


@pytest.mark.parametrize(
    ("wanted", "status"),
    [
        ("bytes=0-0", 206),
        ("bytes=-99999999999999999", 206),
        (f"bytes={len(DATA) - 1}-", 206),
        ("bytes=0-0,1-1,2-2", 200),
        ("bytes=" + ",".join(f"{number}-{number}" for number in range(300)), 200),
        ("bytes=5-2", 200),
        ("items=0-1", 200),
        ("bytes=0-0\t", 206),
        ("bytes=999999999999999999-", 416),
        ("bytes=99999999999999999999999-", 200),
        ("bytes=-0", 416),
        (f"bytes={len(DATA)}-", 416),
    ],
)
async def test_ranges(node: Mirror, wanted: str, status: int) -> None:
    found, fields, body = await ask(node, BLOB, headers={"Range": wanted})
    assert found == status
    assert len(body) == int(fields["Content-Length"]) <= len(DATA)


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        (PEER | WEST, 200),
        (PEER, 404),
        (PEER | {"X-Speil-Region": "east"}, 404),
        ({"X-Speil-Region": "east"}, 404),
        (WEST, 200),
        ({"X-Speil-Region": "a\tlevel=ERROR msg=owned"} | PEER, 404),
        ({"X-Speil-Region": "w\xe9st"} | PEER, 404),
        ({"X-Speil-Region": "\x1b[2Jevil"} | PEER, 400),
        ({"Authorization": "Basic \xff\xfe"}, 200),
        ({"Host": "evil.example"}, 200),
        ({"Connection": "Upgrade, close", "Upgrade": "websocket"}, 200),
    ],
)
async def test_headers(node: Mirror, headers: dict[str, str], status: int) -> None:
    assert (await ask(node, MANIFEST, headers=headers))[0] == status


@pytest.mark.parametrize("method", ["OPTIONS", "DELETE", "PUT", "POST", "PATCH", "TRACE"])
async def test_methods(node: Mirror, method: str) -> None:
    status, fields, body = await ask(node, BLOB, method)
    assert (status, body, fields["Content-Length"]) == (404, b"", "0")


async def test_head_says_what_get_sends(node: Mirror) -> None:
    for target in (MANIFEST, BLOB):
        status, fields, body = await ask(node, target, "HEAD")
        assert (status, body) == (200, b"")
        assert int(fields["Content-Length"]) == len((await ask(node, target))[2])
