"""Nodes for shell tests: real `speil registry` processes on loopback, with OCI-layout stores."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import socket
import sys
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from random import Random

import aiohttp

from speil.oci.image_builder import BuiltImage
from speil.store.oci_layout import OciLayoutStore
from speil.testing.eventually import eventually

_hosts = itertools.count(1)
# Below the range from which the kernel takes ports of outgoing connections: a port that is free now stays free until
# the server binds it. Each process of a test run starts at a place of its own.
PORTS = range(12_000, 32_000)
_ports = itertools.cycle(PORTS)
for _ in range(Random(os.getpid()).randrange(len(PORTS))):
    next(_ports)
STOP_SECONDS_MAX = 10


@dataclass(frozen=True, slots=True)
class RunningNode:
    """Where a node listens, and its process."""

    host: str
    registry_port: int
    router_port: int
    metrics_port: int
    log: Path
    process: asyncio.subprocess.Process

    @property
    def url(self) -> str:
        """The registry."""
        return f"http://{self.host}:{self.registry_port}"


def free_ports(host: str, count: int) -> list[int]:
    """Ports nobody listens on now."""
    found: list[int] = []
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    for port in itertools.islice(_ports, len(PORTS)):
        if len(found) == count:
            break
        with contextlib.suppress(OSError), socket.create_server((host, port), family=family):
            found.append(port)
    return found


async def write_layout(root: Path, image: BuiltImage, *names: str) -> None:
    """An image as an OCI layout."""
    store = OciLayoutStore(root)
    for digest, data in image.blobs.items():
        await store.ingest(digest, len(data), _once(data))
    for name in names:
        await store.tag(name, image.index)


async def _once(data: bytes) -> AsyncIterator[bytes]:
    yield data


@asynccontextmanager
async def running_node(
    directory: Path, layout: Path, *flags: str, ports: Iterable[int] = (), ready: bool = True
) -> AsyncIterator[RunningNode]:
    """A ready node (one that is alive, where `ready` is False); ended by its pid."""
    host = f"127.33.{os.getpid() % 250}.{next(_hosts)}"
    registry, router, metrics = list(ports) or free_ports(host, 3)
    log = directory / f"{host}.log"
    argv = [
        sys.executable, "-m", "speil", "registry", "--log-format=text", "--log-level=DEBUG", "--store-kind=oci-layout",
        f"--oci-layout-path={layout}", f"--registry-addr={host}:{registry}", f"--router-addr={host}:{router}",
        f"--metrics-addr={host}:{metrics}", "--bootstrap-kind=static", *flags,
    ]  # fmt: skip
    with log.open("wb") as out:
        process = await asyncio.create_subprocess_exec(*argv, stdin=asyncio.subprocess.DEVNULL, stdout=out, stderr=out)
    node = RunningNode(host, registry, router, metrics, log, process)
    try:
        async with aiohttp.ClientSession() as session:
            probe = f"{node.url}/{'readyz' if ready else 'livez'}"
            await eventually(lambda: _answers(node, session, probe), timeout_seconds=30, what=f"{host} is ready")
        yield node
    finally:
        if process.returncode is None:
            process.terminate()
            async with asyncio.timeout(STOP_SECONDS_MAX):
                await process.wait()


async def _answers(node: RunningNode, session: aiohttp.ClientSession, probe: str) -> bool:
    assert node.process.returncode is None, node.log.read_text()[-2000:]
    try:
        async with session.get(probe) as response:
            return response.status == 200
    except aiohttp.ClientError:
        return False
