"""A containerd of one node: its own root, socket and certs.d; CRI on; 1.6 (Debian's) or 2.x (built)."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from speil.store.base import StoreError
from speil.store.containerd.client import ContainerdClient
from speil.testing.eventually import eventually
from tests.system.lab.namespaces import Namespace
from tests.system.lab.processes import LabProcess

_CONFIG_1 = """version = 2
root = "{root}"
state = "{state}"
disabled_plugins = ["io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.aufs",
  "io.containerd.snapshotter.v1.zfs", "io.containerd.snapshotter.v1.devmapper", "io.containerd.internal.v1.opt",
  "io.containerd.tracing.processor.v1.otlp"]
[grpc]
  address = "{socket}"
[plugins."io.containerd.grpc.v1.cri".registry]
  config_path = "{certs}"
[plugins."io.containerd.grpc.v1.cri".containerd]
  snapshotter = "native"
  discard_unpacked_layers = {discard}
[plugins."io.containerd.grpc.v1.cri".cni]
  bin_dir = "{cni}"
  conf_dir = "{cni}"
"""
_CONFIG_2 = """version = 3
root = "{root}"
state = "{state}"
disabled_plugins = ["io.containerd.nri.v1.nri", "io.containerd.internal.v1.opt"]
[grpc]
  address = "{socket}"
[ttrpc]
  address = "{socket}.ttrpc"
[plugins.'io.containerd.cri.v1.images']
  snapshotter = "native"
  discard_unpacked_layers = {discard}
[plugins.'io.containerd.cri.v1.images'.registry]
  config_path = "{certs}"
[plugins.'io.containerd.cri.v1.runtime'.cni]
  bin_dirs = ["{cni}"]
  conf_dir = "{cni}"
[[plugins.'io.containerd.transfer.v1.local'.unpack_config]]
  platform = "linux/amd64"
  snapshotter = "native"
"""

_MULTIPART = """[plugins.'io.containerd.transfer.v1.local']
  concurrent_layer_fetch_buffer = 8388608
"""


@dataclass(frozen=True, slots=True)
class ContainerdVersion:
    """Which containerd: a name for test ids, and its program."""

    name: str
    program: str
    major: int
    multipart: bool = False  # layers in parts (concurrent_layer_fetch_buffer), as some distributions have it


class Containerd:
    """One containerd; `start` waits until it serves CRI."""

    def __init__(self, version: ContainerdVersion, node: Namespace, directory: Path, *, discard: bool = False) -> None:
        self.version, self.directory = version, directory
        self.socket, self.certs = directory / "c.sock", directory / "certs.d"
        self.config_file = directory / "config.toml"
        for part in ("certs.d", "state", "cni"):
            (directory / part).mkdir(parents=True)
        template = _CONFIG_1 if version.major == 1 else _CONFIG_2 + _MULTIPART * version.multipart
        self.config_file.write_text(
            template.format(
                root=directory / "root",
                state=directory / "state",
                socket=self.socket,
                certs=self.certs,
                cni=directory / "cni",
                discard=str(discard).lower(),
            )
        )
        argv = [version.program, "-c", str(self.config_file)]
        self.process = LabProcess(node, argv, directory / "containerd.log")

    async def start(self) -> None:
        """Start, and wait for CRI."""
        self.process.start()
        await eventually(self._serves, timeout_seconds=60, what=f"containerd {self.version.name} serves")

    async def pull(self, image: str, login: tuple[str, str] | None = None) -> str:
        """Pull as the kubelet does, with a pull secret or without. Raises StoreError where the pull fails."""
        client = self.client()
        try:
            return await client.pull_image(image, login)
        finally:
            client.close()

    async def remove(self, image: str) -> None:
        """Remove an image through CRI."""
        client = self.client()
        try:
            await client.remove_image(image)
        finally:
            client.close()

    def client(self) -> ContainerdClient:
        """A client of its socket."""
        return ContainerdClient(str(self.socket), "k8s.io")

    def blobs(self) -> set[str]:
        """Digests in its content store."""
        folder = self.directory / "root" / "io.containerd.content.v1.content" / "blobs" / "sha256"
        return {f"sha256:{file.name}" for file in folder.iterdir()} if folder.is_dir() else set()

    def ingests(self) -> list[Path]:
        """Content that is being taken in."""
        return list((self.directory / "root" / "io.containerd.content.v1.content" / "ingest").glob("*"))

    def close(self) -> None:
        """End it and remove what it left."""
        self.process.stop()
        for line in Path("/proc/self/mounts").read_text().splitlines():
            if (target := line.split()[1]).startswith(str(self.directory)):
                subprocess.run(["umount", "-l", target], check=False, capture_output=True, timeout=30)
        shutil.rmtree(self.directory, ignore_errors=True)

    async def _serves(self) -> bool:
        assert self.process.running, self.process.log_text()[-2000:]
        client = self.client()
        try:
            await client.runtime_status()
        except StoreError:
            return False
        finally:
            client.close()
        return True
