"""speil in the cluster: its image in the registry, and its chart installed as the documentation says."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from speil.oci.image_builder import BuiltImage
from tests.cluster.lab.cluster import Cluster, is_ready
from tests.cluster.lab.images import read_archive
from tests.cluster.lab.waiting import wait_for
from tests.requirements import ROOT

CHART = ROOT / "charts" / "speil"
EXAMPLES = CHART / "examples"
REPOSITORY, TAG = "reg.test/speil", "test"
NAMESPACE = "speil"
READY_SECONDS_MAX = 90.0
IMAGE: dict[str, Any] = {"image": {"repository": REPOSITORY, "tag": TAG}}


def speil_image(cluster: Cluster) -> BuiltImage:
    """The image of this checkout, as `make image` makes it, or of the archive $SPEIL_IMAGE_ARCHIVE.

    The first call may need the machine's own network.
    """
    path = Path(os.environ.get("SPEIL_IMAGE_ARCHIVE") or cluster.folder / "speil-image.tar")
    if not path.exists():
        command = [sys.executable, "-m", "scripts.image", "--output", str(path), "--architectures", "amd64"]
        subprocess.run(
            [*command, "--reference", f"{REPOSITORY}:{TAG}"], cwd=ROOT, check=True, stdout=subprocess.DEVNULL
        )
    return read_archive(path)


def push_speil(cluster: Cluster, image: BuiltImage | None = None, tag: str = TAG) -> None:
    """Put an image of speil into the cluster's registry: this checkout's without one."""
    cluster.push(image or speil_image(cluster), REPOSITORY.partition("/")[2], tag)


def install(cluster: Cluster, release: str, values: Any, *arguments: str, fails: bool = False) -> str:
    """Install or upgrade a release, and wait for its pods as helm does. What helm printed."""
    settings = [f"--set=image.repository={REPOSITORY},image.tag={TAG}", "--wait", "--timeout=120s", *arguments]
    where = ["--namespace", NAMESPACE, "--create-namespace"]
    return cluster.helm("upgrade", "--install", release, str(CHART), *where, *settings, values=values, fails=fails)


def install_regions(cluster: Cluster) -> Iterator[str]:
    """One release a region, with the three lines of the documentation. What helm printed."""
    for letter in "ab":
        if cluster.control.client().find("namespaces", "", f"spegel-region{letter}") is None:
            cluster.kubectl("create", "namespace", f"spegel-region{letter}")
        yield install(cluster, f"speil-region{letter}", EXAMPLES / f"region-{letter}.yaml")


def pods(cluster: Cluster, region: str = "") -> dict[str, dict[str, Any]]:
    """speil's pods that are not being deleted, by node."""
    selector = "app.kubernetes.io/name=speil" + (f",speil.dev/region={region}" if region else "")
    found = cluster.control.client().list("pods", NAMESPACE, labelSelector=selector)
    return {
        pod["spec"].get("nodeName", f"(none: {pod['metadata']['name']})"): pod
        for pod in found
        if not pod["metadata"].get("deletionTimestamp")
    }


def logs(cluster: Cluster, node: str) -> list[dict[str, Any]]:
    """The lines of a node's speil."""
    name = pods(cluster)[node]["metadata"]["name"]
    said = cluster.kubectl("-n", NAMESPACE, "logs", name, "-c", "registry")
    return [json.loads(line) for line in said.splitlines() if line.startswith("{")]


def are_ready(cluster: Cluster, *nodes: str) -> bool:
    """Whether speil is Ready on these nodes, and on no others."""
    found = pods(cluster)
    return set(found) == set(nodes) and all(map(is_ready, found.values()))


def holder(cluster: Cluster, region: str) -> str:
    """Who holds the region's Lease; "" for nobody."""
    lease = cluster.control.client().find("leases", f"spegel-{region}", f"spegel-leader-election-{region}") or {}
    return lease.get("spec", {}).get("holderIdentity") or ""


def leader(cluster: Cluster, region: str) -> str:
    """The node whose pod holds the region's Lease; "" for none."""
    identity = holder(cluster, region)
    by_address = {pod["status"].get("podIP"): node for node, pod in pods(cluster).items()}
    return next((node for address, node in by_address.items() if address and f"/{address}/" in identity), "")


def uninstall(cluster: Cluster, release: str, *, fails: bool = False) -> str:
    """Remove a release with its hooks."""
    return cluster.helm("uninstall", release, "--namespace", NAMESPACE, "--timeout=180s", fails=fails)


def wait_until_ready(cluster: Cluster, *nodes: str) -> None:
    """speil is Ready on these nodes and on no others."""
    wait_for(lambda: are_ready(cluster, *nodes), seconds=READY_SECONDS_MAX, what=f"speil is Ready on {nodes}")
