"""A pull that is watched: does containerd's request arrive at speil?

The image is pulled through CRI, as the kubelet does. containerd asks no mirror for content it has, so an image that is
here already may send a single HEAD, and with digest pulls of present content nothing at all.
"""

from __future__ import annotations

from speil.doctor.facts import state
from speil.finding import Finding, Level
from speil.store.base import StoreError
from speil.store.containerd.client import ContainerdClient


async def self_test(socket: str, namespace: str, metrics_url: str, image: str) -> Finding:
    """Pull `image` and compare the node's request counter before and after."""
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
            "see config_path and hosts.toml above; an image that is here already sends none: try another",
        )
    recent = (after or before)["recent_requests"][:arrived]
    served = sum(request["outcome"] == "served" for request in recent)
    return Finding("self-test", Level.OK, f"{image}: {arrived} requests arrived at speil, {served} were served")
