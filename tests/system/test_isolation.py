"""Isolation seen from outside: two regions, a router that records every packet between them, and what goes wrong.

First what the documentation says to configure, then every mistake and every attack that is known, each against the
same lab: no blob byte crosses, nobody foreign enters a table or a record, the log says what to do, and pulls go on.
"""

from __future__ import annotations

import asyncio
import itertools
import socket
import tempfile
import time
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

import aiohttp
import pytest

from speil.oci.image_builder import BuiltImage
from speil.region.policy import Layer
from speil.testing.eventually import eventually
from speil.testing.images import random_image
from tests.conftest import need
from tests.system.lab.lans import DELAY_SECONDS, REGIONS
from tests.system.lab.namespaces import inside
from tests.system.lab.node import REGISTRY
from tests.system.lab.regions import RegionLab, RegionNode, region_lab
from tests.system.test_pulls import wanted

pytestmark = [
    pytest.mark.system,
    pytest.mark.requires("namespaces", "registry", "containerd-1", "containerd-2", "kubernetes"),
]
LAYERS = (90_000, 8_000, 500)
REGISTRY_PORT = 5000
_seeds = itertools.count(7000)


@pytest.fixture(scope="module")
def lab() -> Iterator[RegionLab]:
    """One lab for all tests here; each says how the nodes are configured."""
    for name in ("namespaces", "registry", "containerd-1", "containerd-2", "kubernetes"):
        need(name)
    with tempfile.TemporaryDirectory(prefix="speil-regions-") as folder, region_lab(Path(folder)) as started:
        yield started


# --- what every scenario has to show ----------------------------------------------------------------------------


class Pushed:
    """An image in the upstream that no node has yet."""

    def __init__(self, lab: RegionLab, region: str, layers: Sequence[int] = LAYERS) -> None:
        seed = next(_seeds)
        self.image: BuiltImage = random_image(seed, layers)
        self.name = f"{region}/app{seed}"
        lab.registry.push(self.image, self.name, "1")

    @property
    def targets(self) -> list[str]:
        """What a pull asks for."""
        digests = [digest for digest in self.image.blobs if str(digest) in wanted(self.image)]
        paths = ["manifests/1", *(f"{self.image.kind(digest)}/{digest}" for digest in digests)]
        return [f"/v2/{self.name}/{path}?ns={REGISTRY}" for path in paths]


async def found(lab: RegionLab, node: RegionNode, targets: Sequence[str]) -> int:
    """How many of `targets` a node can come by, without upstream."""
    headers = lab.node_token(node.region)

    async def one(target: str) -> bool:
        async with session.head(f"http://{node.address}:{REGISTRY_PORT}{target}", headers=headers) as answer:
            return answer.status == 200

    async with aiohttp.ClientSession() as session:
        return sum(await asyncio.gather(*map(one, targets)))


async def pull_twice(lab: RegionLab, region: str, pushed: Pushed, *, meshed: bool) -> None:
    """The first node takes it from upstream; the second from the first, where they know of each other."""
    first, second, _ = lab.regions[region]
    await first.pull(f"{pushed.name}:1")
    targets = pushed.targets

    async def announced() -> bool:
        return await found(lab, second, targets) == len(targets)

    if meshed:
        await eventually(announced, timeout_seconds=20, what=f"{second} finds {pushed.name}")
    await second.pull(f"{pushed.name}:1")
    assert wanted(pushed.image) <= second.containerd.blobs()


async def assert_isolated(lab: RegionLab, mark: int, *, meshed: Collection[str] = REGIONS) -> None:
    """Pulls go on in both regions, through peers in those that are `meshed`, and nothing of it crosses since `mark`."""
    images = {region: Pushed(lab, region) for region in REGIONS}
    lab.registry.forget()
    before = {region: lab.peer_bytes(region) for region in REGIONS}
    await asyncio.gather(*(pull_twice(lab, one, images[one], meshed=one in meshed) for one in REGIONS))
    gets = lab.registry.gets()
    for region, pushed in images.items():
        times = 1 if region in meshed else 2
        assert {digest: gets[digest] for digest in wanted(pushed.image)} == dict.fromkeys(wanted(pushed.image), times)
        taken, sent = (now - then for now, then in zip(lab.peer_bytes(region), before[region], strict=True))
        assert taken <= sent, f"{region} took more from peers than its own nodes sent"
        assert (taken > 0) == (region in meshed)

    ids = {region: {node.peer_id for node in lab.regions[region]} for region in REGIONS}
    for region, other in (REGIONS, REGIONS[::-1]):
        for node in lab.regions[region]:
            assert await found(lab, node, images[other].targets) == 0, f"{node} has records of {other}"
            assert node.peers <= ids[region], f"{node} has somebody foreign in its table"
            assert node.metric("speil_routing_table_size") == len(node.peers)
    assert not [
        packet for packet in lab.lans.crossings(mark) if REGISTRY_PORT in (packet.source_port, packet.target_port)
    ]


# --- the lab itself ---------------------------------------------------------------------------------------------


async def test_a_packet_between_regions_takes_its_time_and_is_seen(lab: RegionLab) -> None:
    """Without this, no test here could fail for a packet that is there."""
    (here, near, _), (far, *_) = lab.lans.nodes("regiona"), lab.lans.nodes("regionb")
    for target in (near, far):
        with inside(target):
            server, listener = socket.create_server((target.address, 7000)), socket.socket(type=socket.SOCK_DGRAM)
            listener.bind((target.address, 7000))
        mark, started = lab.lans.capture.mark(), time.monotonic()
        with inside(here), server, listener, socket.create_connection((target.address, 7000), timeout=10) as connection:
            took = time.monotonic() - started
            connection.sendall(b"a blob's byte")
            connection.shutdown(socket.SHUT_WR)
            with server.accept()[0] as accepted:
                assert accepted.recv(100) == b"a blob's byte"
                assert accepted.recv(100) == b""
            assert connection.recv(100) == b""
            with socket.socket(type=socket.SOCK_DGRAM) as last:
                last.sendto(b"the last", (target.address, 7000))
            assert listener.recv(100) == b"the last"
        seen = [
            packet.payload
            for packet in lab.lans.crossings(mark)
            if (packet.source, packet.target, packet.target_port) == (here.address, target.address, 7000)
        ]
        if target is far:
            assert took >= 2 * DELAY_SECONDS, "there and back"
            assert b"a blob's byte" in seen
            assert seen[-1] == b"the last", "and nothing is on its way any more"
        else:
            assert took < 2 * DELAY_SECONDS
            assert not lab.lans.crossings(mark)


# --- as documented ----------------------------------------------------------------------------------------------


async def test_as_documented_not_one_packet_passes_between_the_regions(lab: RegionLab) -> None:
    mark = lab.lans.capture.mark()
    await lab.configure()
    for region in REGIONS:
        for node in lab.regions[region]:
            first = node.lines[0]
            assert (first["msg"], first["region"], first["region_from"]) == ("this node's region", region, "lease names")

    images = {region: [Pushed(lab, region) for _ in range(3)] for region in REGIONS}
    shared = Pushed(lab, "both", (400_000, 300))
    lab.registry.forget()
    for region in REGIONS:
        first, *others = lab.regions[region]
        for pushed in (*images[region], shared):
            asked = len(pushed.targets)
            await first.pull(f"{pushed.name}:1")
            for node in others:

                async def announced(node: RegionNode = node, pushed: Pushed = pushed) -> bool:
                    return await found(lab, node, pushed.targets) == len(pushed.targets)

                await eventually(announced, timeout_seconds=20, what=f"{node} finds {pushed.name}")
            before = [node.metric("spegel_mirror_requests_total", cache="hit") for node in others]
            misses = [node.metric("spegel_mirror_requests_total", cache="miss") for node in others]
            await asyncio.gather(*(node.pull(f"{pushed.name}:1") for node in others))
            for node, hit, miss in zip(others, before, misses, strict=True):
                assert node.metric("spegel_mirror_requests_total", cache="hit") - hit >= asked, "everything is a hit"
                assert node.metric("spegel_mirror_requests_total", cache="miss") == miss
        assert first.metric("spegel_mirror_requests_total", cache="hit") == 0, "the first had to ask upstream"
    gets = lab.registry.gets()
    for region in REGIONS:
        for pushed in images[region]:
            assert {gets[digest] for digest in wanted(pushed.image)} == {1}
    assert {gets[digest] for digest in wanted(shared.image)} == {2}, "once a region"

    await assert_isolated(lab, mark)
    assert not lab.lans.crossings(mark)
    seen = {(packet.source, packet.target) for packet in lab.lans.capture.since(mark)}
    for node in lab.nodes:
        assert (lab.lans.api_server.address, node.address) in seen, "the router sees who asks the API server"
        for layer in Layer:
            assert node.rejected(layer) == 0
