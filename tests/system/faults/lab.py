"""The fault lab: one node that pulls, two that hold the content, a stranger, and the upstream.

    10.82.1.0/24  near: the puller .11
    10.82.2.0/24  far: the holders .11 .12, the stranger .66
    10.82.9.0/24  outside: the upstream registry .11

All that goes between the networks passes the router, which holds and loses packets as a case asks.
"""

from __future__ import annotations

import asyncio
import itertools
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from speil.oci.image_builder import BuiltImage
from speil.testing.eventually import eventually
from speil.testing.images import random_image
from tests.requirements import tool_path
from tests.system.faults.node import START_SECONDS_MAX, FaultNode
from tests.system.lab.containerd import ContainerdVersion
from tests.system.lab.networks import Networks, Rule, networks
from tests.system.lab.registry import Registry

SUBNETS = {"near": "10.82.1.0/24", "far": "10.82.2.0/24", "outside": "10.82.9.0/24"}
HOSTS = {"near": (11,), "far": (11, 12, 66), "outside": (11,)}
# four that are too large to be verified before they are passed on, three of which are asked for at once; small ones
LAYERS = (4_500_000, 4_500_000, 4_500_000, 4_500_000, 400_000, 30_000)
ANNOUNCE_SECONDS_MAX = 30.0
_seeds = itertools.count(9000)


@dataclass(frozen=True, slots=True)
class Mode:
    """Which containerd, and how it fetches layers."""

    key: str
    major: int
    multipart: bool = False

    @property
    def program(self) -> str:
        """The containerd."""
        found = shutil.which("containerd") if self.major == 1 else str(tool_path("containerd"))
        assert found
        return found

    @property
    def title(self) -> str:
        """Its name in the table, with the version that the program prints."""
        told = subprocess.run(
            [self.program, "--version"], check=True, capture_output=True, text=True, timeout=30
        ).stdout
        version = told.split()[2].removeprefix("v").partition("~")[0].partition("+")[0]
        return f"containerd {version}" + (", concurrent_layer_fetch_buffer" if self.multipart else "")


MODES = (Mode("containerd-1.6", 1), Mode("containerd-2", 2), Mode("containerd-2-multipart", 2, multipart=True))


class FaultLab:
    """Use `start`, then trials with `repair` after each, `close`."""

    def __init__(self, mode: Mode, made: Networks, folder: Path) -> None:
        self.mode, self.networks, self.folder = mode, made, folder
        (puller,), (first, second, self.stranger), (outside,) = (made.hosts[name] for name in SUBNETS)
        version = ContainerdVersion(mode.key, mode.program, mode.major)
        seeds = ",".join(f"/ip4/{one.address}/tcp/5001" for one in (first, second))
        flags = ["--log-format=text", "--bootstrap-kind=static", f"--static-bootstrap-peers={seeds}"]

        def node(name: str, number: int) -> FaultNode:
            space = [puller, first, second][number]
            return FaultNode(space, version, folder / name, *flags, multipart=mode.multipart)

        self.puller, self.first, self.second = (node(f"n{number}", number) for number in range(3))
        self.registry = Registry(outside, folder / "registry")
        self._was_cut = False
        self.clean_seconds: dict[bool, float] = {}  # of a pull without a fault, by whether the links were slow

    @property
    def nodes(self) -> list[FaultNode]:
        """All three."""
        return [self.puller, self.first, self.second]

    async def start(self) -> None:
        """Everything, until the nodes have met."""
        await asyncio.gather(self.registry.start(), *(node.containerd.start() for node in self.nodes))
        for node in self.nodes:
            node.configure(self.registry.url)
            node.speil.start()
        await self.met()

    async def met(self) -> None:
        """Until all are ready and know each other."""
        for node in self.nodes:
            others = [other for other in self.nodes if other is not node]
            await eventually(
                partial(node.has_met, *others),
                timeout_seconds=START_SECONDS_MAX,
                what=f"{node.address} has met the others",
            )

    def rule(self, *rules: Rule) -> None:
        """What the router does from now on, until `repair`."""
        self.networks.rule(*rules)
        self._was_cut = self._was_cut or any(rule.loss == 1 for rule in rules)

    async def repair(self) -> None:
        """Undo what a case did, and let the puller forget whom it blames for it."""
        self.networks.rule()
        self.puller.is_dirty = True
        if self._was_cut:
            # whoever was cut off takes a while to find out that a connection is dead: they all begin anew
            self.first.is_dirty = self.second.is_dirty = True
            self._was_cut = False
        for node in self.nodes:
            node.calm()
        for node in self.nodes:
            await node.revive()
        await self.met()
        try:
            await eventually(
                self._all_known, timeout_seconds=ANNOUNCE_SECONDS_MAX, what="the puller has all provider records"
            )
        except AssertionError as error:
            for node in self.nodes:
                said = [line for line in node.speil.log_text().splitlines() if "component=mirror" not in line]
                records, keys = node.metric("speil_provider_records"), node.metric("speil_provided_keys")
                error.add_note(f"{node.address}: {records} records, {keys} own keys\n" + "\n".join(said[-50:]))
            raise

    def push(self) -> tuple[str, BuiltImage]:
        """An image in the upstream that no node has; its name."""
        seed = next(_seeds)
        image, name = random_image(seed, LAYERS, compress_level=0), f"lab/fault{seed}"
        self.registry.push(image, name, "1")
        return f"{name}:1", image

    async def give(self, image: str, key_count: int, holders: Sequence[FaultNode]) -> None:
        """Let `holders` pull an image, until the puller has the records of all its keys."""
        keys = [holder.metric("speil_provided_keys") for holder in holders]
        await asyncio.gather(*(holder.pull(image) for holder in holders))

        def known() -> bool:
            grown = [holder.metric("speil_provided_keys") - had for holder, had in zip(holders, keys, strict=True)]
            return min(grown) >= key_count and self._all_known()

        await eventually(
            known, timeout_seconds=ANNOUNCE_SECONDS_MAX, what=f"the puller has the provider records of {image}"
        )

    def _all_known(self) -> bool:
        # so small a mesh keeps every record everywhere
        told = sum(holder.metric("speil_provided_keys") for holder in (self.first, self.second))
        return self.puller.metric("speil_provider_records") >= told

    def close(self) -> None:
        """End everything."""
        self.networks.rule()
        for node in self.nodes:
            node.calm()
            node.close()
        self.registry.close()


@contextmanager
def fault_lab(mode: Mode, folder: Path) -> Iterator[FaultLab]:
    """The started lab."""
    with networks(folder, SUBNETS, HOSTS, captured=False) as made:
        asyncio.run(eventually(made.control.exists, what="the router is at work"))
        lab = FaultLab(mode, made, folder)
        try:
            asyncio.run(lab.start())
            yield lab
        finally:
            lab.close()
