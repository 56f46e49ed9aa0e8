"""The lab's fixtures: three nodes of one containerd version, and the registry."""

from __future__ import annotations

import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.conftest import need
from tests.system.lab.containerd import ContainerdVersion
from tests.system.lab.namespaces import namespaces
from tests.system.lab.node import Node
from tests.system.lab.registry import Registry
from tests.system.lab.versions import containerd_version

NODES = 3


@dataclass(frozen=True, slots=True)
class Lab:
    """Started nodes and their upstream."""

    registry: Registry
    nodes: list[Node]


@pytest.fixture(params=[1, 2], ids=["containerd-1.6", "containerd-2"])
def version(request: pytest.FixtureRequest) -> ContainerdVersion:
    """Each generation of containerd."""
    return containerd_version(request.param)


@pytest.fixture
async def lab(version: ContainerdVersion) -> AsyncIterator[Lab]:
    """Three nodes, each with containerd and speil, and the registry; nothing of it is left afterwards."""
    async with started_lab(version) as lab:
        yield lab


@asynccontextmanager
async def started_lab(version: ContainerdVersion, *, private: bool = False) -> AsyncIterator[Lab]:
    """The lab for the time of the block. `private`: the registry asks for a login."""
    need("namespaces")
    need("registry")
    with tempfile.TemporaryDirectory(prefix="speil-lab-") as folder, namespaces(NODES) as (hub, spaces):
        registry = Registry(hub, Path(folder) / "registry", private=private)
        seeds = ",".join(f"/ip4/{space.address}/tcp/5001" for space in spaces[:2])
        flags = ["--log-format=text", "--bootstrap-kind=static", f"--static-bootstrap-peers={seeds}"]
        nodes: list[Node] = []
        try:
            await registry.start()
            for number, space in enumerate(spaces, 1):
                nodes.append(Node(space, version, Path(folder) / f"n{number}", *flags))
                await nodes[-1].start(registry.url)
            yield Lab(registry, nodes)
        finally:
            for node in nodes:
                node.close()
            registry.close()
