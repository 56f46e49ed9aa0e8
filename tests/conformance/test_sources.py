"""This node's store and its peers, small content and large, each way that bodies move."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from speil.fetch.settings import FetchSettings
from speil.routing.memory import MemoryMesh
from speil.sources.base import Source
from speil.testing.source_conformance import IMAGE, SourceConformance
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
