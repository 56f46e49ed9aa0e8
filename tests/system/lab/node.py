"""A node of the lab: namespace, containerd, speil, and hosts.toml written by speil itself."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

from speil.testing.eventually import eventually
from tests.system.lab.containerd import Containerd, ContainerdVersion
from tests.system.lab.namespaces import Namespace
from tests.system.lab.processes import LabProcess

REGISTRY = "reg.test"
ENVIRONMENT_SECONDS = 30


class Node:
    """Use `start`, `pull`, `close`."""

    def __init__(self, namespace: Namespace, version: ContainerdVersion, directory: Path, *flags: str) -> None:
        """`flags` are speil's, beside those that every node of the lab has."""
        self.namespace, self.directory = namespace, directory
        self.containerd = Containerd(version, namespace, directory / "containerd")
        self.speil = LabProcess(namespace, self.argv(*flags), directory / "speil.log")

    def argv(self, *flags: str) -> list[str]:
        """How speil is started here."""
        return [
            sys.executable, "-m", "speil", "registry", "--log-level=DEBUG",
            f"--containerd-sock={self.containerd.socket}", f"--containerd-config={self.containerd.config_file}",
            f"--data-dir={self.directory / 'data'}", "--mirror-resolve-timeout=500ms", *flags,
        ]  # fmt: skip

    async def start(self, upstream: str) -> None:
        """containerd first, then speil, then hosts.toml."""
        await self.containerd.start()
        await self.start_speil()
        self.configure(upstream)

    async def start_speil(self) -> None:
        """Start speil and wait until it is ready."""
        self.speil.start()
        await eventually(self.ready, timeout_seconds=30, what=f"speil on {self.namespace.address} is ready")

    def configure(self, upstream: str, *flags: str) -> None:
        """`speil configuration`, and the upstream that stands for the registry's name."""
        subprocess.run(
            [
                sys.executable, "-m", "speil", "configuration", "--mirror-targets=http://127.0.0.1:5000",
                f"--mirrored-registries=http://{REGISTRY}",
                f"--containerd-registry-config-path={self.containerd.certs}", *flags,
            ],
            check=True, capture_output=True, timeout=ENVIRONMENT_SECONDS,
        )  # fmt: skip
        hosts = self.containerd.certs / REGISTRY / "hosts.toml"
        hosts.write_text(hosts.read_text().replace(f"http://{REGISTRY}", upstream))

    async def pull(self, image: str, login: tuple[str, str] | None = None) -> str:
        """Pull as the kubelet does, with a pull secret or without."""
        return await self.containerd.pull(f"{REGISTRY}/{image}", login)

    def ready(self) -> bool:
        """Whether /readyz says so."""
        assert self.speil.running, self.speil.log_text()[-3000:]
        return self.get("http://127.0.0.1:5000/readyz")[0] == 200

    def get(self, url: str) -> tuple[int, bytes]:
        """GET from inside the node's namespace."""
        script = "import sys,urllib.request as u,urllib.error as e\n" \
            "try:\n r=u.urlopen(sys.argv[1],timeout=10); s=r.status; b=r.read()\n" \
            "except e.HTTPError as x: s=x.code; b=x.read()\n" \
            "except OSError: s=0; b=b''\n" \
            "sys.stdout.buffer.write(b'%d\\n'%s+b)"  # fmt: skip
        done = subprocess.run(
            ["ip", "netns", "exec", self.namespace.name, sys.executable, "-c", script, url],
            check=True, capture_output=True, timeout=ENVIRONMENT_SECONDS,
        )  # fmt: skip
        status, _, body = done.stdout.partition(b"\n")
        return int(status), body

    def metric(self, name: str, **labels: str) -> float:
        """The sum of a series over the label sets that match."""
        _, body = self.get("http://127.0.0.1:9090/metrics")
        lines = "".join(line for line in body.decode().splitlines(keepends=True) if line.startswith(name))
        return sum(
            sample.value
            for family in text_string_to_metric_families(lines)
            for sample in family.samples
            if sample.name == name and labels.items() <= sample.labels.items()
        )

    def close(self) -> None:
        """End everything."""
        self.speil.stop()
        self.containerd.close()
