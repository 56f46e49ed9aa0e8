"""The image in both containerds, with the rights that the chart gives it: none.

Read-only root, no capability (the list of dropped ones is all that a container has by default), containerd's default
seccomp profile, no new privileges, 128 MiB of memory under a cgroup's limit.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest

from speil.oci.image_builder import BuiltImage
from speil.testing.eventually import eventually
from speil.testing.images import random_image
from speil.version import __version__
from tests.conftest import need
from tests.system.image.archive import OciArchive
from tests.system.image.runtime import Runtime
from tests.system.lab.containerd import ContainerdVersion
from tests.system.lab.namespaces import Namespace, namespaces
from tests.system.lab.node import REGISTRY, Node
from tests.system.lab.processes import LabProcess
from tests.system.lab.registry import Registry

pytestmark = [pytest.mark.system, pytest.mark.requires("namespaces", "runc")]

MEMORY_BYTES_MAX = 128 << 20  # the chart's limit
# by hand 20 GiB: SPEIL_RELAYED_GIB=20; in CI what takes some seconds
RELAYED_GIB = float(os.environ.get("SPEIL_RELAYED_GIB", "2"))
RELAY_SECONDS_MAX = 600


class ImageNode(Node):
    """A node whose speil runs in the image."""

    def __init__(
        self, namespace: Namespace, version: ContainerdVersion, directory: Path, runtime: Runtime, *flags: str
    ) -> None:
        super().__init__(namespace, version, directory, *flags)
        for path in (directory / "data", self.containerd.directory / "root" / "io.containerd.content.v1.content"):
            path.mkdir(parents=True)
        self.name = f"{namespace.name}-speil"
        argv = runtime.argv(
            self.name,
            "/usr/bin/speil",
            *self.argv(*flags)[3:],
            network=namespace,
            mounts={self.containerd.directory: "ro", directory / "data": "rw"},
            flags=["--memory-limit", str(MEMORY_BYTES_MAX)],
        )
        self.speil = LabProcess(runtime.containerd.process.namespace, argv, directory / "speil.log")

    def cgroup(self, file: str) -> str:
        """A file of the container's memory cgroup, v1 or v2."""
        for folder in ("/sys/fs/cgroup/memory/k8s.io", "/sys/fs/cgroup/k8s.io"):
            if (path := Path(folder, self.name, file)).exists():
                return path.read_text()
        return ""

    def memory_bytes_max(self) -> int:
        """The most that the container has had."""
        return int(self.cgroup("memory.max_usage_in_bytes") or self.cgroup("memory.peak"))


@dataclass(frozen=True, slots=True)
class ImageLab:
    """A runtime with the image, two nodes that run it, and their upstream."""

    runtime: Runtime
    registry: Registry
    nodes: list[ImageNode]


@pytest.fixture
async def image_lab(version: ContainerdVersion, archive: OciArchive) -> AsyncIterator[ImageLab]:
    """Nothing of it is left afterwards."""
    need("registry")
    if version.major == 2:
        need("containerd-2-runtime")
    with tempfile.TemporaryDirectory(prefix="speil-image-lab-") as folder, namespaces(2) as (hub, spaces):
        runtime = Runtime(version, Path(folder) / "runtime")
        registry = Registry(hub, Path(folder) / "registry")
        flags = ["--log-format=text", "--bootstrap-kind=static"]
        flags.append(f"--static-bootstrap-peers=/ip4/{spaces[0].address}/tcp/5001,/ip4/{spaces[1].address}/tcp/5001")
        nodes: list[ImageNode] = []
        try:
            await runtime.start(archive.path)
            await registry.start()
            for number, space in enumerate(spaces, 1):
                nodes.append(ImageNode(space, version, Path(folder) / f"n{number}", runtime, *flags))
                await nodes[-1].start(registry.url)
            yield ImageLab(runtime, registry, nodes)
        finally:
            for node in nodes:
                node.close()
            runtime.close()
            registry.close()


def layers(image: BuiltImage) -> list[str]:
    """The layers of the platform that the nodes have."""
    manifest = json.loads(image.blobs[image.manifests["amd64"].digest])
    return [layer["digest"] for layer in manifest["layers"]]


async def test_the_image_serves_pulls_without_a_right(image_lab: ImageLab) -> None:
    """Commands say what they say in the environment; pulls go from node to node; nothing is left of the containers."""
    shown = image_lab.runtime.run("version", "/usr/bin/speil", "version", "--format=json")
    assert json.loads(shown.stdout)["version"] == __version__, shown.stderr
    assert json.loads(shown.stdout)["build"] == "image"

    shown = image_lab.runtime.run("version-flag", "/usr/bin/speil", "--version")
    assert __version__ in shown.stdout, shown.stderr

    image = random_image(1, (3_000_000, 700_000, 40_000))
    image_lab.registry.push(image, "lab/app", "1")
    first, second = image_lab.nodes
    await first.pull("lab/app:1")
    for digest in layers(image):
        url = f"http://127.0.0.1:5000/v2/lab/app/blobs/{digest}?ns={REGISTRY}"
        await eventually(partial(serves, second, url), what=f"{digest} is announced")
    image_lab.registry.forget()
    await second.pull("lab/app:1")
    assert not set(layers(image)) & set(image_lab.registry.gets()), "the second node takes layers from the first"

    status = Path(f"/proc/{speil_pid(first)}/status").read_text()
    facts = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
    assert {facts[name] for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")} == {"0" * 16}
    assert (facts["NoNewPrivs"], facts["Seccomp"]) == ("1", "2")
    for node in image_lab.nodes:
        assert node.memory_bytes_max() < MEMORY_BYTES_MAX
        assert "level=ERROR" not in node.speil.log_text()

    doctor = image_lab.runtime.run(
        "doctor", "/usr/bin/speil", "doctor", "--output=json", f"--containerd-sock={first.containerd.socket}",
        f"--containerd-config={first.containerd.config_file}",
        f"--containerd-registry-config-path={first.containerd.certs}",
        network=first.namespace, mounts={first.containerd.directory: "ro"},
    )  # fmt: skip
    assert findings(doctor.stdout) == findings(doctor_of_the_environment(first)), doctor.stderr


async def test_a_long_relay_stays_below_the_memory_limit(image_lab: ImageLab) -> None:
    """Spegel's 128 MiB: clients beside one another take a blob of another node through a node, for gigabytes."""
    size = 200_000_000
    image = random_image(2, (size,), compress_level=0)
    image_lab.registry.push(image, "lab/large", "1")
    first, second = image_lab.nodes
    await first.pull("lab/large:1")
    (digest,) = layers(image)
    url = f"http://127.0.0.1:5000/v2/lab/large/blobs/{digest}?ns={REGISTRY}"
    await eventually(partial(serves, second, url), timeout_seconds=60, what="the blob is announced")
    rounds, beside = max(1, round(RELAYED_GIB * (1 << 30) / size / 4)), 4
    taken = await asyncio.to_thread(take, second, url, rounds, beside)
    assert taken >= rounds * beside * size
    for node in image_lab.nodes:
        print(f"{node.name}: {node.memory_bytes_max() / (1 << 20):.1f} MiB of memory at most")
        assert node.memory_bytes_max() < MEMORY_BYTES_MAX * 0.75
        assert node.speil.running


def serves(node: Node, url: str) -> bool:
    """Whether speil has it."""
    return node.get(url)[0] == 200


def take(node: Node, url: str, rounds: int, beside: int) -> int:
    """GET a blob over and over, several times beside one another; the bytes that came."""
    done = subprocess.run(
        ["ip", "netns", "exec", node.namespace.name, sys.executable, "-c", _TAKE, url, str(rounds), str(beside)],
        check=True, capture_output=True, text=True, timeout=RELAY_SECONDS_MAX,
    )  # fmt: skip
    return int(done.stdout)


_TAKE = """
import sys, threading, urllib.request
url, rounds, beside = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
taken = []
def take():
    for _ in range(rounds):
        with urllib.request.urlopen(url, timeout=120) as response:
            while block := response.read(1 << 20):
                taken.append(len(block))
threads = [threading.Thread(target=take) for _ in range(beside)]
for thread in threads: thread.start()
for thread in threads: thread.join()
print(sum(taken))
"""


def speil_pid(node: ImageNode) -> int:
    """The process in the container."""
    for folder in ("/sys/fs/cgroup/memory/k8s.io", "/sys/fs/cgroup/k8s.io"):
        if (path := Path(folder, node.name, "cgroup.procs")).exists():
            return int(path.read_text().split()[0])
    raise AssertionError(f"{node.name} has no cgroup")


def doctor_of_the_environment(node: Node) -> str:
    """What doctor says outside the image."""
    done = subprocess.run(
        [
            "ip", "netns", "exec", node.namespace.name, sys.executable, "-m", "speil", "doctor", "--output=json",
            f"--containerd-sock={node.containerd.socket}", f"--containerd-config={node.containerd.config_file}",
            f"--containerd-registry-config-path={node.containerd.certs}",
        ],
        capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
    return done.stdout


def findings(report: str) -> list[tuple[str, str]]:
    """Check and level of each finding."""
    return [(one["check"], one["level"]) for one in json.loads(report)["findings"]]
