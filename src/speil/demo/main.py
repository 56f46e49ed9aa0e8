"""Runs the demo: starts two regions, pulls in both, sends a request across the border, kills a leader, prints tables.

All nodes of both regions pull at the same moment, and no node has the image yet. In each region one node downloads a
blob from upstream, and the others follow its download: one copy for each region. Then every blob is requested once more
from each node's own speil, and its digest is verified. A request across the border, for a layer that the other region
has, must get a 404. At last the leader of the first region is killed in the middle of a pull that it serves: the pull
goes on, and the region elects its next leader.
"""

from __future__ import annotations

import asyncio
import socket
import tempfile
import threading
import time
from collections.abc import Mapping
from contextlib import AsyncExitStack, ExitStack
from dataclasses import dataclass
from pathlib import Path

from speil.demo.client import PullError
from speil.demo.failover import kill_the_leader
from speil.demo.image import make_images
from speil.demo.node import NodeError, Ports
from speil.demo.pulls import NAME, REGISTRY, Pulls
from speil.demo.region import Region, look, running
from speil.demo.report import Report, copies_of, node_table, region_table, say
from speil.demo.upstream import Upstream
from speil.http1.client import HttpClient
from speil.oci.image_builder import BuiltImage
from speil.progress import Progress
from speil.setting import boolean, integer, setting
from speil.survey.table import table

REGIONS = ("regiona", "regionb")
UPSTREAM_HOST = "127.31.0.254"
FIRST_TAG, SECOND_TAG = "1", "2"
REQUEST_SECONDS_MAX = 300.0  # of a layer, where all nodes share a loaded machine
CONNECTIONS_MAX = 256  # three for each of some eighty nodes
LINK_BYTES_PER_SECOND = 16 << 20  # of a region to the upstream: the pulls take long enough to overlap


@dataclass(frozen=True, slots=True)
class DemoSettings:
    """See the help of each setting."""

    nodes: int = setting(integer, 3, help="How many nodes to start in each of the two regions.")
    layers: int = setting(integer, 5, help="Layers of the image for this platform.")
    layer_mib: int = setting(integer, 24, help="MiB of files in each layer, before compression.")
    quiet: bool = setting(boolean, False, also=("-q",), help="Print the tables and the verdict alone.")


async def run(settings: DemoSettings) -> int:
    """Run the demo and print on stdout what happens. Returns the exit code: 1 where something was wrong."""
    try:
        with (
            tempfile.TemporaryDirectory(prefix="speil-demo-") as directory,
            Progress(quiet=settings.quiet, lines=False) as progress,
        ):
            return await _run(settings, Path(directory), time.monotonic(), progress)
    except* (NodeError, PullError) as group:
        for failure in _leaves(group):
            say(f"the demo failed: {failure}")
    return 1


async def _run(settings: DemoSettings, directory: Path, started: float, progress: Progress) -> int:
    progress.line(f"making two images of {settings.layers} layers from files of this machine")
    progress.stage("making layers", 2 * (settings.layers + 1))
    stopped = threading.Event()

    def made(line: str) -> None:
        progress.line(f"  {line}")
        progress.advance()

    try:
        first, second = await asyncio.to_thread(
            make_images, 2, settings.layers, settings.layer_mib << 20, made, stopped.is_set
        )
    finally:
        stopped.set()
    upstream = Upstream(NAME, {FIRST_TAG: first, SECOND_TAG: second}, region_bytes_per_second=LINK_BYTES_PER_SECOND)
    report = Report()
    async with AsyncExitStack() as stack:
        http = HttpClient(timeout_seconds=REQUEST_SECONDS_MAX, connections_max=CONNECTIONS_MAX)
        stack.push_async_callback(http.close)
        url = await stack.enter_async_context(upstream.serve(UPSTREAM_HOST, _free_ports(UPSTREAM_HOST, 1)[0]))
        progress.line(
            f"upstream registry: {url} with {REGISTRY}/{NAME}:{FIRST_TAG}, {first.size_bytes >> 20} MiB in all"
        )
        ports = Ports(*_free_ports("127.31.1.1", 3))
        progress.line(f"starting {settings.nodes} nodes in each of {' and '.join(REGIONS)}")
        progress.stage("starting nodes", settings.nodes * len(REGIONS))
        regions = await stack.enter_async_context(
            running(REGIONS, settings.nodes, directory, ports, http, ready=progress.advance)
        )
        pulls = Pulls(url, http, progress)
        for region in regions:
            leader = await region.leader()
            progress.line(f"{region.name}: {leader.name} leads, elected through {region.lease_file.name}")
        await _pull_in_both(regions, pulls, first, report)
        views = await look(regions)
        copies = copies_of(await pulls.held_bytes(regions[0].nodes[0], first), upstream.sent_bytes)
        report.shared(copies)
        report.stayed_inside(views)
        progress.clear()
        say(f"\n{node_table(views, pulls.seconds)}\n\n{region_table(views, copies)}\n")

        gone = await kill_the_leader(regions[0], pulls, SECOND_TAG, second)
        after = table(await look(regions, gone=[gone]))
        progress.clear()
        say(f"\n{after}")
        progress.stage("ending the nodes")
    progress.clear()
    return _verdict(report, copies, time.monotonic() - started)


async def _pull_in_both(regions: list[Region], pulls: Pulls, image: BuiltImage, report: Report) -> None:
    everybody = [node for region in regions for node in region.nodes]
    pulls.progress.line("all nodes of both regions pull at once, while no node has the image:")
    pulls.progress.stage("pulling at once", len(everybody))
    await pulls.at_once(everybody, FIRST_TAG)
    pulls.progress.line("requesting everything once more from each node's own speil, verifying every digest")
    pulls.progress.stage("verifying")
    async with asyncio.TaskGroup() as group:
        for region in regions:
            for node in region.nodes:
                group.create_task(pulls.verify(node, image))
    here, there = regions[0].nodes[0], regions[1].nodes[0]
    status = await pulls.knock(there, here, image)
    pulls.progress.line(f"{there.name} asks {here.name} for a layer that it has, across the border: {status}")
    report.check(status == 404, f"a request across the border was answered with {status}")


def _verdict(report: Report, copies: Mapping[str, float], seconds: float) -> int:
    for failure in report.failures:
        say(f"the demo failed: {failure}")
    if report.failures:
        return 1
    counts = " and ".join(f"{copies[region]:.2f} to {region}" for region in sorted(copies))
    say(f"\nevery digest is right, copies of the image from the upstream: {counts}; no byte crossed")
    say(f"done in {seconds:.0f} s")
    return 0


def _free_ports(host: str, count: int) -> list[int]:
    """Ports that are free on `host` now. Nodes use them on addresses that are unlikely to be in use."""
    with ExitStack() as stack:
        return [stack.enter_context(socket.create_server((host, 0))).getsockname()[1] for _ in range(count)]


def _leaves(group: BaseExceptionGroup[BaseException]) -> list[BaseException]:
    return [
        leaf
        for item in group.exceptions
        for leaf in (_leaves(item) if isinstance(item, BaseExceptionGroup) else [item])
    ]
