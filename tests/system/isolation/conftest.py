"""One lab for all tests of this folder; each test says how the nodes are configured."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import need
from tests.system.lab.regions import RegionLab, region_lab


@pytest.fixture(scope="package")
def lab() -> Iterator[RegionLab]:
    """Two regions of three nodes; nothing of it is left afterwards."""
    for name in ("namespaces", "tun", "registry", "containerd-1", "containerd-2", "kubernetes"):
        need(name)
    with tempfile.TemporaryDirectory(prefix="speil-regions-") as folder, region_lab(Path(folder)) as started:
        yield started
