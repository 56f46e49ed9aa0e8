"""Two zones of a region: real nodes on loopback; the zones that identify states, and the metrics by zone."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import pytest
from prometheus_client.parser import text_string_to_metric_families

from speil.oci.image_builder import BuiltImage
from speil.routing.memory import MemoryMesh
from speil.testing.eventually import eventually
from speil.testing.images import random_image
from tests.shell.mirrors import mirror
from tests.shell.nodes import RunningNode, free_ports, running_node, write_layout
from tests.shell.test_mirror_answers import DATA, IMAGE, NAME, ask
from tests.shell.test_mirror_faults import PATH

BIG = random_image(33, (5_000_000, 100_000))  # one layer above what is verified first, one below


@dataclass
class Zones:
    """Two holders, one in each zone, and what stands between them and the tests."""

    in_a: RunningNode
    in_b: RunningNode
    directory: Path
    flags: tuple[str, ...]
    ports: list[int]
    session: aiohttp.ClientSession

    @asynccontextmanager
    async def asker(self, zone: str) -> AsyncIterator[RunningNode]:
        """An empty node in a zone; it has the records of all that the holders announced."""
        layout = self.directory / f"empty-{zone}"
        flags = (*self.flags, f"--zone={zone}")
        async with running_node(self.directory, layout, *flags, ports=self.ports) as node:
            await eventually(
                lambda: self.counts(node, "speil_provider_records", 2 * len(BIG.blobs)),
                timeout_seconds=30,
                what="both holders are known for everything",
            )
            yield node

    async def counts(self, node: RunningNode, name: str, least: float, **labels: str) -> bool:
        """Whether a series has come to `least`."""
        return await self.metric(node, name, **labels) >= least

    async def metric(self, node: RunningNode, name: str, **labels: str) -> float:
        """The sum of a series over the label sets that match."""
        async with self.session.get(f"http://{node.host}:{node.metrics_port}/metrics") as response:
            text = await response.text()
        return sum(
            sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
            if sample.name == name and labels.items() <= sample.labels.items()
        )

    async def pull(self, node: RunningNode) -> int:
        """All of the image, by digest, three at a time; how many bytes that was."""
        slots = asyncio.Semaphore(3)

        async def get(digest: str, kind: str, data: bytes) -> int:
            async with slots, self.session.get(f"{node.url}/v2/lab/app/{kind}/{digest}") as response:
                assert (response.status, await response.read()) == (200, data), digest
            return len(data)

        async with asyncio.TaskGroup() as group:
            tasks = [
                group.create_task(get(str(digest), "manifests" if is_manifest(BIG, digest) else "blobs", data))
                for digest, data in BIG.blobs.items()
            ]
        return sum(task.result() for task in tasks)


def is_manifest(image: BuiltImage, digest: object) -> bool:
    kind = image.media_types[digest]  # type: ignore[index]
    return "manifest" in kind or "index" in kind


@asynccontextmanager
async def zones(directory: Path) -> AsyncIterator[Zones]:
    await write_layout(directory / "full", BIG, NAME)
    ports = free_ports("127.0.0.1", 3)
    async with AsyncExitStack() as stack:
        session = await stack.enter_async_context(aiohttp.ClientSession())
        flags: tuple[str, ...] = ("--mirror-resolve-timeout=500ms",)
        in_a = await stack.enter_async_context(
            running_node(directory, directory / "full", *flags, "--zone=a", ports=ports)
        )
        flags = (*flags, f"--static-bootstrap-peers=/ip4/{in_a.host}/tcp/{in_a.router_port}")
        in_b = await stack.enter_async_context(
            running_node(directory, directory / "full", *flags, "--zone=b", ports=ports)
        )
        yield Zones(in_a, in_b, directory, flags, ports, session)


@pytest.mark.long
async def test_bytes_stay_in_the_zone_where_it_has_a_holder_and_come_from_the_others_where_not(tmp_path: Path) -> None:
    async with zones(tmp_path) as lab:
        async with lab.asker("b") as node:
            size = await lab.pull(node)
            assert await lab.metric(node, "speil_peer_bytes_total", relation="same") == size
            assert await lab.metric(node, "speil_peer_bytes_total") == size
            assert await lab.metric(lab.in_a, "speil_served_bytes_total", client="peer") == 0, "not a byte crossed"
            assert await lab.metric(lab.in_b, "speil_served_bytes_total", client="peer") == size
        async with lab.asker("c") as node:
            size = await lab.pull(node)
            assert await lab.metric(node, "speil_peer_bytes_total", relation="other") == size
        async with lab.asker("a") as node:
            lab.in_a.process.terminate()
            await lab.in_a.process.wait()
            size = await lab.pull(node)
            assert await lab.metric(node, "speil_peer_bytes_total", relation="other") == size
            assert await lab.metric(node, "spegel_mirror_requests_total", cache="miss") == 0


async def test_the_zone_of_a_peer_that_was_never_met_is_learned_from_its_answers() -> None:
    mesh = MemoryMesh()
    async with AsyncExitStack() as stack:
        far = await stack.enter_async_context(mirror(mesh, zone="b"))
        near = await stack.enter_async_context(mirror(mesh, zone="a"))
        asker = await stack.enter_async_context(mirror(mesh, zone="a"))
        mesh.zones.clear()  # libp2p has met none of them
        for holder in (far, near):
            await holder.hold(IMAGE, NAME)
        for _ in range(5):
            assert (await ask(asker, PATH))[2] == DATA
        assert asker.sample("speil_peer_bytes_total", relation="other") <= len(DATA), "once, to get to know it"
        assert asker.sample("speil_peer_bytes_total", relation="same") >= 4 * len(DATA)
