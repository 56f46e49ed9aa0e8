"""The Router port in memory: routers that share one table of providers. For tests and single processes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable

from speil.multiformats.peer_id import PeerId
from speil.multiformats.peer_info import PeerInfo


class MemoryMesh:
    """The table that all routers of one mesh share."""

    def __init__(self) -> None:
        self.records: dict[str, dict[PeerInfo, None]] = {}
        self.peers: dict[PeerInfo, None] = {}
        self.zones: dict[PeerId, str] = {}
        self.on_provided: list[Callable[[str, PeerInfo], None]] = []  # called with each key and its provider


class MemoryRouter:
    """A node in a MemoryMesh."""

    def __init__(self, mesh: MemoryMesh, local: PeerInfo) -> None:
        self._mesh, self._local = mesh, local
        self.ready = False

    async def run(self) -> None:
        """See Router."""
        self._mesh.peers[self._local] = None
        self.ready = True
        try:
            await asyncio.Event().wait()
        finally:
            del self._mesh.peers[self._local]

    @property
    def local(self) -> PeerInfo:
        """This node."""
        return self._local

    def known_providers(self, key: str) -> list[PeerInfo]:
        """See Router; here all are known."""
        return [peer for peer in self._mesh.records.get(key, ()) if peer != self._local]

    async def find_providers(self, key: str, *, timeout_seconds: float) -> AsyncIterator[PeerInfo]:
        """See Router."""
        for peer in self.known_providers(key):
            yield peer

    async def provide(self, keys: Iterable[str]) -> None:
        """See Router."""
        for key in keys:
            self._mesh.records.setdefault(key, {})[self._local] = None
            for call in self._mesh.on_provided:
                call(key, self._local)

    def withdraw(self, keys: Iterable[str]) -> None:
        """See Router; the records are removed at once."""
        for key in keys:
            self._mesh.records.get(key, {}).pop(self._local, None)

    def zone_of(self, peer_id: PeerId) -> str:
        """See Router."""
        return self._mesh.zones.get(peer_id, "")

    def peers(self) -> list[PeerInfo]:
        """See Router."""
        return [peer for peer in self._mesh.peers if peer != self._local]
