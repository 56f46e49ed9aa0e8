"""The herd lab: nodes, the upstream, and one run of a plan with what was counted."""

from __future__ import annotations

import asyncio
import itertools
import subprocess
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from speil.oci.digest import Digest
from speil.oci.manifest import parse
from speil.testing.eventually import eventually
from tests.system.herd.cases import Plan, Pull
from tests.system.herd.network import HerdNetwork, Rates, cpu_idle_seconds, herd_network, sent_bytes
from tests.system.herd.nodes import ContainerdNode, HerdNode, Mode, SimulatedNode, samples_of, state_of
from tests.system.lab.registry import Registry, Served

STARTS_AT_ONCE = 4  # a node takes a second of CPU to start
MEET_SECONDS_MAX = 180.0
MEMORY = "size=75%"
# questions that umpires answered, and requests to sources and complete holders
MESSAGES_SERIES = ("speil_claims_answers_total", "speil_left_sources_total", "speil_shared_pulls_total")
OUTCOMES_WITHOUT_REQUEST = ('outcome="fetched"', 'outcome="alone"', 'outcome="cancelled"', 'outcome="spoiled"')
_numbers = itertools.count(1)


@dataclass(frozen=True, slots=True)
class Run:
    """One plan, carried out. Seconds of a pull are from its own start to its end."""

    needed: dict[Digest, int]  # sizes of the configs and layers that the plan's nodes have to get
    manifests: set[Digest]
    served: list[Served]  # by the upstream
    seconds: list[float]  # of each pull
    wall_seconds: float  # from the first start to the last end
    sent_images: list[float]  # what each node sent, in sizes of all that was needed
    border_bytes: int
    messages: int  # questions about who fetches, of all nodes
    busy: float  # share of the machine's cores that was in use

    @property
    def needed_bytes(self) -> int:
        """Of configs and layers."""
        return sum(self.needed.values())

    @property
    def copies(self) -> float:
        """Bytes of configs and layers that left the upstream, in sizes of what was needed."""
        sizes = Counter[str]()
        for one in self.served:
            sizes[one.reference] += one.size
        return sum(sizes[str(digest)] for digest in self.needed) / self.needed_bytes

    @property
    def manifest_gets_max(self) -> int:
        """GETs of the manifest or index that was asked for most often."""
        gets = Counter(one.reference for one in self.served if one.kind == "manifests")
        return max((gets[str(digest)] for digest in self.manifests), default=0)

    @property
    def fetchers(self) -> int:
        """Nodes to which the upstream sent configs or layers."""
        return len({one.client for one in self.served if one.kind == "blobs"})


class HerdLab:
    """Use `start`, `run`; `close` at the end."""

    def __init__(self, network: HerdNetwork, mode: Mode, folder: Path, flags: Sequence[str], piece_bytes: int) -> None:
        self.network, self.mode, self.folder = network, mode, folder
        self.registry = Registry(network.upstream, folder / "registry")
        zones = network.zones
        spaces = [space for group in itertools.zip_longest(*zones) for space in group if space is not None]
        seeds = ",".join(f"/ip4/{space.address}/tcp/5001" for space in spaces[:2])
        flags = ["--log-format=text", "--bootstrap-kind=static", f"--static-bootstrap-peers={seeds}", *flags]
        self.nodes: list[HerdNode] = []
        for number, space in enumerate(spaces):
            zone = [f"--zone=zone{space.address.split('.')[2]}"] if len(zones) > 1 else []
            directory = folder / f"n{number}"
            if mode.major:
                self.nodes.append(ContainerdNode(space, mode, directory, *flags, *zone))
            else:
                self.nodes.append(SimulatedNode(space, directory, piece_bytes, *flags, *zone))

    async def start(self) -> None:
        """Start all, until the nodes have met."""
        await self.registry.start()
        first, *others = self.nodes
        await first.start(self.registry.url)
        slots = asyncio.Semaphore(STARTS_AT_ONCE)

        async def start(node: HerdNode) -> None:
            async with slots:
                await node.start(self.registry.url)

        async with asyncio.TaskGroup() as group:
            for node in others:
                group.create_task(start(node))
        await self._met()

    async def _met(self) -> None:
        wanted = min(len(self.nodes) - 1, 16)  # a table of a large region does not hold all

        def knows_enough(node: HerdNode) -> bool:
            return len(state_of(node)["peers"]) >= wanted

        for node in self.nodes:
            await eventually(
                partial(knows_enough, node),
                timeout_seconds=MEET_SECONDS_MAX,
                what=f"{node.namespace.address} has met the others",
            )

    async def run(self, plan: Plan, nodes: Sequence[HerdNode]) -> Run:
        """Push the images, let the nodes pull, count, and remove what was pulled."""
        name = f"herd/app{next(_numbers)}"
        for tag, image in plan.images.items():
            await asyncio.to_thread(self.registry.push, image, name, tag)
        self.registry.forget()
        needed, manifests = _needed(plan)
        sent = [sent_bytes(node.namespace) for node in nodes]
        messages = self._messages()
        border, idle, began = self.network.border_bytes(), cpu_idle_seconds(), time.monotonic()
        seconds: dict[Pull, float] = {}

        async def pull(one: Pull) -> None:
            await asyncio.sleep(began + one.at_seconds - time.monotonic())
            started = time.monotonic()
            await nodes[one.node].pull(f"{name}:{one.tag}", one.platform)
            seconds[one] = time.monotonic() - started

        try:
            async with asyncio.TaskGroup() as group:
                for one in plan.pulls:
                    group.create_task(pull(one))
            wall = time.monotonic() - began
            idle, border = cpu_idle_seconds() - idle, self.network.border_bytes() - border
            size, messages = sum(needed.values()), self._messages() - messages
            return Run(
                needed, manifests, await self._served(), [seconds[one] for one in plan.pulls], wall,
                [(sent_bytes(node.namespace) - before) / size for node, before in zip(nodes, sent, strict=True)],
                border, messages, 1 - idle / wall / _cores(),
            )  # fmt: skip
        finally:
            digests = {digest for image in plan.images.values() for digest in image.blobs}
            async with asyncio.TaskGroup() as group:
                for one in plan.pulls:
                    group.create_task(nodes[one.node].forget(f"{name}:{one.tag}", digests))
            for image in {image.index.digest: image for image in plan.images.values()}.values():
                for file in (self.registry.pushed / digest.hex for digest in image.blobs):
                    file.unlink(missing_ok=True)

    async def _served(self) -> list[Served]:
        """What the upstream has logged, once it logs no more: it logs a request when its response has ended."""
        found: list[Served] = []

        async def settled() -> bool:
            nonlocal found
            before, found = found, self.registry.served()
            await asyncio.sleep(0.1)
            return bool(found) and len(before) == len(found)

        await eventually(settled, what="the upstream has logged all requests")
        return found

    def _messages(self) -> int:
        """Messages about who fetches, and requests to sources and holders, of all nodes so far."""
        return int(
            sum(
                value
                for node in self.nodes
                for name, value in samples_of(node, *MESSAGES_SERIES).items()
                if not any(outcome in name for outcome in OUTCOMES_WITHOUT_REQUEST)
            )
        )

    def keep_logs(self, folder: Path) -> None:
        """Copy what the nodes have logged."""
        folder.mkdir(parents=True, exist_ok=True)
        for node in self.nodes:
            name = f"{self.mode.key}-{node.namespace.address}.log"
            (folder / name).write_text(node.speil.log_text() if node.speil.log.exists() else "")

    def close(self) -> None:
        """End everything."""
        for node in self.nodes:
            node.close()
        self.registry.close()


def _cores() -> int:
    return sum(line.startswith("cpu") for line in Path("/proc/stat").read_text().splitlines()) - 1


def _needed(plan: Plan) -> tuple[dict[Digest, int], set[Digest]]:
    """Sizes of configs and layers, and the manifests, that the plan's pulls have to get."""
    sizes: dict[Digest, int] = {}
    manifests: set[Digest] = set()
    for pull in plan.pulls:
        image = plan.images[pull.tag]
        chosen = image.manifests[pull.platform.partition("/")[2] or "amd64"].digest
        manifests |= {image.index.digest, chosen}
        manifest = parse(image.blobs[chosen])
        assert manifest is not None
        sizes |= {child.digest: child.size for child in manifest.children}
    return sizes, manifests


@contextmanager
def herd_lab(
    mode: Mode, zones: Sequence[int], rates: Rates, *flags: str, piece_bytes: int = 1 << 20
) -> Iterator[HerdLab]:
    """The lab, its stores in memory; not started. `flags` are speil's. Nothing of it is left afterwards."""
    with tempfile.TemporaryDirectory(prefix="speil-herd-") as folder:
        subprocess.run(["mount", "-t", "tmpfs", "-o", MEMORY, "herd", folder], check=True, timeout=30)
        try:
            with herd_network(zones) as network:
                network.limit(rates)
                lab = HerdLab(network, mode, Path(folder), flags, piece_bytes)
                try:
                    yield lab
                finally:
                    lab.close()
        finally:
            subprocess.run(["umount", "-l", folder], check=True, timeout=30)
