"""Four nodes with nothing, one more host in their network, and the upstream in the hub."""

from __future__ import annotations

import asyncio
import itertools
import os
import re
import signal
import subprocess
import tarfile
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from functools import partial
from pathlib import Path

from speil.kad.key import place
from speil.multiformats.content_key import content_key
from speil.multiformats.peer_id import PeerId
from speil.oci.digest import Digest
from speil.oci.image_builder import BuiltImage
from speil.testing.eventually import eventually
from speil.testing.images import random_image
from tests.requirements import ROOT
from tests.system.faults.at_once.upstream import FaultyUpstream
from tests.system.faults.lab import Mode
from tests.system.faults.node import START_SECONDS_MAX, FaultNode
from tests.system.lab.containerd import ContainerdVersion
from tests.system.lab.doors import door
from tests.system.lab.namespaces import Namespace, namespaces
from tests.system.lab.node import REGISTRY

NODES = 4
# one that is under way for long enough, one that is too large to be verified first, one that is not
LAYERS = (16_000_000, 4_600_000, 300_000)
BYTES_PER_SECOND = 6_000_000
SLOW_BYTES_PER_SECOND = 1_500_000  # until each node is where the fault is to come in
CONTENT_BYTES = 1 << 30
GROWS_MEANWHILE_BYTES = 1 << 20  # a disk can't be made smaller than what is on it
NOWHERE = "02:00:00:00:00:99"  # no network card has it
REGION = "lab"
OLD_COMMIT = "d7161350a5b7d6d1beeacdbe9c5c5a96c3271db9"
_numbers = itertools.count(1)


class SharingNode(FaultNode):
    """Its content store is a disk of its own, which can be full; its containerd can be frozen."""

    def __init__(self, namespace: Namespace, mode: Mode, directory: Path, *flags: str) -> None:
        version = ContainerdVersion(mode.key, mode.program, mode.major)
        super().__init__(namespace, version, directory, *flags, multipart=mode.multipart)
        self.flags = flags
        self.content = self.containerd.directory / "root" / "io.containerd.content.v1.content"
        self._stopped = self._has_disk = False
        self.peer: PeerId  # set when it has started

    @property
    def ingested(self) -> dict[str, Path]:
        """The files of ingests by the digest that their reference ends with."""
        found = {}
        for folder in self.containerd.ingests():
            try:
                found[(folder / "ref").read_text().rpartition("sha256:")[2]] = folder / "data"
            except OSError:
                continue
        return found

    def make_disk(self) -> None:
        """Before containerd starts."""
        self.content.mkdir(parents=True)
        _mount("-t", "tmpfs", "-o", f"size={CONTENT_BYTES}", "tmpfs", str(self.content))
        self._has_disk = True

    def fill_disk(self) -> None:
        """Next to nothing more fits into its content store."""
        found = os.statvfs(self.content)
        used = (found.f_blocks - found.f_bfree) * found.f_frsize
        _mount("-o", f"remount,size={used + GROWS_MEANWHILE_BYTES}", str(self.content))

    def freeze_containerd(self) -> None:
        """SIGSTOP."""
        self.containerd.process.signal(signal.SIGSTOP)
        self._stopped = True

    def calm(self) -> None:
        """See FaultNode."""
        super().calm()
        if self._stopped:
            self.containerd.process.signal(signal.SIGCONT)
            self._stopped = False
        if self._has_disk:
            _mount("-o", f"remount,size={CONTENT_BYTES}", str(self.content))

    def close(self) -> None:
        """See Node."""
        self.calm()
        self.speil.stop()
        self.containerd.process.stop()
        subprocess.run(["umount", "-l", str(self.content)], check=False, capture_output=True, timeout=30)
        self.containerd.close()


class SharingLab:
    """Use `start`, then trials with `repair` after each."""

    def __init__(self, mode: Mode, hub: Namespace, spaces: Sequence[Namespace], folder: Path) -> None:
        self.mode, self.hub, self.folder = mode, hub, folder
        *hosts, self.stranger = spaces
        seeds = ",".join(f"/ip4/{one.address}/tcp/5001" for one in hosts[:2])
        self.secret = folder / "secret"
        self.secret.write_text("0123456789abcdef0123456789abcdef\n")
        flags = ["--log-format=text", "--bootstrap-kind=static", f"--static-bootstrap-peers={seeds}"]
        self.nodes = [SharingNode(one, mode, folder / f"n{number}", *flags) for number, one in enumerate(hosts, 1)]
        self.upstream = FaultyUpstream(BYTES_PER_SECOND)
        self.clean_seconds: dict[bool, float] = {}  # by whether it is counted from the middle of the pull
        self._cut: list[tuple[Namespace, str]] = []
        self._url = ""

    async def start(self) -> None:
        """Everything, until the nodes have met."""
        for node in self.nodes:
            node.make_disk()
        await asyncio.gather(*(node.containerd.start() for node in self.nodes))
        for node in self.nodes:
            node.speil.start()
        await self.met()
        for node in self.nodes:
            node.peer = PeerId.parse(node.peer_id)
            node.configure("http://upstream")

    async def met(self) -> None:
        """Until all are ready and know each other."""
        for node in self.nodes:
            others = [other for other in self.nodes if other is not node]
            await eventually(
                partial(node.has_met, *others), timeout_seconds=START_SECONDS_MAX, what=f"{node.address} has met all"
            )

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[None]:
        """The upstream serves, and every containerd is configured for it."""
        async with door(self.hub, self.upstream.answer) as self._url:
            for node in self.nodes:
                hosts = node.containerd.certs / REGISTRY / "hosts.toml"
                hosts.write_text(re.sub("(?m)^server = .*", f"server = '{self._url}'", hosts.read_text()))
            yield

    def new_image(self, umpire: SharingNode | None = None) -> tuple[str, BuiltImage]:
        """An image that no node has; the umpire of its largest layer is `umpire`."""
        while True:
            number = next(_numbers)
            image = random_image(7_000 + number, LAYERS, compress_level=0)
            if umpire is None or self.umpire_of(largest_of(image)) is umpire:
                break
        name = f"lab/atonce{number}"
        self.upstream.add(name, image)
        return f"{name}:1", image

    def umpire_of(self, digest: Digest) -> SharingNode:
        """The node that is closest to a key."""
        key = place(content_key(str(digest)))
        return min(self.nodes, key=lambda node: place(node.peer.multihash) ^ key)

    # --- other settings, until the trial's stack is closed ------------------------------------------------

    async def with_secret(self, stack: AsyncExitStack) -> None:
        """All nodes are in a region that has a secret."""
        await self._restart(self.nodes, f"--region={REGION}", f"--region-secret-file={self.secret}")
        for node in self.nodes:
            node.configure(self._url, f"--region={REGION}", f"--region-secret-file={self.secret}")
            stack.callback(self._as_before, node)

    async def run_other(self, node: SharingNode, source: Path, stack: AsyncExitStack) -> None:
        """A node runs a speil from other sources."""
        stack.callback(self._as_before, node)
        await asyncio.to_thread(node.speil.stop)
        node.speil.argv = ["env", f"PYTHONPATH={source}", *node.argv(*node.flags)]
        await node.start_speil()
        await self.met()

    async def _restart(self, nodes: Sequence[SharingNode], *flags: str) -> None:
        for node in nodes:
            node.speil.argv = node.argv(*node.flags, *flags)
            node.is_dirty = True
        await asyncio.gather(*(node.revive() for node in nodes))
        await self.met()

    def _as_before(self, node: SharingNode) -> None:
        node.speil.argv = node.argv(*node.flags)  # `repair` starts it anew
        node.configure(self._url)

    # --- the network ------------------------------------------------------------------------------------

    def cut(self, one: Namespace, *others: Namespace) -> None:
        """Packets between a host and others are lost: nobody is told."""
        for here, there in ((one, others), *((other, (one,)) for other in others)):
            if here is not self.hub:
                _neighbours(here, *(f"replace {two.address} lladdr {NOWHERE} nud permanent" for two in there))
                self._cut += [(here, two.address) for two in there]

    def cut_off(self, node: SharingNode) -> None:
        """As a node without power: nothing of it reaches anybody, nor the other way round."""
        self.cut(node.namespace, *(one.namespace for one in self.nodes if one is not node), self.stranger, self.hub)

    def join_networks(self) -> None:
        """Undo all of `cut`."""
        for here in dict.fromkeys(here for here, _ in self._cut):
            _neighbours(here, *(f"del {address}" for one, address in self._cut if one is here))
        self._cut.clear()

    def calm(self) -> None:
        """Undo what was done to links, processes, disks and the upstream."""
        self.join_networks()
        self.upstream.calm()
        for node in self.nodes:
            node.calm()

    async def repair(self) -> None:
        """The lab is as new: no node blames another one."""
        self.calm()
        for node in self.nodes:
            node.is_dirty = True
        await asyncio.gather(*(node.revive() for node in self.nodes))
        await self.met()


def largest_of(image: BuiltImage) -> Digest:
    """The layer in whose middle faults come."""
    return max(image.blobs, key=lambda digest: len(image.blobs[digest]))


def old_source(folder: Path) -> Path | None:
    """The sources of the last commit that knew nothing of sharing in flight; None without the history."""
    archive = folder / "old.tar"
    with archive.open("wb") as file:
        done = subprocess.run(
            ["git", "-C", str(ROOT), "archive", OLD_COMMIT, "src"],
            stdout=file, stderr=subprocess.DEVNULL, check=False, timeout=60,
        )  # fmt: skip
    if done.returncode:
        return None
    with tarfile.open(archive) as opened:
        opened.extractall(folder / "old", filter="data")
    return folder / "old" / "src"


def _neighbours(here: Namespace, *changes: str) -> None:
    lines = "".join(f"neigh {one} dev eth0\n" for one in changes)
    subprocess.run(
        ["ip", "-n", here.name, "-batch", "-"],
        input=lines.encode(), check=True, capture_output=True, timeout=30,
    )  # fmt: skip


def _mount(*arguments: str) -> None:
    subprocess.run(["mount", *arguments], check=True, capture_output=True, timeout=30)


@contextmanager
def sharing_lab(mode: Mode, folder: Path) -> Iterator[SharingLab]:
    """The started lab."""
    with namespaces(NODES + 1) as (hub, spaces):
        lab = SharingLab(mode, hub, spaces, folder)
        try:
            asyncio.run(lab.start())
            yield lab
        finally:
            lab.calm()
            for node in lab.nodes:
                node.close()
