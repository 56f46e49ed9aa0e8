"""The port to the mesh: announce the content of this node, find the peers that hold other content.

Keys are names: a digest (`sha256:…`) or an image (`registry/repository:tag`). A provider is a hint: the peer may have
lost the content since, or never had it.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from typing import Protocol

from speil.multiformats.peer_id import PeerId
from speil.multiformats.peer_info import PeerInfo


class Router(Protocol):
    """One node of the mesh. Adapters: `memory` and `dht`, which pass `testing.router_conformance`."""

    async def run(self) -> None:
        """Be a node of the mesh until cancelled: bootstrap, refresh, expire. Raises BootstrapError."""

    @property
    def local(self) -> PeerInfo:
        """This node."""

    @property
    def ready(self) -> bool:
        """Whether the first bootstrap has ended: peers were reached, or no other node exists."""

    def find_providers(self, key: str, *, timeout_seconds: float) -> AsyncIterator[PeerInfo]:
        """Peers that announced `key`, as they are found: each once, never this node. Ends at the timeout."""

    def known_providers(self, key: str) -> list[PeerInfo]:
        """The peers that are known already to have announced `key`, never this node. It asks nobody."""

    async def provide(self, keys: Iterable[str]) -> None:
        """Announce `keys` from now on, until they are withdrawn. Returns before peers have the records."""

    def withdraw(self, keys: Iterable[str]) -> None:
        """Stop announcing `keys`. Records that peers hold expire by themselves."""

    def zone_of(self, peer_id: PeerId) -> str:
        """The zone that a peer advertised; "" where it advertised none or was never met."""

    def peers(self) -> list[PeerInfo]:
        """The peers in this node's routing table."""
