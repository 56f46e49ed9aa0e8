"""The region's secret as an operator uses it: a file, `speil configuration`, nodes, and a rotation without a gap."""

from __future__ import annotations

import asyncio
import json
import time
import tomllib
from pathlib import Path
from secrets import token_hex

import aiohttp
import pytest

from speil.libp2p.identity import Identity
from speil.region.secret import parse
from speil.region.token import Request, sign_node, sign_request
from speil.testing.eventually import eventually
from speil.testing.images import random_image
from tests.shell.nodes import RunningNode, running_node, write_layout
from tests.shell.test_cli import speil

IMAGE, OLD = random_image(21), random_image(22)
LAYER = max(IMAGE.blobs, key=lambda digest: len(IMAGE.blobs[digest]))
TARGET = "http://127.0.0.1:30020"


async def configured(folder: Path, secret: Path) -> dict[str, str]:
    """The headers that `speil configuration` gives containerd for the mirror."""
    certs = folder / "certs.d"
    code, _, err = await speil(
        "configuration", f"--mirror-targets={TARGET}", "--region=a", "--node-name=n1",
        f"--region-secret-file={secret}", f"--containerd-registry-config-path={certs}",
    )  # fmt: skip
    assert code == 0, err
    file = certs / "_default" / "hosts.toml"
    assert file.stat().st_mode & 0o077 == 0, "the token is in it: for root's eyes only"
    headers: dict[str, str] = tomllib.loads(file.read_text())["host"][TARGET]["header"]
    return headers


async def get(node: RunningNode, headers: dict[str, str]) -> tuple[int, bytes, bool]:
    """Status, body, and whether there was a challenge."""
    async with (
        aiohttp.ClientSession() as session,
        session.get(f"{node.url}/v2/app/blobs/{LAYER}?ns=reg.test", headers=headers) as response,
    ):
        return response.status, await response.read(), "WWW-Authenticate" in response.headers


async def test_rotated_without_a_gap_and_nobody_without_it_reads(tmp_path: Path) -> None:
    old, new = token_hex(32), token_hex(32)
    secret, full, empty = tmp_path / "secret", tmp_path / "full", tmp_path / "empty"
    secret.write_text(f"{old}\n")
    await write_layout(full, IMAGE, "reg.test/app:1")
    flags = (f"--region-secret-file={secret}", "--region=a")
    async with running_node(tmp_path, full, *flags, ports=(5000, 5001, 9090)) as holder:
        seed = f"--static-bootstrap-peers=/ip4/{holder.host}/tcp/{holder.router_port}"
        async with running_node(tmp_path, empty, *flags, seed, ports=(5000, 5001, 9090)) as asker:

            async def through_a_peer(headers: dict[str, str]) -> bool:
                return await get(asker, headers) == (200, IMAGE.blobs[LAYER], False)

            first = await configured(tmp_path, secret)
            await eventually(lambda: through_a_peer(first), timeout_seconds=30, what="pulls go through a peer")
            assert await get(holder, {}) == (404, b"", False), "a neighbour pod"
            assert await get(holder, {name: f"{value}0" for name, value in first.items()}) == (404, b"", False)

            secret.write_text(f"{new}\n{old}\n")
            assert await through_a_peer(first), "the old token is still good"
            second = await configured(tmp_path, secret)
            assert second != first
            assert await through_a_peer(second), "and the new one is"

            secret.write_text(f"{new}\n")
            assert await through_a_peer(second)
            assert await get(asker, first) == (404, b"", False), "the old one is not any more"

            secret.write_text("")
            assert await through_a_peer(second), "a file that turned bad leaves the last good secret in force"
            await eventually(
                lambda: "region secret can't be read, keeping the last one" in asker.log.read_text(),
                what="and it is told",
            )
            logs = holder.log.read_text() + asker.log.read_text()
    for word in (old, new, *first.values(), *second.values()):
        assert word not in logs, "no secret and no token is ever logged"


async def test_a_secret_that_cannot_be_used_is_one_line(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    for text, said in (("", "it is empty"), ("short\n", "line 1 has 5 characters"), (None, "No such file")):
        secret.unlink(missing_ok=True)
        if text is not None:
            secret.write_text(text)
        for command in (("registry", "--store-kind=oci-layout", f"--oci-layout-path={tmp_path}"), ("configuration",)):
            targets = () if command[0] == "registry" else (f"--mirror-targets={TARGET}",)
            code, _, err = await speil(*command, *targets, "--region=a", f"--region-secret-file={secret}")
            assert (code, said in err, err.count("\n")) == (2, True, 1), err


@pytest.mark.long
async def test_a_rollout_that_brings_the_secret_in_stops_nowhere_and_fails_no_pull(tmp_path: Path) -> None:
    secret, full, empty = tmp_path / "secret", tmp_path / "full", tmp_path / "empty"
    secret.write_text(f"{token_hex(32)}\n")
    await write_layout(full, IMAGE, "reg.test/app:1")
    ports = (5000, 5001, 9090)
    leased = ("--bootstrap-kind=file", f"--lease-file={tmp_path / 'lease.json'}", "--region=a")
    with_secret = (*leased, f"--region-secret-file={secret}")
    async with running_node(tmp_path, full, *leased, ports=ports) as old:
        await eventually(lambda: "lease acquired" in old.log.read_text(), timeout_seconds=30, what="the old node leads")
        # a DaemonSet's rollout waits until the new pod is ready
        async with running_node(tmp_path, empty, *with_secret, ports=ports) as new:
            told = await configured(tmp_path, secret)
            assert (await get(new, told))[0] == 404, "containerd goes upstream"
            await eventually(lambda: "layer=secret" in old.log.read_text(), what="the old one tells why")

            async def is_served(node: RunningNode) -> bool:
                return await get(node, {}) == (200, IMAGE.blobs[LAYER], False)

            assert await is_served(old), "the node's own content, as before"
            old.process.terminate()
            await old.process.wait()
            async with running_node(tmp_path, full, *with_secret, ports=ports):

                async def meet() -> bool:
                    return await get(new, told) == (200, IMAGE.blobs[LAYER], False)

                await eventually(meet, timeout_seconds=60, what="the region is one again")


def peer_headers(secret: Path, node_dir: Path, *, ahead: int = 0) -> dict[str, str]:
    """What a member would show for LAYER to the node whose data directory this is."""
    keys = parse(secret.read_text(), "a").peer_keys
    target = f"/v2/app/blobs/{LAYER}?ns=reg.test"
    peer_id = Identity.decode((node_dir / "private.key").read_bytes()).peer_id
    request = Request("GET", target, str(peer_id))
    token = sign_request(keys[0], request, issued=int(time.time()) + ahead, nonce=token_hex(8))
    return {"X-Spegel-Mirrored": "true", "X-Speil-Region": "a", "X-Speil-Token": token}


@pytest.mark.long
async def test_a_token_that_was_used_is_used_after_a_restart_too(tmp_path: Path) -> None:
    secret, full, data = tmp_path / "secret", tmp_path / "full", tmp_path / "data"
    secret.write_text(token_hex(32))
    await write_layout(full, IMAGE, "reg.test/app:1")
    flags = (f"--region-secret-file={secret}", "--region=a", f"--data-dir={data}")
    async with running_node(tmp_path, full, *flags) as node:
        # the clock of a peer may be ahead by up to a minute
        tokens = [peer_headers(secret, data, ahead=ahead) for ahead in (0, 1, 5, 55)]
        for token in tokens:
            assert (await get(node, token))[0] == 200
    async with running_node(tmp_path, full, *flags) as node:
        for token in tokens:
            assert await get(node, token) == (404, b"", False)
        node.log.read_text().index("older than this process")
    (data / "tokens.json").write_text("[1")  # a help and never a must
    async with running_node(tmp_path, full, *flags) as node:
        assert (await get(node, peer_headers(secret, data)))[0] == 200, "what is new counts at once"


@pytest.mark.long
async def test_a_node_token_is_for_its_node_and_a_newer_one_replaces_it(tmp_path: Path) -> None:
    secret, full, data = tmp_path / "secret", tmp_path / "full", tmp_path / "data"
    secret.write_text(token_hex(32))
    await write_layout(full, IMAGE, "reg.test/app:1")
    flags = (f"--region-secret-file={secret}", "--region=a")
    keys = parse(secret.read_text(), "a").node_keys
    now = int(time.time())
    old, new, foreign = (
        {"X-Speil-Node-Token": sign_node(keys[0], node, issued)}
        for node, issued in (("n1", now - 10), ("n1", now), ("n2", now))
    )
    async with (
        running_node(tmp_path, full, *flags, "--node-name=n1", f"--data-dir={data}") as node,
        running_node(tmp_path, full, *flags) as nameless,
    ):
        assert (await get(node, await configured(tmp_path, secret)))[0] == 200
        for token in (old, new):
            assert (await get(node, token))[0] == 200, "both within the hour"
        assert await get(node, foreign) == (404, b"", False)
        await eventually(lambda: "that of node n2, and this is node n1" in node.log.read_text(), what="it is told")
        assert (await get(nameless, foreign))[0] == 200
        assert "this node's name is not known" in nameless.log.read_text()
        assert "this node's name is not known" not in node.log.read_text()
    kept = json.loads((data / "node-token.json").read_text())
    (data / "node-token.json").write_text(json.dumps({**kept, "seen": kept["seen"] - 3700}))  # an hour later
    async with running_node(tmp_path, full, *flags, "--node-name=n1", f"--data-dir={data}") as node:
        assert await get(node, old) == (404, b"", False), "a restart makes no old token good"
        newest = await configured(tmp_path, secret)
        assert (await get(node, newest))[0] == 200
    for text in (kept, (data / "tokens.json").read_text() if (data / "tokens.json").exists() else ""):
        assert sign_node(keys[0], "n1", now).rpartition(".")[2] not in str(text), "no token is kept"


@pytest.mark.long
async def test_who_takes_the_address_of_a_member_that_ended_answers_nothing(tmp_path: Path) -> None:
    secret, full, empty = tmp_path / "secret", tmp_path / "full", tmp_path / "empty"
    secret.write_text(token_hex(32))
    await write_layout(full, IMAGE, "reg.test/app:1")
    flags = (f"--region-secret-file={secret}", "--region=a")
    tag = "/v2/app/manifests/1?ns=reg.test"
    asked: list[bytes] = []

    async def poisons(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append(await reader.readuntil(b"\r\n\r\n"))
        body = OLD.blobs[OLD.index.digest]
        lines = ("HTTP/1.1 200 OK", f"Content-Length: {len(body)}", f"Docker-Content-Digest: {OLD.index.digest}",
                 f"Content-Type: {OLD.index.media_type}", "X-Speil-Region: a", "Connection: close", "", "")  # fmt: skip
        writer.write("\r\n".join(lines).encode() + body)
        writer.close()

    async with running_node(tmp_path, empty, *flags, ports=(5000, 5001, 9090)) as asker:
        seed = f"--static-bootstrap-peers=/ip4/{asker.host}/tcp/{asker.router_port}"
        token = await configured(tmp_path, secret)
        async with aiohttp.ClientSession(headers=token) as session:

            async def digest() -> str | None:
                async with session.head(asker.url + tag) as answer:
                    return answer.headers.get("Docker-Content-Digest")

            async with running_node(tmp_path, full, *flags, seed, ports=(5000, 5001, 9090)) as holder:
                await eventually(digest, timeout_seconds=30, what="the tag is answered")
                assert await digest() == str(IMAGE.index.digest)
                holder.process.kill()  # its records live on
                await holder.process.wait()
            async with await asyncio.start_server(poisons, holder.host, 5000):
                assert await digest() is None
                assert asked
        await eventually(lambda: "layer=answer" in asker.log.read_text(), what="it is told")


@pytest.mark.long
async def test_tags_of_peers_that_prove_nothing_are_warned_of_at_start(tmp_path: Path) -> None:
    said, secret, auth = "peers answer tags without proof", tmp_path / "secret", tmp_path / "auth"
    secret.write_text(token_hex(32))
    auth.mkdir()
    (auth / "password").write_text(token_hex(16))
    guarded = ((f"--region-secret-file={secret}",), (f"--basic-auth-dir={auth}",), ("--resolve-tags=false",))
    for flags, is_said in (((), True), *((one, False) for one in guarded)):
        async with running_node(tmp_path, tmp_path / "empty", "--region=a", *flags) as node:
            assert (said in node.log.read_text()) == is_said, flags
