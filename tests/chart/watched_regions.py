"""Two regions on loopback that a Prometheus watches: pulls, and one real cause for each alert.

The nodes are the demo's: `speil registry` processes with a Lease in a file. Both regions live through their faults at
the same time. Region A: requests over the border, a node with another Lease, a store that goes away, a leader that is
killed. Region B: a Lease that moves from node to node, and one that can't be read.
"""

from __future__ import annotations

import asyncio
import dataclasses
import itertools
import socket
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from speil.demo.node import Node, Ports
from speil.demo.pulls import NAME, Pulls
from speil.demo.region import Region
from speil.demo.upstream import Upstream
from speil.http1.client import HttpClient
from speil.lease.base import LeaseConflictError
from speil.lease.file import FileLease
from speil.oci.image_builder import BuiltImage
from speil.progress import Progress
from speil.testing.eventually import eventually
from speil.testing.images import random_image
from tests.chart import made_up
from tests.chart.prometheus import Prometheus, faster, prometheus

A, B = "regiona", "regionb"
ZONES = ("zone1", "zone2", "zone1")  # of each region's nodes
SPARE = "regiona-4"  # starts later, with another Lease
UPSTREAM_HOST = "127.31.0.254"
LAYERS = (12_000_000, 6_000_000, 300_000)
STAGED, AT_ONCE = ("1", "2"), ("3", "4")  # tags; rates need a second image, as the first one begins the series
MOVES = 8  # of the Lease; the alert is about more than six
# The Lease that nobody renews takes longest: 60 s by the rule, which is a threshold and not shortened.
SEEN_SECONDS_MAX = 150.0


@dataclass
class Watched:
    """What was seen. `fired` has each alert as it fired, by name and region."""

    server: Prometheus
    began: float
    ended: float = 0.0
    fired: dict[tuple[str, str], dict[str, Any]] = field(default_factory=dict)

    async def alert(self, name: str, region: str) -> None:
        """Wait until an alert fires."""

        def seen() -> bool:
            firing = self.server.firing().items()
            self.fired |= {key: alert for key, alert in firing if key not in self.fired and key[1] in (A, B)}
            return (name, region) in self.fired

        await _eventually(seen, f"{name} fires for {region}")

    async def quiet(self, name: str, region: str) -> None:
        """Wait until an alert is resolved."""
        await _eventually(lambda: (name, region) not in self.server.firing(), f"{name} is resolved for {region}")

    async def value(self, expression: str) -> None:
        """Wait until an expression returns something."""
        await _eventually(lambda: self.server.query(expression), expression)


async def _eventually(condition: Callable[[], object], what: str) -> None:
    await eventually(lambda: asyncio.to_thread(condition), timeout_seconds=SEEN_SECONDS_MAX, what=what)


@contextmanager
def watched(folder: Path, rules: Mapping[str, Any]) -> Iterator[Watched]:
    """Run the regions and live through all of it, under a Prometheus that runs until the end of the block."""
    regions, spare = _regions(folder, Ports(*_free_ports("127.31.1.1", 3)))
    targets = [_target(node) for region in regions for node in region.nodes]
    with made_up.served() as page:
        targets += [_target(spare), {"targets": [page], "labels": {"instance": made_up.NODE, "node": made_up.NODE}}]
        scraped = {"job_name": "speil", "honor_labels": True, "static_configs": targets}
        with prometheus(folder, faster(rules), [scraped]) as server:
            seen = Watched(server, began=time.time())
            asyncio.run(_live(seen, regions, spare))
            yield seen


async def _live(seen: Watched, regions: Sequence[Region], spare: Node) -> None:
    images = {tag: random_image(int(tag), LAYERS) for tag in (*STAGED, *AT_ONCE)}
    nodes = [node for region in regions for node in region.nodes]
    async with AsyncExitStack() as stack:
        http = HttpClient(timeout_seconds=60.0, connections_max=64)
        stack.push_async_callback(http.close)
        upstream = Upstream(NAME, images).serve(UPSTREAM_HOST, _free_ports(UPSTREAM_HOST, 1)[0])
        pulls = Pulls(await stack.enter_async_context(upstream), http, Progress(quiet=True))
        stack.push_async_callback(_stop, [spare, *nodes])
        for node in nodes:
            await node.start()
        for node in nodes:
            await node.wait_ready(http)
        region_a, region_b = regions
        async with asyncio.TaskGroup() as group:
            group.create_task(_lease_faults(seen, region_b))
            # these pulls go on while the Lease of region B is broken
            group.create_task(_pull_all(seen, pulls, region_b, images))
            group.create_task(_faults_of_nodes(seen, pulls, region_a, region_b.nodes[0], spare, images))
        for name, region in seen.fired:
            await seen.quiet(name, region)
        seen.ended = time.time()


def _regions(folder: Path, ports: Ports) -> tuple[list[Region], Node]:
    regions = []
    for number, name in enumerate((A, B), 1):
        lease_file = folder / f"{name}.lease"
        nodes = [
            Node(name, f"{name}-{at}", f"127.31.{number}.{at}", folder, ports, lease_file, f"--zone={zone}")
            for at, zone in enumerate(ZONES, 1)
        ]
        regions.append(Region(name, lease_file, nodes))
    spare = Node(A, SPARE, "127.31.1.4", folder, ports, folder / "other.lease", f"--zone={ZONES[0]}")
    return regions, spare


def _target(node: Node) -> Mapping[str, Any]:
    """With the labels that the chart's monitors set, and that the operator adds."""
    labels = {"instance": node.name, "node": node.name, "pod": f"speil-{node.name}", "namespace": "speil"}
    return {"targets": [node.metrics_url.removeprefix("http://")], "labels": labels}


async def _faults_of_nodes(
    seen: Watched, pulls: Pulls, region: Region, stranger: Node, spare: Node, images: Mapping[str, BuiltImage]
) -> None:
    async with asyncio.TaskGroup() as group:
        group.create_task(_other_lease(seen, spare, pulls.http))
        await _pull_all(seen, pulls, region, images)
        group.create_task(_border(seen, pulls, stranger, region.nodes[0], images["1"]))
        group.create_task(_store_away(seen, region.nodes[1]))
    # last: any of the nodes above may be the leader
    await _leader_killed(seen, region)


async def _pull_all(seen: Watched, pulls: Pulls, region: Region, images: Mapping[str, BuiltImage]) -> None:
    """First staged: one node pulls, then the others, then each once more from its own store. Then all at once."""
    for tag in STAGED:
        await pulls.staged(region.nodes, tag, images[tag])
        for node in region.nodes:
            await pulls.verify(node, images[tag])
        total = f'sum(speil_served_bytes_total{{client="node",source="peer",region="{region.name}"}})'
        await seen.value(f"{total} >= {int(tag)} * 2 * {sum(LAYERS)}")
        upstream = f'sum(speil_upstream_bytes_total{{region="{region.name}"}})'
        await seen.value(f"{upstream} >= {int(tag)} * {sum(LAYERS)}")
    for number, tag in enumerate(AT_ONCE, 1):
        async with asyncio.TaskGroup() as group:
            for node in region.nodes:
                group.create_task(pulls.one(node, tag))
        shared = f'sum(speil_shared_pulls_total{{region="{region.name}"}})'
        await seen.value(f"{shared} >= {number} * {len(region.nodes) * len(LAYERS)}")


async def _border(seen: Watched, pulls: Pulls, stranger: Node, node: Node, image: BuiltImage) -> None:
    """A node of another region asks for a layer, again and again, until the alert fires."""
    async with asyncio.TaskGroup() as group:

        async def knock() -> None:
            while True:
                assert await pulls.knock(stranger, node, image) == 404
                await asyncio.sleep(0.5)

        knocking = group.create_task(knock())
        await seen.alert("SpeilCrossRegionRejected", A)
        knocking.cancel()


async def _store_away(seen: Watched, node: Node) -> None:
    """A node's store is moved away and back."""
    away = node.layout.with_name("away")
    node.layout.rename(away)
    await seen.alert("SpeilStoreUnavailable", A)
    away.rename(node.layout)
    await seen.quiet("SpeilStoreUnavailable", A)


async def _other_lease(seen: Watched, spare: Node, http: HttpClient) -> None:
    """A node of the region asks another Lease: it leads itself, and finds no peer."""
    await spare.start()
    await spare.wait_ready(http)
    await seen.alert("SpeilRegionTwoLeaders", A)
    await seen.alert("SpeilNodeAlone", A)
    await spare.stop()
    await seen.quiet("SpeilRegionTwoLeaders", A)


async def _leader_killed(seen: Watched, region: Region) -> None:
    leader = await region.leader()
    await leader.kill()
    await seen.alert("SpeilRegionWithoutLeader", A)
    await region.leader(other_than=leader)


async def _lease_faults(seen: Watched, region: Region) -> None:
    """Somebody moves the Lease from node to node; then a directory takes its place, and at last nothing does."""
    lease = FileLease(region.lease_file)
    await seen.value(f'speil_election_transitions{{region="{region.name}"}}')
    await eventually(lambda: _has_peers(lease), timeout_seconds=SEEN_SECONDS_MAX, what="the Lease names peers")
    found = await lease.get()
    assert found
    holders = itertools.cycle([*found.record.peers, found.record.holder_identity])
    moved = 0
    while moved < MOVES:
        found = await lease.get()
        assert found
        transitions = found.record.leader_transitions + 1
        record = dataclasses.replace(found.record, holder_identity=next(holders), leader_transitions=transitions)
        try:
            await lease.put(record, found)
            moved += 1
        except LeaseConflictError:
            continue
    await seen.alert("SpeilLeaderFlapping", region.name)
    region.lease_file.unlink()
    region.lease_file.mkdir()
    await seen.alert("SpeilElectionDenied", region.name)
    await seen.alert("SpeilLeaseNotRenewed", region.name)
    region.lease_file.rmdir()
    await region.leader()


async def _has_peers(lease: FileLease) -> bool:
    found = await lease.get()
    return found is not None and len(found.record.peers) > 1


async def _stop(nodes: Sequence[Node]) -> None:
    async with asyncio.TaskGroup() as group:
        for node in nodes:
            group.create_task(node.stop())


def _free_ports(host: str, count: int) -> list[int]:
    with ExitStack() as stack:
        return [stack.enter_context(socket.create_server((host, 0))).getsockname()[1] for _ in range(count)]
