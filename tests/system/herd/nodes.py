"""Nodes of the herd lab: speil with a real containerd, or with a store directory and a simulated runtime."""

from __future__ import annotations

import asyncio
import json
import shutil
import subprocess
import sys
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from speil.oci.digest import Digest
from speil.store.oci_layout import OciLayoutStore
from speil.testing.eventually import eventually
from tests.requirements import tool_path
from tests.system.herd.runtime import SimulatedRuntime
from tests.system.lab.containerd import ContainerdVersion
from tests.system.lab.namespaces import Namespace, get_inside
from tests.system.lab.node import REGISTRY, Node
from tests.system.lab.processes import LabProcess

PULL_SECONDS_MAX = 900.0
COLLECT_SECONDS_MAX = 60.0
_LAB_FLAGS = ("--mirror-resolve-timeout", "--log-level")  # of `Node`: here speil runs with its defaults


@dataclass(frozen=True, slots=True)
class Mode:
    """What the nodes download with."""

    key: str
    title: str
    major: int = 0  # of containerd; 0: the simulated runtime
    multipart: bool = False

    def version(self) -> ContainerdVersion:
        """The containerd."""
        program = shutil.which("containerd") if self.major == 1 else str(tool_path("containerd"))
        assert program
        return ContainerdVersion(self.key, program, self.major, self.multipart)


MODES = (
    Mode("containerd-1.6", "containerd 1.6", 1),
    Mode("containerd-2", "containerd 2.x", 2),
    Mode("containerd-2-multipart", "containerd 2.x, concurrent_layer_fetch_buffer", 2, multipart=True),
)
SIMULATED = Mode("simulated", "simulated runtime, three layers at a time")


class HerdNode(Protocol):
    """One node, whatever it downloads with."""

    namespace: Namespace
    speil: LabProcess

    async def start(self, upstream: str) -> None:
        """Start it, until it is ready."""

    async def pull(self, image: str, platform: str = "") -> None:
        """Pull `repository:tag`; "" is this machine's platform. Raises what fails."""

    async def forget(self, image: str, digests: Collection[Digest]) -> None:
        """Remove an image and wait until its content is gone."""

    def get(self, url: str) -> tuple[int, bytes]:
        """GET from inside the namespace; status 0 where nobody answers."""

    def close(self) -> None:
        """End it, and remove what it left."""


class ContainerdNode(Node):
    """A node with a real containerd."""

    def __init__(self, namespace: Namespace, mode: Mode, directory: Path, *flags: str) -> None:
        super().__init__(namespace, mode.version(), directory, *flags)
        self._ctr = shutil.which("ctr") if mode.major == 1 else str(tool_path("ctr"))

    def argv(self, *flags: str) -> list[str]:
        """See Node."""
        return [one for one in super().argv() if not one.startswith(_LAB_FLAGS)] + list(flags)

    def get(self, url: str) -> tuple[int, bytes]:
        """See HerdNode."""
        return get_inside(self.namespace, url)

    async def pull(self, image: str, platform: str = "") -> None:  # type: ignore[override]
        """See HerdNode. Other platforms are fetched by `ctr`, because the CRI has no way to name one."""
        if not platform:
            await self.containerd.pull(f"{REGISTRY}/{image}")
            return
        process = await asyncio.create_subprocess_exec(
            "ip", "netns", "exec", self.namespace.name,
            str(self._ctr), "--address", str(self.containerd.socket), "--namespace", "k8s.io",
            "content", "fetch", "--platform", platform, "--hosts-dir", str(self.containerd.certs),
            f"{REGISTRY}/{image}",
            stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
        try:
            async with asyncio.timeout(PULL_SECONDS_MAX):
                _, printed = await process.communicate()
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        assert process.returncode == 0, printed.decode()

    async def forget(self, image: str, digests: Collection[Digest]) -> None:
        """See HerdNode."""
        await self.containerd.remove(f"{REGISTRY}/{image}")
        await asyncio.to_thread(self._remove_fetched, image)
        wanted = {str(digest) for digest in digests}
        await eventually(
            lambda: not wanted & self.containerd.blobs(),
            timeout_seconds=COLLECT_SECONDS_MAX,
            what=f"containerd of {self.namespace.address} has removed {image}",
        )

    def _remove_fetched(self, image: str) -> None:
        """What `ctr` fetched is no image of the CRI."""
        subprocess.run(
            [
                str(self._ctr), "--address", str(self.containerd.socket), "--namespace", "k8s.io",
                "images", "rm", "--sync", f"{REGISTRY}/{image}",
            ],
            check=False, capture_output=True, timeout=COLLECT_SECONDS_MAX,
        )  # fmt: skip


class SimulatedNode:
    """A node whose store is a directory, with a runtime in this process that downloads into it."""

    def __init__(self, namespace: Namespace, directory: Path, piece_bytes: int, *flags: str) -> None:
        self.namespace, self.directory = namespace, directory
        blobs = directory / "layout" / "blobs" / "sha256"
        blobs.mkdir(parents=True)
        (directory / "layout" / "oci-layout").write_text('{"imageLayoutVersion":"1.0.0"}')
        (directory / "layout" / "index.json").write_text('{"schemaVersion":2,"manifests":[]}')
        self.store = OciLayoutStore(directory / "layout")
        self._piece_bytes, self._upstream = piece_bytes, ""
        argv = [
            sys.executable, "-m", "speil", "registry", "--store-kind=oci-layout",
            f"--oci-layout-path={directory / 'layout'}", f"--data-dir={directory / 'data'}",
            "--node-platforms=linux/amd64", *flags,
        ]  # fmt: skip
        self.speil = LabProcess(namespace, argv, directory / "speil.log")

    async def start(self, upstream: str) -> None:
        """See HerdNode."""
        self._upstream = upstream
        self.speil.start()

        def ready() -> bool:
            assert self.speil.running, self.speil.log_text()[-3000:]
            return self.get("http://127.0.0.1:5000/readyz")[0] == 200

        await eventually(ready, timeout_seconds=180, what=f"speil on {self.namespace.address} is ready")

    async def pull(self, image: str, platform: str = "") -> None:
        """See HerdNode."""
        hosts = ("http://127.0.0.1:5000", self._upstream)
        runtime = SimulatedRuntime(self.namespace, self.store, hosts, self._piece_bytes)
        await runtime.pull(REGISTRY, image)

    async def forget(self, image: str, digests: Collection[Digest]) -> None:
        """See HerdNode."""
        for digest in digests:
            (self.directory / "layout" / "blobs" / digest.algorithm / digest.hex).unlink(missing_ok=True)

    def get(self, url: str) -> tuple[int, bytes]:
        """See HerdNode."""
        return get_inside(self.namespace, url)

    def close(self) -> None:
        """See HerdNode."""
        self.speil.stop()


def state_of(node: HerdNode) -> dict[str, Any]:
    """The JSON of /debug/state."""
    status, body = node.get("http://127.0.0.1:9090/debug/state")
    assert status == 200, f"{node.namespace.address} answers {status}"
    found: dict[str, Any] = json.loads(body)
    return found


def samples_of(node: HerdNode, *names: str) -> dict[str, float]:
    """Series of the node's metrics with these names, by name and labels as the page has them."""
    _, body = node.get("http://127.0.0.1:9090/metrics")
    found = {}
    for line in body.decode().splitlines():
        series, _, value = line.rpartition(" ")
        if series.partition("{")[0] in names:
            found[series] = float(value)
    return found
