"""What every test of isolation has to show, and the questions that it takes."""

from __future__ import annotations

import asyncio
import itertools
import json
import sys
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import aiohttp

from speil.oci.image_builder import BuiltImage
from speil.testing.eventually import eventually
from speil.testing.images import random_image
from tests.system.lab.capture import Packet
from tests.system.lab.lans import REGIONS
from tests.system.lab.node import REGISTRY
from tests.system.lab.regions import RegionLab, RegionNode
from tests.system.test_pulls import wanted

LAYERS = (90_000, 8_000, 500)
REGISTRY_PORT = 5000
VERIFY_SECONDS_MAX = 60
_seeds = itertools.count(7000)


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
    headers = lab.node_token(node)

    async def one(target: str) -> bool:
        async with session.head(f"http://{node.address}:{REGISTRY_PORT}{target}", headers=headers) as answer:
            return answer.status == 200

    async with aiohttp.ClientSession() as session:
        return sum(await asyncio.gather(*map(one, targets)))


async def finds(lab: RegionLab, node: RegionNode, pushed: Pushed) -> None:
    """Wait until a node can come by all of an image, without upstream."""

    async def all_found() -> bool:
        return await found(lab, node, pushed.targets) == len(pushed.targets)

    await eventually(all_found, timeout_seconds=20, what=f"{node} finds {pushed.name}")


async def pull_twice(lab: RegionLab, pushed: Pushed, first: RegionNode, second: RegionNode, *, meshed: bool) -> None:
    """The first node takes it from upstream; the second from the first, where they know of each other."""
    await first.pull(f"{pushed.name}:1")
    if meshed:
        await finds(lab, second, pushed)
    await second.pull(f"{pushed.name}:1")
    assert wanted(pushed.image) <= second.containerd.blobs()


async def assert_isolated(lab: RegionLab, mark: int, *, alone: Collection[RegionNode] = ()) -> None:
    """Pulls go on in both regions, and nothing of them crosses since `mark`.

    They go through peers where nodes know each other; those that are `alone` have nobody and are known to nobody.
    """
    images = {region: Pushed(lab, region) for region in REGIONS}
    meshed = {region: not set(alone) & set(lab.regions[region][:2]) for region in REGIONS}
    lab.registry.forget()
    before = {region: lab.peer_bytes(region) for region in REGIONS}
    await asyncio.gather(*(pull_twice(lab, images[one], *lab.regions[one][:2], meshed=meshed[one]) for one in REGIONS))
    gets = lab.registry.gets()
    for region, pushed in images.items():
        times = 1 if meshed[region] else 2
        assert {digest: gets[digest] for digest in wanted(pushed.image)} == dict.fromkeys(wanted(pushed.image), times)
        taken, sent = (now - then for now, then in zip(lab.peer_bytes(region), before[region], strict=True))
        assert taken <= sent, f"{region} took more from peers than its own nodes sent"
        assert (taken > 0) == meshed[region]

    ids = {node: node.peer_id for node in lab.nodes}
    for region, other in (REGIONS, REGIONS[::-1]):
        for node in lab.regions[region]:
            assert await found(lab, node, images[other].targets) == 0, f"{node} has records of {other}"
            known = {ids[one] for one in lab.regions[region] if one not in alone}
            # a neighbour that has become a stranger is gone once it was asked for a sign of life
            await node.knows_nobody_but(set() if node in alone else known)
    assert not registry_packets(lab, mark)


async def roll_out(lab: RegionLab, region: str, pushed: Pushed) -> None:
    """The first node takes it from upstream, and then all others find all of it at peers."""
    source, *others = lab.regions[region]
    before = source.lookups()
    await source.pull(f"{pushed.name}:1")
    asked = source.lookups() - before
    assert asked["miss"] >= len(pushed.targets), "the first has to ask upstream"
    assert not asked["hit"]
    for node in others:
        await finds(lab, node, pushed)
    earlier = [node.lookups() for node in others]
    await asyncio.gather(*(node.pull(f"{pushed.name}:1") for node in others))
    for node, then in zip(others, earlier, strict=True):
        now = node.lookups() - then
        assert now["hit"] >= len(pushed.targets), "everything is a hit"
        assert not now["miss"]


def registry_packets(lab: RegionLab, mark: int) -> list[Packet]:
    """What crossed since `mark` from or to a registry port."""
    return [packet for packet in lab.lans.crossings(mark) if REGISTRY_PORT in (packet.source_port, packet.target_port)]


async def quiet_mark(lab: RegionLab) -> int:
    """A mark behind which nothing of earlier connections crosses: their last packets are through."""
    mark = 0

    async def quiet() -> bool:
        nonlocal mark
        mark = lab.lans.capture.mark()
        await asyncio.sleep(1)
        return not registry_packets(lab, mark)

    await eventually(quiet, timeout_seconds=30, what="earlier connections have ended")
    return mark


def assert_only_refusals(packets: Sequence[Packet]) -> None:
    """All that registry ports sent are heads of empty 404s."""
    answers = [packet.payload for packet in packets if packet.source_port == REGISTRY_PORT and packet.payload]
    assert answers, "there were answers"
    for answer in answers:
        assert answer.startswith(b"HTTP/1.1 404 ")
        assert answer.find(b"\r\n\r\n") == len(answer) - 4, "nothing behind the head"


@dataclass(frozen=True, slots=True)
class Verdict:
    """What `speil region verify` prints and how it ends."""

    exit_code: int
    findings: list[dict[str, str]]

    def says(self, level: str, *words: str) -> bool:
        """Whether a finding of this level has these words, and what to do."""
        return any(
            one["level"] == level and all(word in one["message"] for word in words) and one["remedy"]
            for one in self.findings
        )


async def verify(lab: RegionLab) -> Verdict:
    """The operator's own proof, through the API server: Leases, election and traffic of both regions."""
    argv = ["-m", "speil", "region", "verify", f"--kubeconfig-path={lab.cluster.kubeconfig}", "--output=json"]
    process = await asyncio.create_subprocess_exec(sys.executable, *argv, stdout=asyncio.subprocess.PIPE)
    async with asyncio.timeout(VERIFY_SECONDS_MAX):
        printed, _ = await process.communicate()
    assert process.returncode is not None
    return Verdict(process.returncode, json.loads(printed)["findings"])


async def lease(lab: RegionLab, region: str) -> dict[str, Any]:
    """A region's Lease, as the administrator sees it."""
    path = f"/apis/coordination.k8s.io/v1/namespaces/spegel-{region}/leases/spegel-leader-election-{region}"
    return await lab.cluster.admin("GET", path)


async def holder_of(lab: RegionLab, region: str) -> str:
    """The holder's address, without its id."""
    identity: str = (await lease(lab, region))["spec"].get("holderIdentity", "")
    return identity.partition("/p2p/")[0]


async def leader_of(lab: RegionLab, region: str) -> RegionNode:
    """The node that holds the Lease."""
    holder = await holder_of(lab, region)
    return next(node for node in lab.regions[region] if node.multiaddr == holder)


def service_account(region: str) -> str:
    """Its user name."""
    return f"system:serviceaccount:spegel-{region}:speil"
