"""One cluster for all tests of this folder. With $SPEIL_CLUSTER_FOLDER it is the one of that folder, and left there.

A test leaves both regions installed and Ready; `regions` installs them where they are not.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster.lab import workloads
from tests.cluster.lab.cluster import Cluster
from tests.cluster.lab.install import are_ready, install_regions, push_speil, speil_image, wait_until_ready
from tests.cluster.lab.layout import SPARE
from tests.conftest import need

BASE_NODES = ("a1", "a2", "b1", "b2")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Without SPEIL_CLUSTER=full the parts that take long are left out."""
    if os.environ.get("SPEIL_CLUSTER") == "full":
        return
    for item in items:
        if item.get_closest_marker("full"):
            item.add_marker(pytest.mark.skip(reason="a part of `make cluster` (SPEIL_CLUSTER=full)"))


@pytest.fixture(scope="session")
def started() -> Iterator[Cluster]:
    """The cluster, and this thread in its network."""
    need("cluster")
    told = os.environ.get("SPEIL_CLUSTER_FOLDER")
    folder = Path(told or tempfile.mkdtemp(prefix="speil-cluster-"))
    is_new = not (folder / "prefix").exists()
    cluster = Cluster(folder, f"speil-lab-{os.getpid()}" if is_new else "")
    try:
        if is_new:
            speil_image(cluster)
            cluster.start()
        with cluster.inside():
            if is_new:
                push_speil(cluster)
            else:
                _forget_images(cluster)
            yield cluster
    finally:
        if not told:
            cluster.stop()


def _forget_images(cluster: Cluster) -> None:
    """Those of an earlier run: nothing of them would be pulled again."""
    for node in cluster.nodes.values():
        if node.runs and (
            old := [one for one in node.images() if "test/" in one and "/speil" not in one and "lab.test" not in one]
        ):
            node.run(*node.ctr("images", "remove", "--sync", *old))


@pytest.fixture
def cluster(started: Cluster) -> Iterator[Cluster]:
    """The cluster, with no pods of other tests."""
    workloads.remove_all(started)
    yield started
    workloads.remove_all(started)


@pytest.fixture
def regions(cluster: Cluster) -> Cluster:
    """The cluster with both regions installed as the documentation says."""
    if cluster.nodes[SPARE].runs:  # a test that failed has left it
        cluster.nodes[SPARE].power_off()
        cluster.control.client().delete("nodes", "", SPARE)
    if not are_ready(cluster, *BASE_NODES):
        list(install_regions(cluster))
        wait_until_ready(cluster, *BASE_NODES)
    return cluster
