"""Answers prove themselves: what has no proof, or one of another answer, is no answer, and others are asked."""

from __future__ import annotations

import asyncio
import base64
import re
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from secrets import token_hex

import pytest

from speil.border.secret_file import SecretFile
from speil.mirror import open_requests
from speil.multiformats.multiaddr import Multiaddr
from speil.multiformats.peer_info import PeerInfo
from speil.oci.digest import Digest
from speil.oci.endpoint import Content
from speil.region.policy import Layer, Policy
from speil.region.proof import bound, proves
from speil.region.token import Request, sign_node, sign_request
from speil.routing.memory import MemoryMesh
from speil.sources.peer_error import PeerError
from speil.testing.images import random_image
from tests.shell.mirrors import Mirror, mirror
from tests.shell.test_border import kept_out
from tests.shell.test_mirror_answers import DATA, IMAGE, INDEX, LAYER, NAME, UNKNOWN, ask
from tests.shell.test_mirror_faults import head, scripted_peer

POLICY = Policy("a", unsaid=False)
BLOB, MANIFEST = f"/v2/lab/app/blobs/{LAYER}?ns=reg.test", f"/v2/lab/app/manifests/{INDEX}?ns=reg.test"
TAG, NOTHING = "/v2/lab/app/manifests/1?ns=reg.test", f"/v2/lab/app/blobs/{UNKNOWN}?ns=reg.test"
KEYS = (str(LAYER), INDEX, NAME)
OTHER_IMAGE = random_image(77)


@pytest.fixture
def secret(tmp_path: Path) -> SecretFile:
    return secret_of(tmp_path / "secret", "the secret of the region")


def secret_of(path: Path, *lines: str) -> SecretFile:
    path.write_text("\n".join(lines))
    return SecretFile(path, "a")


def node_headers(secret: SecretFile) -> dict[str, str]:
    """What containerd shows at a node that does not know its name."""

    return {"X_Speil_Node_Token": sign_node(secret.secret.node_keys[0], "n", int(time.time()))}


# --- what our answers carry -----------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize(
    ("path", "wanted", "status"),
    [
        (BLOB, "", 200),
        (MANIFEST, "", 200),
        (TAG, "", 200),
        ("/v2/", "", 200),
        (BLOB, "bytes=5-9", 206),
        (NOTHING, "", 404),
        ("/v2/lab/app/blobs/x", "", 404),
        (BLOB, f"bytes={len(DATA)}-", 416),
        (BLOB, "busy", 503),
    ],
)
async def test_every_answer_to_a_peer_carries_its_proof(
    secret: SecretFile, method: str, path: str, wanted: str, status: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    if wanted == "busy":
        monkeypatch.setattr(open_requests, "REQUESTS_MAX", 0)
        wanted = ""
    async with mirror(MemoryMesh(), policy=POLICY, secret=secret, zone="z") as holder:
        await holder.hold(IMAGE, NAME)
        request = Request(method, path, str(holder.router.local.peer_id), wanted)
        keys = secret.secret.peers
        token = sign_request(keys.requests[0], request, issued=int(time.time()), nonce=token_hex(8))
        told = {"X_Spegel_Mirrored": "true", "X_Speil_Region": "a", "X_Speil_Token": token}
        found, headers, _ = await ask(holder, path, method, **told, **({"Range": wanted} if wanted else {}))
        assert found == status
        covered = bound(headers.items())
        assert proves(keys.answers, headers["X-Speil-Proof"], token, status, covered)
        if path == TAG:
            assert {"docker-content-digest", "content-type", "x-speil-images", "x-speil-region", "x-speil-zone"} <= set(
                covered
            )
        assert "X-Speil-Proof" not in (await ask(holder, path, method, **told))[1], "the token is used: no proof of it"
        assert "X-Speil-Proof" not in (await ask(holder, path, method, **node_headers(secret)))[1], "a client asked"


async def test_a_range_that_the_token_does_not_name_is_refused(secret: SecretFile) -> None:
    async with mirror(MemoryMesh(), policy=POLICY, secret=secret) as holder:
        await holder.hold(IMAGE, NAME)
        for signed, sent in (("", "bytes=0-0"), ("bytes=0-0", ""), ("bytes=0-0", "bytes=0-1")):
            request = Request("GET", BLOB, str(holder.router.local.peer_id), signed)
            token = sign_request(secret.secret.peer_keys[0], request, issued=int(time.time()), nonce=token_hex(8))
            told = {"X_Spegel_Mirrored": "true", "X_Speil_Region": "a", "X_Speil_Token": token}
            status, _, body = await ask(holder, BLOB, **told, **({"Range": sent} if sent else {}))
            assert (status, body) == (404, b"")
        assert kept_out(holder, Layer.TOKEN) == 3


async def test_any_byte_in_a_request_line_is_a_miss_and_no_error(secret: SecretFile) -> None:
    async with mirror(MemoryMesh(), policy=POLICY, secret=secret) as holder:
        for raw in (b"\xff\xfe", b"\xc3\x28", b"%00", b"a" * 3000):
            reader, writer = await asyncio.open_connection(holder.host, holder.port)
            token = f"{int(time.time())}.{token_hex(8)}.{'0' * 64}".encode()
            writer.write(
                b"GET /v2/lab/" + raw + b" HTTP/1.1\r\nHost: x\r\nX-Spegel-Mirrored: true\r\nX-Speil-Region: a\r\n"
                b"X-Speil-Token: " + token + b"\r\nRange: \xff\r\nConnection: close\r\n\r\n"
            )
            assert (await reader.read()).split(b" ")[1] in (b"404", b"400")
            writer.close()
            await writer.wait_closed()


# --- what we take ---------------------------------------------------------------------------------------------

Change = Callable[[bytes], bytes]  # of an answer's head


def _set(name: str, value: str) -> Change:
    def change(data: bytes) -> bytes:
        lines = [line for line in data.split(b"\r\n") if not line.lower().startswith(name.lower().encode() + b":")]
        return b"\r\n".join([lines[0], *([f"{name}: {value}".encode()] if value else []), *lines[1:]])

    return change


CHANGES: dict[str, Change] = {
    "no proof": _set("X-Speil-Proof", ""),
    "a wrong proof": _set("X-Speil-Proof", "0" * 64),
    "no hex": _set("X-Speil-Proof", "é"),
    "a status": lambda data: data.replace(b" 200 ", b" 404 ", 1),
    "the digest": _set("Docker-Content-Digest", str(OTHER_IMAGE.index.digest)),
    "the length": lambda data: re.sub(rb"Content-Length: \d+", b"Content-Length: 3", data, count=1),
    "the type": _set("Content-Type", "application/vnd.docker.distribution.manifest.v2+json"),
    "a range": _set("Content-Range", "bytes 0-4/5"),
    "an encoding": _set("Content-Encoding", "gzip"),
    "busy": _set("Retry-After", "60"),
    "the images": _set("X-Speil-Images", "linux/amd64=sha256:" + "0" * 64),
    "the region": _set("X-Speil-Region", ""),
    "a zone": _set("X-Speil-Zone", "here"),
    "a label": _set("X-Speil-Topology-Region", "eu"),
}


@asynccontextmanager
async def between(mesh: MemoryMesh, holder: Mirror, change: Change) -> AsyncIterator[PeerInfo]:
    """Somebody who has the holder's address, passes requests on to it, and changes the heads of its answers."""
    writers: list[asyncio.StreamWriter] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.append(writer)
        try:
            while True:
                request = await reader.readuntil(b"\r\n\r\n")
                up, down = await asyncio.open_connection(holder.host, holder.port)
                writers.append(down)
                down.write(request.replace(b"\r\nHost", b"\r\nConnection: close\r\nHost", 1))
                answer = await up.read()
                found, _, body = answer.partition(b"\r\n\r\n")
                writer.write(change(found.replace(b"\r\nConnection: close", b"", 1)) + b"\r\n\r\n" + body)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    host, port = server.sockets[0].getsockname()[:2]
    peer = PeerInfo(holder.router.local.peer_id, (Multiaddr.of_tcp(host, port),))
    for key in mesh.records:
        mesh.records[key] = {peer: None}
    try:
        yield peer
    finally:
        server.close()
        for writer in writers:
            writer.close()


@pytest.mark.parametrize("changed", ["nothing", *CHANGES])
@pytest.mark.parametrize("path", [TAG, MANIFEST, BLOB])
async def test_whatever_is_changed_on_the_way_breaks_the_proof(
    secret: SecretFile, changed: str, path: str, caplog: pytest.LogCaptureFixture
) -> None:
    mesh = MemoryMesh()
    async with AsyncExitStack() as stack:
        holder, asker = [await stack.enter_async_context(mirror(mesh, policy=POLICY, secret=secret)) for _ in range(2)]
        await holder.hold(IMAGE, NAME)
        await stack.enter_async_context(between(mesh, holder, CHANGES.get(changed, lambda data: data)))
        status, headers, body = await ask(asker, path, **node_headers(secret))
        if changed == "nothing":
            assert status == 200
            assert Digest.parse(headers["Docker-Content-Digest"]).matches(body)
            assert kept_out(asker, Layer.ANSWER) == 0
        else:
            assert status == 404
            assert kept_out(asker, Layer.ANSWER) >= 1
            lines = [record for record in caplog.records if record.message == "kept out of the region"]
            assert len(lines) == 1, "one line for many"


async def test_who_has_the_address_of_a_member_that_ended_is_passed_over(secret: SecretFile) -> None:
    mesh, evil = MemoryMesh(), OTHER_IMAGE.index.digest

    async def poisons(headers: dict[str, str], writer: asyncio.StreamWriter) -> None:
        line = head(200, len(OTHER_IMAGE.blobs[evil])).replace(str(LAYER).encode(), str(evil).encode())
        writer.write(line.replace(b"\r\n\r\n", b"\r\nX-Speil-Region: a\r\n\r\n") + OTHER_IMAGE.blobs[evil])

    async with (
        mirror(mesh, policy=POLICY, secret=secret) as holder,
        mirror(mesh, policy=POLICY, secret=secret) as asker,
        scripted_peer(mesh, poisons, *KEYS) as requests,
    ):
        assert (await ask(asker, TAG, **node_headers(secret)))[0] == 404
        assert requests
        assert all(one["Authorization"] == "Basic Og==" for one in requests)
        assert kept_out(asker, Layer.ANSWER) >= 1
        await holder.hold(IMAGE, NAME)
        status, headers, _ = await ask(asker, TAG, **node_headers(secret))
        assert (status, headers["Docker-Content-Digest"]) == (200, INDEX), "an honest holder counts all the same"


@pytest.mark.parametrize("status", [200, 404, 416, 503, 500])
async def test_an_answer_without_a_proof_is_none_whatever_it_says(secret: SecretFile, status: int) -> None:
    mesh = MemoryMesh()

    async def says(headers: dict[str, str], writer: asyncio.StreamWriter) -> None:
        writer.write(head(status, 0, Content_Range="bytes */3", Retry_After="60", X_Speil_Region="a"))

    async with mirror(mesh, policy=POLICY, secret=secret) as asker, scripted_peer(mesh, says) as requests:
        (peer,) = mesh.records[str(LAYER)]
        with pytest.raises(PeerError) as caught:
            await asker.built.sources.access.request_head(Content("blobs", "reg.test", "lab/app", LAYER), peer, 5.0)
        assert caught.value.outcome == "bad_answer"
        assert "prove" in str(caught.value)
        assert len(requests) == 1


@pytest.mark.parametrize(
    ("holds", "asks"), [(("old",), ("old", "new")), (("old", "new"), ("new", "old")), (("new", "old"), ("old",))]
)
async def test_while_a_secret_is_rotated_both_keys_prove(
    tmp_path: Path, holds: tuple[str, ...], asks: tuple[str, ...]
) -> None:
    files = [
        secret_of(tmp_path / name, *(f"the {line} secret of the region" for line in lines))
        for name, lines in (("holds", holds), ("asks", asks))
    ]
    mesh = MemoryMesh()
    async with (
        mirror(mesh, policy=POLICY, secret=files[0]) as holder,
        mirror(mesh, policy=POLICY, secret=files[1]) as asker,
    ):
        await holder.hold(IMAGE, NAME)
        for path in (TAG, BLOB):
            assert (await ask(asker, path, **node_headers(files[1])))[0] == 200
        assert kept_out(asker, Layer.ANSWER) == 0


# --- basic auth between nodes ---------------------------------------------------------------------------------


def credentials(directory: Path, password: str = "a password that is long") -> Path:
    directory.mkdir(exist_ok=True)
    (directory / "username").write_text("mesh")
    (directory / "password").write_text(password)
    return directory


def auth_of(password: str = "a password that is long") -> dict[str, str]:
    return {"Authorization": "Basic " + base64.b64encode(f"mesh:{password}".encode()).decode()}


@pytest.mark.parametrize("has_secret", [True, False])
async def test_nodes_with_the_same_basic_auth_share_and_never_send_it(
    tmp_path: Path, secret: SecretFile, has_secret: bool
) -> None:
    mesh, used = MemoryMesh(), secret if has_secret else None
    shown = auth_of() | (node_headers(secret) if has_secret else {})
    async with AsyncExitStack() as stack:
        holder, asker = [
            await stack.enter_async_context(
                mirror(mesh, policy=POLICY, secret=used, basic_auth_dir=credentials(tmp_path / "auth"))
            )
            for _ in range(2)
        ]
        stolen = await stack.enter_async_context(scripted_peer(mesh, lambda headers, writer: _spegel(writer), *KEYS))
        assert (await ask(asker, TAG, **shown))[0] == 404
        await holder.hold(IMAGE, NAME)
        for path in (TAG, MANIFEST, BLOB):
            assert (await ask(asker, path, **shown))[0] == 200
        assert (await ask(asker, BLOB, Range="bytes=3-9", **shown))[2] == DATA[3:10]
        assert kept_out(asker, Layer.ANSWER) >= 1
        assert stolen
        assert all(one["Authorization"] == "Basic Og==" for one in stolen), "nobody is sent the password"
        if not has_secret:
            peer = {"X_Spegel_Mirrored": "true", "X_Speil_Region": "a"}
            assert (await ask(holder, BLOB, **peer, **auth_of()))[0] == 200, "a Spegel that shows it is served"
            assert (await ask(holder, BLOB, **peer))[0] == 401
            assert (await ask(holder, BLOB))[0] == 401
            assert kept_out(holder, Layer.TOKEN) == 0


async def _spegel(writer: asyncio.StreamWriter) -> None:
    writer.write(head() + DATA)


async def test_nodes_with_other_credentials_share_nothing_and_it_is_told(tmp_path: Path) -> None:
    mesh = MemoryMesh()
    async with (
        mirror(mesh, policy=POLICY, basic_auth_dir=credentials(tmp_path / "one")) as holder,
        mirror(mesh, policy=POLICY, basic_auth_dir=credentials(tmp_path / "two", "another password")) as asker,
    ):
        await holder.hold(IMAGE, NAME)
        assert (await ask(asker, BLOB, **auth_of("another password")))[0] == 404
        assert kept_out(holder, Layer.TOKEN) >= 1
        assert kept_out(asker, Layer.ANSWER) >= 1


# --- tags without a secret ------------------------------------------------------------------------------------


@pytest.mark.parametrize("liars", [1, 3, 8])
async def test_without_a_secret_one_holder_who_disagrees_is_enough(liars: int) -> None:
    mesh = MemoryMesh()
    async with AsyncExitStack() as stack:
        asker, honest, *others = [await stack.enter_async_context(mirror(mesh)) for _ in range(2 + liars)]
        for other in others:
            await other.hold(OTHER_IMAGE, NAME)  # first, and quick
        await honest.hold(IMAGE, NAME)
        assert (await ask(asker, TAG))[0] == 404
        assert asker.sample("speil_tag_answers_total", outcome="disagreement") == 1
