"""Following downloads of real containerds: the conformance suite, written through their content service."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from grpclib.client import Channel

from speil.observe.metrics import Metrics
from speil.oci.digest import Digest
from speil.store.build import build_ingests
from speil.store.containerd.store import ContainerdStore
from speil.store.ingests import Ingests
from speil.store.series import StoreSeries
from speil.testing.eventually import eventually
from speil.testing.ingest_conformance import DIGEST, Download, IngestConformance, Runtime
from tests.conftest import need
from tests.system.lab.containerd import Containerd, ContainerdVersion
from tests.system.lab.content_writer import ContentWriter, delete
from tests.system.lab.namespaces import namespaces
from tests.system.lab.versions import containerd_version

pytestmark = pytest.mark.system


@pytest.fixture(scope="module", params=[1, 2], ids=["containerd-1.6", "containerd-2"])
def module_version(request: pytest.FixtureRequest) -> ContainerdVersion:
    """Each generation of containerd."""
    return containerd_version(request.param)


@pytest.fixture(scope="module")
def containerd(module_version: ContainerdVersion) -> Iterator[Containerd]:
    """One for all tests: each removes what it wrote."""
    need("namespaces")
    with tempfile.TemporaryDirectory(prefix="speil-lab-") as folder, namespaces(1) as (_, (space,)):
        one = Containerd(module_version, space, Path(folder) / "containerd")
        try:
            asyncio.run(one.start())
            yield one
        finally:
            one.close()


class ContainerdRuntime:
    """Downloads that containerd writes."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self.downloads: list[ContentWriter] = []

    async def begin(self, digest: Digest, total: int | None) -> Download:
        download = ContentWriter(self._channel, digest, total, f"layer{len(self.downloads)}")
        self.downloads.append(download)
        await download.begin()
        return download


class TestContainerdIngests(IngestConformance):
    """The ingest directory of a real containerd."""

    @pytest.fixture(autouse=True)
    def _containerd(self, containerd: Containerd) -> None:
        self.containerd = containerd

    @asynccontextmanager
    async def opened(self) -> AsyncIterator[tuple[Ingests, Runtime]]:
        store = ContainerdStore(str(self.containerd.socket), "k8s.io", "", Metrics().of(StoreSeries))
        ingests, channel = build_ingests(store), Channel(path=str(self.containerd.socket))
        runtime = ContainerdRuntime(channel)
        try:
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(store.run())]
                await store.wait_available()
                tasks.append(group.create_task(ingests.run()))
                await asyncio.sleep(0)
                yield ingests, runtime
                for task in tasks:
                    task.cancel()
        finally:
            for download in runtime.downloads:
                await download.abort()
            await delete(channel, DIGEST)
            await eventually(lambda: not self.containerd.blobs(), what="containerd removes the content")
            channel.close()
