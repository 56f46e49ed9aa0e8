"""One control plane for all tests of this folder; each test has namespaces of its own."""

from __future__ import annotations

import asyncio
import itertools
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import need
from tests.system.kube.cluster import KubeCluster

_numbers = itertools.count(1)


@pytest.fixture(scope="session")
def cluster() -> Iterator[KubeCluster]:
    """etcd and kube-apiserver; nothing of them is left afterwards."""
    need("kubernetes")
    with tempfile.TemporaryDirectory(prefix="speil-kube-") as folder:
        cluster = KubeCluster(Path(folder))
        try:
            asyncio.run(cluster.start())
            yield cluster
        finally:
            cluster.stop()


@pytest.fixture
def namespace() -> str:
    """A name for a namespace that no other test has."""
    return f"spegel-r{next(_numbers)}"
