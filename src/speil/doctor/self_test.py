"""Pulls an image through containerd, and checks that its requests arrive at speil.

The image is pulled through CRI, as the kubelet does. containerd requests no content that it has. For an image that is
present it may send a single HEAD request, and for one that is named by digest none at all.
"""

from __future__ import annotations

from speil.doctor.facts import state
from speil.finding import Finding, Level
from speil.store.base import StoreError
from speil.store.containerd.client import ContainerdClient


async def self_test(socket: str, namespace: str, metrics_url: str, image: str) -> Finding:
    """Pull `image`, and compare the node's count of requests before and after. Raises nothing."""
    before = await state(metrics_url)
    if before is None:
        return Finding("self-test", Level.FAIL, "speil's metrics port does not answer", "start speil registry first")
    client = ContainerdClient(socket, namespace)
    try:
        await client.pull_image(image)
    except StoreError as error:
        return Finding("self-test", Level.FAIL, f"the pull of {image} failed: {error}", "see containerd's log")
    finally:
        client.close()
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
