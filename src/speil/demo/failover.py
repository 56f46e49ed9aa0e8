"""The demo's last part: a region's leader is killed in the middle of a pull that it serves."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from speil.demo.node import Node
from speil.demo.pulls import Pulls
from speil.demo.region import Region
from speil.oci.image_builder import BuiltImage


async def kill_the_leader(region: Region, pulls: Pulls, tag: str, image: BuiltImage) -> Node:
    """The leader and another node hold an image; the leader is killed while a third pulls it. Returns the leader.

    Raises PullError, NodeError.
    """
    leader = await region.leader()
    second, third, *_ = [node for node in region.nodes if node is not leader]
    say = pulls.progress.line
    say(f"{region.name}: {leader.name} leads and pulls a second image, {second.name} after it:")
    pulls.progress.stage(f"pulling a second image in {region.name}", 3)
    await pulls.staged([leader, second], tag, image)
    await pulls.known(third, region.nodes)
    say(f"now {third.name} pulls it, and {leader.name} is killed in the middle:")
    killed_at = 0.0

    async with asyncio.TaskGroup() as group:

        def on_bytes() -> Callable[[int], None]:
            received = 0

            def add(count: int) -> None:
                nonlocal received, killed_at
                received += count
                if not killed_at and received > image.size_bytes // 8:
                    killed_at = time.monotonic()
                    say(f"  {leader.name}: killed after {received >> 20} MiB")
                    group.create_task(leader.kill())

            return add

        await pulls.one(third, tag, on_bytes())
    await pulls.verify(third, image)
    say(f"  the pull went on, and every digest is right; {region.name} elects its next leader")
    pulls.progress.stage("waiting for the next leader")
    following = await region.leader(other_than=leader)
    say(f"  {following.name} leads {time.monotonic() - killed_at:.1f} s after the kill")
    return leader
