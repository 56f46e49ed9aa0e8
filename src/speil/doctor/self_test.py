"""Pulls an image through containerd, and checks that its requests arrive at speil.

The image is pulled through CRI, as the kubelet does. containerd requests no content that it has. For an image that is
present it may send a single HEAD request, and for one that is named by digest none at all.
"""

from __future__ import annotations

import asyncio

from speil.doctor.facts import state
from speil.finding import Finding, Level
from speil.progress import Progress
from speil.store.base import StoreError
from speil.store.containerd.client import ContainerdClient

LOOK_SECONDS = 1.0  # between two looks at the count of requests, while the image is pulled


async def self_test(socket: str, namespace: str, metrics_url: str, image: str, progress: Progress) -> Finding:
    """Pull `image`, and compare the node's count of requests before and after. Raises nothing."""
    before = await state(metrics_url)
    if before is None:
        return Finding("self-test", Level.FAIL, "speil's metrics port does not answer", "start speil registry first")
    client = ContainerdClient(socket, namespace)
    progress.stage(f"pulling {image} through containerd")
    failure = ""
    async with asyncio.TaskGroup() as group:
        watch = group.create_task(_watch(metrics_url, before["requests_total"], progress))
        try:
            await client.pull_image(image)
        except StoreError as error:
            failure = f"the pull of {image} failed: {error}"
        finally:
            watch.cancel()
            client.close()
    if failure:
        return Finding("self-test", Level.FAIL, failure, "see containerd's log")
    after = await state(metrics_url)
    arrived = (after or before)["requests_total"] - before["requests_total"]
    if not arrived:
        return Finding(
            "self-test",
            Level.FAIL,
            f"{image} was pulled, but no request arrived at speil",
            "see config_path and hosts.toml above; if the image was present already, try another one",
        )
    recent = (after or before)["recent_requests"][:arrived]
    served = sum(request["outcome"] == "served" for request in recent)
    return Finding("self-test", Level.OK, f"{image}: {arrived} requests arrived at speil, {served} were served")


async def _watch(metrics_url: str, before: int, progress: Progress) -> None:
    """Show how many requests have arrived, until cancelled."""
    while True:
        await asyncio.sleep(LOOK_SECONDS)
        if (now := await state(metrics_url)) is not None:
            progress.note(f"{now['requests_total'] - before} requests arrived at speil")
