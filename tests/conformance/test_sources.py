"""This node's store and its peers, small content and large, each way that bodies move."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from speil.fetch.settings import FetchSettings
from speil.oci.selection import Selection
from speil.routing.memory import MemoryMesh
from speil.sources.base import Source
from speil.sources.growing import Growing
from speil.store.memory import MemoryStore
from speil.store.memory_ingests import MemoryIngests
from speil.store.sharing import Sharing
from speil.testing.source_conformance import DATA, IMAGE, LAYER, UNKNOWN, SourceConformance, blob, manifest
from speil.wire import socket_body
from speil.wire.turns import Wire
from tests.shell.mirrors import mirror

NAME = "reg.test/lab/app:1"


class TestOwnStore(SourceConformance):
    @asynccontextmanager
    async def holding(self) -> AsyncIterator[tuple[Source, Wire]]:
        async with mirror(MemoryMesh()) as node:
            await node.hold(IMAGE, NAME)
            yield node.built.sources.own, node.wire


class TestOwnStoreWithoutZeroCopy(SourceConformance):
    @asynccontextmanager
    async def holding(self) -> AsyncIterator[tuple[Source, Wire]]:
        async with mirror(MemoryMesh(), zero_copy=False) as node:
            await node.hold(IMAGE, NAME)
            yield node.built.sources.own, node.wire


class TestPeersVerified(SourceConformance):
    @asynccontextmanager
    async def holding(self) -> AsyncIterator[tuple[Source, Wire]]:
        mesh = MemoryMesh()
        async with mirror(mesh) as holder, mirror(mesh) as node:
            await holder.hold(IMAGE, NAME)
            yield node.built.sources.peers, node.wire


class TestPeersRelayed(SourceConformance):
    @pytest.fixture(autouse=True)
    def _however_small(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(socket_body, "SPLICE_BYTES_MIN", 1)

    @asynccontextmanager
    async def holding(self) -> AsyncIterator[tuple[Source, Wire]]:
        mesh = MemoryMesh()
        async with mirror(mesh) as holder, mirror(mesh, fetch=FetchSettings(verify_bytes_max=0)) as node:
            await holder.hold(IMAGE, NAME)
            yield node.built.sources.peers, node.wire


class TestGrowing(SourceConformance):
    """A download that goes on as long as somebody follows it."""

    zero_copy = True

    @asynccontextmanager
    async def holding(self) -> AsyncIterator[tuple[Source, Wire]]:
        store, wire = MemoryStore(), Wire(zero_copy=self.zero_copy)
        ingests = MemoryIngests(store)
        download = await ingests.begin(LAYER, len(DATA))

        async def write() -> None:
            while download.record.size < len(DATA):
                if download.record.readers:
                    await download.write(DATA[download.record.size :][:20_000])
                await asyncio.sleep(0.001)

        async with asyncio.TaskGroup() as group:
            writing = group.create_task(write())
            yield Growing(ingests, Sharing(store, Selection(is_open=True))), wire
            writing.cancel()
        ingests.close()
        store.close()
        wire.close()

    async def test_every_manifest_has_its_type_and_its_bytes(self) -> None:
        async with self.holding() as (source, _):
            assert await source.open(manifest(IMAGE.index.digest)) is None, "manifests come from the store"

    async def test_a_head_tells_the_size_and_is_closed_without_its_body(self) -> None:
        async with self.holding() as (source, _):
            for request in (blob(method="HEAD"), blob()):
                opened = await source.open(request)
                assert opened is not None
                assert opened.size == len(DATA)
                await opened.close()
                await opened.close()
            assert await source.open(blob(UNKNOWN, "HEAD")) is None


class TestGrowingWithoutZeroCopy(TestGrowing):
    zero_copy = False
