"""Tracing an image: real requests to peers in this process."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest

from speil.fetch.settings import FetchSettings
from speil.mirror.filters import filters
from speil.oci.reference import Reference
from speil.routing.memory import MemoryMesh
from speil.testing.eventually import eventually
from speil.testing.images import random_image
from speil.testing.samples import sample
from speil.trace.document import document
from speil.trace.named import TraceError, parse_reference
from speil.trace.verdict import Source, totals
from speil.web import probe as probe_module
from tests.shell.mirrors import Mirror, mirror, peer_at
from tests.shell.nodes import free_ports
from tests.shell.pages import pages, tracer_of

NAME = "reg.test/app:1"
IMAGE = random_image(3, (4_000_000, 300_000))


@asynccontextmanager
async def two(**changes: Any) -> AsyncIterator[tuple[Mirror, Mirror]]:
    """A holder of the image in zone z1, and a node that has nothing."""
    mesh = MemoryMesh()
    async with mirror(mesh, zone="z1") as holder, mirror(mesh, **changes) as asker:
        await holder.hold(IMAGE, NAME)
        yield holder, asker


async def traced(node: Mirror, image: str = NAME, **options: Any) -> dict[str, Any]:
    return document(await tracer_of(node).trace(parse_reference(image), **options))


async def test_every_part_is_found_with_its_holder() -> None:
    async with two() as (holder, asker):
        found = await traced(asker)
    assert found["tag"]["source"] == "peer"
    assert found["digest"] == str(IMAGE.index.digest)
    kinds = [part["kind"] for part in found["parts"]]
    assert kinds[:3] == ["index", "manifest", "config"]
    assert set(kinds[3:]) == {"layer"}
    for part in found["parts"]:
        assert (part["source"], part["held_here"], part["holders_count"]) == ("peer", False, 1), part
        assert part["peer"]["peer"] == str(holder.router.local.peer_id)
        assert part["peer"]["zone"] == part["holders"][0]["zone"] == "z1"
        assert part["find_seconds"] is not None
        assert part["measured"] is None
    assert found["does"] == "A pull gets all that is missing here from peers, and nothing from the upstream registry."


async def test_a_measuring_pull_stores_nothing_and_counts_no_pull() -> None:
    async with two() as (holder, asker):
        found = await traced(asker, measure=True)
        for part in found["parts"]:
            assert part["measured"]["bytes"] == part["size"] > 0, part
            assert part["measured"]["is_whole"]
            assert part["measured"]["seconds"] >= part["measured"]["first_byte_seconds"] > 0
            assert part["measured"]["bytes_per_second"] > 0
        sent = holder.sample("speil_served_bytes_total", client="peer")
        assert sent >= sum(part["size"] for part in found["parts"])
        for name in ("speil_served_bytes_total", "spegel_mirror_requests_total"):
            assert asker.sample(name) == 0, name
        assert await asker.store.images() == []
        again = await traced(asker)
        assert not any(part["held_here"] for part in again["parts"])
        assert not asker.recent.snapshot()


async def test_a_measuring_pull_takes_a_bounded_part(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probe_module, "MEASURE_BYTES_MAX", 100_000)
    async with two(fetch=FetchSettings(verify_bytes_max=10_000)) as (holder, asker):
        found = await traced(asker, measure=True)
        layers = [part["measured"] for part in found["parts"] if part["kind"] == "layer"]
        assert [(one["bytes"], one["is_whole"], one["error"]) for one in layers] == [(100_000, False, "")] * len(layers)
        assert holder.sample("speil_served_bytes_total", client="peer") < 100_000 * (len(layers) + 1)


async def test_a_node_that_has_the_image_downloads_nothing() -> None:
    async with two() as (holder, _):
        found = await traced(holder)
        assert found["image_here"]
        assert {part["source"] for part in found["parts"]} == {"here"}
        assert "downloads nothing" in found["does"]
        measured = await traced(holder, measure=True)
        assert {part["source"] for part in measured["parts"]} == {"here"}


async def test_what_no_peer_has_comes_from_the_upstream() -> None:
    async with two() as (_, asker):
        found = await traced(asker, "reg.test/other:1")
        assert (found["tag"]["source"], found["parts"], found["digest"]) == ("upstream", [], None)
        assert "no peer found" in found["does"] or "resolved upstream" in found["does"]
        by_digest = await traced(asker, f"reg.test/other@sha256:{5:064x}")
        assert [part["source"] for part in by_digest["parts"]] == ["upstream"]
        assert by_digest["tag"] is None


async def test_a_layer_that_its_holder_lost_comes_from_the_upstream() -> None:
    async with two() as (holder, asker):
        layer = max(IMAGE.blobs, key=lambda digest: len(IMAGE.blobs[digest]))
        holder.store.remove(layer)
        found = await traced(asker, f"reg.test/app@{IMAGE.index.digest}")
        (lost,) = [part for part in found["parts"] if part["digest"] == str(layer)]
        assert (lost["source"], lost["holders_count"]) == ("upstream", 1)
        assert "none of 1 peer with a record of it serves it" in lost["does"]
        assert found["does"].startswith("A pull gets 1 part of")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"mirrored_registries": ("https://docker.io",)}, "--mirrored-registries"),
        ({"registry_filters": filters.parse("reg.test/app")}, "--registry-filters"),
    ],
)
async def test_what_this_node_does_not_serve_is_said_with_the_setting(changes: dict[str, Any], words: str) -> None:
    async with two(**changes) as (holder, asker):
        found = await traced(asker, f"reg.test/app@{IMAGE.index.digest}")
        assert words in found["refusal"]
        assert words in found["does"]
        assert {part["source"] for part in found["parts"]} == {"upstream"}
        assert holder.sample("speil_served_bytes_total", client="peer") == 0


async def test_tags_that_are_not_answered_do_not_keep_the_layers_from_peers() -> None:
    async with two(resolve_tags=False) as (_, asker):
        found = await traced(asker)
        assert found["tag"]["source"] == "upstream"
        assert "--resolve-tags=false" in found["tag"]["does"]
        trace = await tracer_of(asker).trace(Reference.parse(f"reg.test/app@{IMAGE.index.digest}"))
        assert totals(trace)[Source.PEER].parts == len(trace.parts)


@pytest.mark.parametrize(
    ("text", "reference"),
    [
        ("busybox", "docker.io/library/busybox:latest"),
        ("grafana/grafana:1", "docker.io/grafana/grafana:1"),
        ("localhost/x", "localhost/x:latest"),
        (" reg.test:5000/a/b ", "reg.test:5000/a/b:latest"),
        (f"reg.test/a@sha256:{1:064x}", f"reg.test/a@sha256:{1:064x}"),
    ],
)
def test_images_are_named_as_people_write_them(text: str, reference: str) -> None:
    assert str(parse_reference(text)) == reference


@pytest.mark.parametrize("text", ["", "  ", "<script>alert(1)</script>", "reg.test/UPPER", "a" * 5000, "x:y:z", "a\nb"])
def test_what_is_no_image_is_refused(text: str) -> None:
    with pytest.raises(TraceError):
        parse_reference(text)


# --- the route -------------------------------------------------------------------------------------------------


async def test_a_trace_is_a_post_with_an_image() -> None:
    async with two() as (_, asker), pages(asker) as shown, aiohttp.ClientSession() as session:

        async def ask(path: str, method: str = "POST", **headers: str) -> tuple[int, str]:
            async with session.request(method, f"{shown.url}/debug/web/{path}", headers=headers) as response:
                return response.status, await response.text()

        status, text = await ask(f"trace?image={NAME}")
        assert status == 200
        assert '"source": "peer"' in text
        assert (await ask(f"measure?image={NAME}"))[1].count('"is_whole": true') >= 4
        assert (await ask("trace"))[0] == 400
        assert "no image is named" in (await ask("trace"))[1]
        assert (await ask("trace?image=<script>"))[0] == 400
        assert (await ask(f"trace?image={NAME}&measure=perhaps"))[0] == 400
        assert (await ask(f"trace?image={NAME}&platform=amiga"))[0] == 400


async def test_another_pages_post_starts_no_trace() -> None:
    async with two() as (holder, asker), pages(asker, "node-1.example") as shown, aiohttp.ClientSession() as session:
        own = shown.url.removeprefix("http://")

        async def status(**headers: str) -> int:
            named = {name.replace("_", "-"): value for name, value in headers.items()}
            async with session.post(f"{shown.url}/debug/web/measure?image={NAME}", headers=named) as response:
                assert response.status != 200 or holder.metrics
                return response.status

        assert await status(Origin="http://evil.example") == 403
        assert await status(Origin="null") == 403
        assert await status(Origin="http://[::1") == 403, "no URL"
        assert await status(Origin=f"http://{own}", Sec_Fetch_Site="cross-site") == 403
        assert await status(Sec_Fetch_Site="same-site") == 403
        assert await status(Host="evil.example", Origin="http://evil.example") == 421
        assert await status(Host="evil.example") == 421
        assert await status(Host="evil.example:9090") == 421
        assert await status(Host="") == 421
        assert sample(holder.metrics, "speil_served_bytes_total") == 0, "nothing was fetched"
        assert asker.sample("speil_web_refused_total", reason="origin") == 5
        assert asker.sample("speil_web_refused_total", reason="host") == 4
        assert asker.sample("speil_web_traces_total") == 0
        assert await status(Origin=f"http://{own}", Sec_Fetch_Site="same-origin") == 200
        assert asker.sample("speil_web_traces_total", measured="true") == 1
        assert await status(Host="node-1.example:9090", Origin="http://node-1.example:9090") == 200
        assert await status(Host="api.cluster.example", Sec_Speil_Client="1") == 200, "a client that is no browser"


async def test_a_client_that_hangs_up_ends_its_trace() -> None:
    """A peer that takes requests and never answers: the trace waits for it, and its client does not."""
    came = asyncio.Event()

    async def take(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        came.set()
        await reader.read()
        writer.close()

    (port,) = free_ports("127.0.0.1", 1)
    silent = await asyncio.start_server(take, "127.0.0.1", port)
    mesh, digest = MemoryMesh(), f"sha256:{7:064x}"
    async with mirror(mesh) as asker, pages(asker) as shown, silent:
        mesh.records[digest] = {peer_at("127.0.0.1", port): None}
        host, _, metrics_port = shown.url.removeprefix("http://").partition(":")
        _, writer = await asyncio.open_connection(host, int(metrics_port))
        target = f"/debug/web/measure?image=reg.test/app@{digest}"
        writer.write(f"POST {target} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n".encode())
        await came.wait()
        writer.transport.abort()
        await eventually(lambda: shown.pages.trace.running == 0, what="the trace has ended")
        assert asker.sample("speil_web_traces_total") == 0, "it was given up, not finished"
        found = await traced(asker, f"reg.test/app@{digest}")
        assert [part["source"] for part in found["parts"]] == ["upstream"]
