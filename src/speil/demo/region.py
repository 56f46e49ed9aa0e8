"""A region of the demo: its nodes, and the Lease file through which they elect their leader."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from speil.demo.node import Node, NodeError, Ports
from speil.http1.client import HttpClient
from speil.lease.file import FileLease
from speil.overview.view import RegionView, group
from speil.survey.leases import leases_in_files
from speil.survey.nodes import nodes_at

LED_SECONDS_MAX = 30.0  # a lease runs out after ten seconds, and is taken within three more
_POLL_SECONDS = 0.1


@dataclass(frozen=True, slots=True)
class Region:
    """A region's nodes and its Lease."""

    name: str
    lease_file: Path
    nodes: list[Node]

    async def leader(self, other_than: Node | None = None) -> Node:
        """Wait until the Lease names a node that is not `other_than`; that node. Raises NodeError."""
        by_host = {node.host: node for node in self.nodes}
        try:
            async with asyncio.timeout(LED_SECONDS_MAX):
                while True:
                    lease = await FileLease(self.lease_file).get()
                    holder = by_host.get(_host(lease.record.holder_identity)) if lease else None
                    if holder is not None and holder is not other_than:
                        return holder
                    await asyncio.sleep(_POLL_SECONDS)
        except TimeoutError:
            raise NodeError(f"region {self.name} has no leader after {LED_SECONDS_MAX:.0f} s") from None


def _host(identity: str) -> str:
    """`/ip4/127.31.1.1/tcp/…` → `127.31.1.1`."""
    parts = identity.split("/")
    return parts[2] if len(parts) > 2 else ""


@asynccontextmanager
async def running(
    names: Sequence[str],
    node_count: int,
    directory: Path,
    ports: Ports,
    http: HttpClient,
    *flags: str,
    ready: Callable[[], None] = lambda: None,
) -> AsyncIterator[list[Region]]:
    """Regions of `node_count` ready nodes each; they end with the block. `flags` are added to each command line.

    `ready` is called for each node that is ready. Where the block fails or is interrupted, the nodes are killed: an
    interrupt does not wait for them. Raises NodeError.
    """
    regions = []
    for number, name in enumerate(names, 1):
        lease_file = directory / f"{name}.lease"
        nodes = [
            Node(name, f"{name}-{node}", f"127.31.{number}.{node}", directory, ports, lease_file, *flags)
            for node in range(1, node_count + 1)
        ]
        regions.append(Region(name, lease_file, nodes))
    everybody = [node for region in regions for node in region.nodes]
    try:
        for node in everybody:
            await node.start()
        for node in everybody:
            await node.wait_ready(http)
            ready()
        yield regions
    except BaseException:
        await _all(everybody, Node.kill)
        raise
    await _all(everybody, Node.stop)


async def _all(nodes: Sequence[Node], end: Callable[[Node], Coroutine[Any, Any, None]]) -> None:
    async with asyncio.TaskGroup() as group:
        for node in nodes:
            group.create_task(end(node))


async def look(regions: Sequence[Region], gone: Sequence[Node] = ()) -> list[RegionView]:
    """The regions as `speil region status` reads them, without the nodes in `gone`."""
    leases = await leases_in_files([region.lease_file for region in regions])
    urls = [node.metrics_url for region in regions for node in region.nodes if node not in gone]
    return group(leases, await nodes_at(urls))
