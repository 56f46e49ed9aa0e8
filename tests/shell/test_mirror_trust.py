"""Peers that send wrong bytes: small content is never passed on wrong, large content not twice."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

import pytest

from speil.fetch import trust as trust_module
from speil.fetch.pace import STALL_SECONDS_MAX
from speil.fetch.settings import FetchSettings
from speil.fetch.trust import PeerTrust
from speil.oci.media_type import OCI_INDEX
from speil.routing.memory import MemoryMesh
from speil.sources import verified as verified_module
from speil.sources import verify as verify_module
from speil.testing.eventually import eventually
from tests.shell.mirrors import Mirror, mirror
from tests.shell.test_mirror_answers import CONTAINERD, DATA, IMAGE, INDEX, LAYER, NAME, ask
from tests.shell.test_mirror_faults import AS_IT_COMES, PATH, Script, head, scripted_peer

MANIFEST = IMAGE.blobs[IMAGE.index.digest]
MANIFEST_PATH = f"/v2/lab/app/manifests/{INDEX}"
GARBAGE = bytes(len(DATA))
DEFAULT = FetchSettings()


def sends(body: bytes, *, digest: str = str(LAYER), kind: str = "application/octet-stream") -> Script:
    """A peer that answers at once, with ranges as it should, and with these bytes."""

    async def script(headers: dict[str, str], writer: asyncio.StreamWriter) -> None:
        start = int(headers.get("Range", "bytes=0-").removeprefix("bytes=").partition("-")[0])
        lines = f"Content-Length: {len(body) - start}\r\nContent-Type: {kind}\r\nDocker-Content-Digest: {digest}\r\n"
        if "Range" in headers:
            lines = f"HTTP/1.1 206 X\r\nContent-Range: bytes {start}-{len(body) - 1}/{len(body)}\r\n{lines}\r\n"
        else:
            lines = f"HTTP/1.1 200 X\r\n{lines}\r\n"
        writer.write(lines.encode() + body[start:])

    return script


@dataclass
class Region:
    """A holder, an asker, and a liar that is asked first for the layer."""

    holder: Mirror
    asker: Mirror
    asked: list[dict[str, str]]  # the liar


@asynccontextmanager
async def region(
    script: Script, *keys: str, holds: bool = True, fetch: FetchSettings = DEFAULT
) -> AsyncIterator[Region]:
    mesh = MemoryMesh()
    async with AsyncExitStack() as stack:
        holder = await stack.enter_async_context(mirror(mesh))
        asker = await stack.enter_async_context(mirror(mesh, fetch=fetch))
        if holds:
            await holder.hold(IMAGE, NAME)
        yield Region(holder, asker, await stack.enter_async_context(scripted_peer(mesh, script, *keys)))


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


# --- small content --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("garbage", [GARBAGE, DATA[:-1], DATA + b"x", b"", DATA[::-1]], ids=len)
async def test_a_liar_costs_nothing_where_the_blob_is_small(garbage: bytes, caplog: pytest.LogCaptureFixture) -> None:
    async with region(sends(garbage)) as lab:
        for _ in range(2):
            assert (await ask(lab.asker, PATH, **CONTAINERD))[::2] == (200, DATA)
        assert len(lab.asked) == 1, "it is not asked again"
        assert lab.asker.sample("speil_peer_bans_total") == 1
        (record,) = [one for one in caplog.records if one.getMessage() == "a peer sent wrong bytes: banned"]
        assert record.fields["hosts"] == "127.0.0.1"  # type: ignore[attr-defined]


async def test_where_there_are_liars_only_it_is_a_miss() -> None:
    async with region(sends(GARBAGE), holds=False) as lab:
        assert (await ask(lab.asker, PATH, **CONTAINERD))[::2] == (404, b"")
        assert (await ask(lab.asker, PATH, **CONTAINERD))[::2] == (404, b"")
        assert len(lab.asked) == 1


async def test_a_part_of_a_small_blob_is_verified_too() -> None:
    async with region(sends(GARBAGE)) as lab:
        status, headers, body = await ask(lab.asker, PATH, Range="bytes=1000-1999")
        assert (status, body) == (206, DATA[1000:2000])
        assert headers["Content-Range"] == f"bytes 1000-1999/{len(DATA)}"
        status, headers, body = await ask(lab.asker, PATH, Range="bytes=-7")
        assert (status, body) == (206, DATA[-7:])


@pytest.mark.parametrize("method", ["GET", "HEAD"])
async def test_what_a_liar_says_of_a_manifest_is_not_passed_on(method: str) -> None:
    wrong = MANIFEST.replace(b"amd64", b"amd46") + b" "
    async with region(sends(wrong, digest=INDEX, kind=OCI_INDEX), INDEX) as lab:
        status, headers, body = await ask(lab.asker, MANIFEST_PATH, method)
        assert (status, headers["Content-Length"], headers["Content-Type"]) == (200, str(len(MANIFEST)), OCI_INDEX)
        assert body == (MANIFEST if method == "GET" else b"")
        assert lab.asked


async def test_a_tag_is_what_its_digest_says_and_is_asked_of_nobody_where_tags_are_not_resolved() -> None:
    path = "/v2/lab/app/manifests/1?ns=reg.test"
    async with region(sends(MANIFEST[:-1] + b" }", digest=INDEX, kind=OCI_INDEX), NAME) as lab:
        assert (await ask(lab.asker, path))[::2] == (200, MANIFEST)
        assert lab.asked
    mesh = MemoryMesh()
    async with (
        mirror(mesh, resolve_tags=False) as asker,
        scripted_peer(mesh, sends(MANIFEST, digest=INDEX, kind=OCI_INDEX), NAME) as asked,
    ):
        assert (await ask(asker, path))[0] == 404
        assert (await ask(asker, path, "HEAD"))[0] == 404
        assert not asked


async def test_a_small_blob_that_stalls_half_way_comes_from_another_soon() -> None:
    async def stalls(headers: dict[str, str], writer: asyncio.StreamWriter) -> None:
        writer.write(head() + DATA[:1000])
        await asyncio.Event().wait()

    async with region(stalls) as lab:
        started = asyncio.get_running_loop().time()
        assert (await ask(lab.asker, PATH))[::2] == (200, DATA)
        assert asyncio.get_running_loop().time() - started < STALL_SECONDS_MAX


async def test_memory_for_verification_is_bounded_and_given_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verify_module, "VERIFY_STALL_SECONDS_MAX", 10.0)
    monkeypatch.setattr(verify_module, "VERIFY_SECONDS_MAX", 10.0)

    async def hangs(headers: dict[str, str], writer: asyncio.StreamWriter) -> None:
        writer.write(head() + DATA[:1000])
        await eventually(lambda: go_on.is_set(), timeout_seconds=10, what="the test lets it continue")
        writer.write(DATA[1000:])

    go_on = asyncio.Event()
    other = next(digest for digest in IMAGE.blobs if len(IMAGE.blobs[digest]) in range(40_000, 100_000))
    async with region(hangs, fetch=FetchSettings(verify_memory_max=len(DATA))) as lab:
        async with asyncio.TaskGroup() as group:
            first = group.create_task(ask(lab.asker, PATH))
            await eventually(lambda: lab.asked, what="the first is being read")
            status, _, body = await ask(lab.asker, f"/v2/lab/app/blobs/{other}", **CONTAINERD)
            assert (status, body) == (404, b""), "no memory: the upstream has it"
            go_on.set()
        assert first.result()[2] == DATA
        assert lab.asker.known.verified.taken == 0
        assert (await ask(lab.asker, f"/v2/lab/app/blobs/{other}"))[2] == IMAGE.blobs[other]


async def test_all_who_want_a_small_blob_at_once_share_one_verification() -> None:
    async def is_slow(headers: dict[str, str], writer: asyncio.StreamWriter) -> None:
        writer.write(head() + DATA[:-1])
        await asyncio.sleep(0.1)
        writer.write(DATA[-1:])

    async with region(is_slow, holds=False, fetch=FetchSettings(verify_memory_max=len(DATA))) as lab:
        async with asyncio.TaskGroup() as group:
            first = group.create_task(ask(lab.asker, PATH))
            await eventually(lambda: lab.asked, what="the first is being read")
            others = [group.create_task(ask(lab.asker, PATH, **CONTAINERD)) for _ in range(20)]
        assert [task.result()[::2] for task in (first, *others)] == [(200, DATA)] * 21
        assert len(lab.asked) == 1
        await eventually(lambda: lab.asker.known.verified.taken == 0, what="the memory is free again")


async def test_those_who_ask_at_the_same_moment_share_it_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verified_module, "ROOM_SECONDS_MAX", 0.05)

    async def is_slow(headers: dict[str, str], writer: asyncio.StreamWriter) -> None:
        writer.write(head() + DATA[:-1])
        await asyncio.sleep(0.2)
        writer.write(DATA[-1:])

    async with region(is_slow, holds=False, fetch=FetchSettings(verify_memory_max=len(DATA))) as lab:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(ask(lab.asker, PATH, **CONTAINERD)) for _ in range(5)]
        assert [task.result()[::2] for task in tasks] == [(200, DATA)] * 5
        assert len(lab.asked) == 1


async def test_large_content_is_shared_by_nobody_and_waited_for_by_nobody() -> None:
    async def is_slow(headers: dict[str, str], writer: asyncio.StreamWriter) -> None:
        writer.write(head() + DATA[:-1])
        await eventually(lambda: len(lab.asked) == 5, what="all have asked")
        writer.write(DATA[-1:])

    async with region(is_slow, holds=False, fetch=AS_IT_COMES) as lab:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(ask(lab.asker, PATH)) for _ in range(5)]
        assert [task.result()[::2] for task in tasks] == [(200, DATA)] * 5


async def test_when_the_first_verification_fails_those_who_waited_ask_for_themselves() -> None:
    async with region(sends(GARBAGE)) as lab, asyncio.TaskGroup() as group:
        tasks = [group.create_task(ask(lab.asker, PATH, **CONTAINERD)) for _ in range(10)]
        assert [(await task)[2] for task in tasks] == [DATA] * 10


# --- large content --------------------------------------------------------------------------------------------


async def test_a_size_that_the_manifest_contradicts_is_refused_before_the_first_byte() -> None:
    async with region(sends(GARBAGE + b"x"), fetch=AS_IT_COMES) as lab:
        for digest in IMAGE.blobs:
            if "manifest" in IMAGE.media_types[digest]:
                assert (await ask(lab.asker, f"/v2/lab/app/manifests/{digest}"))[0] == 200
        lab.holder.router.withdraw([str(LAYER)])
        assert (await ask(lab.asker, PATH, **CONTAINERD))[::2] == (404, b"")
        assert lab.asked
        assert lab.asker.sample("speil_peer_requests_total", outcome="bad_answer") == 1


async def test_a_range_that_the_manifest_says_is_there_is_not_refused_because_a_liar_says_so() -> None:
    async def refuses_the_range(headers: dict[str, str], writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 416 X\r\nContent-Range: bytes */5\r\nContent-Length: 0\r\n\r\n")

    async with region(refuses_the_range) as lab:
        for digest in IMAGE.blobs:
            if "manifest" in IMAGE.media_types[digest]:
                assert (await ask(lab.asker, f"/v2/lab/app/manifests/{digest}"))[0] == 200
        assert (await ask(lab.asker, PATH, Range="bytes=1000-"))[::2] == (206, DATA[1000:])
        assert lab.asked


async def test_what_was_delivered_wrong_comes_from_a_proven_peer_the_next_time(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with region(sends(GARBAGE), fetch=AS_IT_COMES) as lab:
        assert (await ask(lab.asker, PATH, **CONTAINERD))[::2] == (200, GARBAGE), "nobody could know"
        assert (await ask(lab.asker, MANIFEST_PATH, **CONTAINERD))[2] == MANIFEST  # which proves the holder
        for _ in range(2):
            assert (await ask(lab.asker, PATH, **CONTAINERD))[::2] == (200, DATA)
        assert len(lab.asked) == 1
        assert any("suspect" in line for line in warnings(caplog))


async def test_who_owes_content_that_the_store_did_not_take_in_is_asked_for_no_other(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trust_module, "SETTLE_SECONDS_MAX", 0.2)
    other = next(digest for digest in IMAGE.blobs if len(IMAGE.blobs[digest]) in range(40_000, 100_000))
    async with region(sends(GARBAGE), str(LAYER), str(other), holds=False, fetch=AS_IT_COMES) as lab:
        assert (await ask(lab.asker, PATH, **CONTAINERD))[::2] == (200, GARBAGE)
        await eventually(lambda: lab.asker.sample("speil_missing_content_total") == 1, what="it is missed")
        assert any("is not in the store" in line for line in warnings(caplog))
        assert (await ask(lab.asker, f"/v2/lab/app/blobs/{other}?ns=reg.test", **CONTAINERD))[::2] == (404, b"")
        assert len(lab.asked) == 1


async def test_where_nobody_has_proven_right_the_upstream_is_the_other_source_and_then_anyone_will_do() -> None:
    async with region(sends(GARBAGE), fetch=AS_IT_COMES) as lab:
        assert (await ask(lab.asker, PATH, **CONTAINERD))[::2] == (200, GARBAGE)
        assert (await ask(lab.asker, PATH, **CONTAINERD))[::2] == (404, b"")
        assert (await ask(lab.asker, PATH, **CONTAINERD))[::2] == (200, DATA), "the suspect comes last"


async def test_a_liar_that_is_alone_is_caught_by_its_hash(caplog: pytest.LogCaptureFixture) -> None:
    async with region(sends(GARBAGE), holds=False, fetch=AS_IT_COMES) as lab:
        answers = [(await ask(lab.asker, PATH, **CONTAINERD))[0] for _ in range(4)]
        assert answers == [200, 404, 200, 404]
        assert lab.asker.sample("speil_peer_bans_total") == 1
        assert "a peer sent wrong bytes: banned" in warnings(caplog)


async def test_what_the_store_took_in_raises_no_suspicion_when_it_is_asked_for_again() -> None:
    async with region(sends(DATA), holds=False, fetch=AS_IT_COMES) as lab:
        assert (await ask(lab.asker, PATH, **CONTAINERD))[2] == DATA
        lab.asker.store.put(DATA)
        await eventually(lambda: not lab.asker.known.trust.unsettled, what="the store's news arrived")
        lab.asker.store.remove(LAYER)
        assert (await ask(lab.asker, PATH, **CONTAINERD))[2] == DATA
        assert len(lab.asked) == 2


async def test_a_client_that_keeps_nothing_may_ask_as_often_as_it_likes() -> None:
    async with region(sends(DATA), holds=False, fetch=AS_IT_COMES) as lab:
        for _ in range(3):
            assert (await ask(lab.asker, PATH))[2] == DATA
        assert len(lab.asked) == 3


async def test_a_suspect_is_hashed_whatever_it_sends() -> None:
    async with region(sends(GARBAGE), holds=False, fetch=AS_IT_COMES) as lab:
        (liar,) = lab.asker.router._mesh.records[str(LAYER)]
        trust: PeerTrust = lab.asker.known.trust
        trust.doubt([liar.peer_id], asyncio.get_running_loop().time())
        assert (await ask(lab.asker, PATH))[::2] == (200, GARBAGE)
        assert trust.is_banned(liar.peer_id, asyncio.get_running_loop().time())
