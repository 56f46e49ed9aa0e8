"""The port to the peers: announce what this node holds, find who holds what it does not.

Keys are names: a digest (`sha256:…`) or an image (`registry/repository:tag`). An answer is a hint: the peer may have
lost the content since, or lie.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from typing import Protocol

from speil.multiformats.peer_id import PeerId
from speil.multiformats.peer_info import PeerInfo


class Router(Protocol):
    """A node's view of the mesh. Adapters: `memory`, `dht`; `testing.router_conformance` holds for both."""

    async def run(self) -> None:
        """Take part in the mesh until cancelled: bootstrap, refresh, expire."""

    @property
    def local(self) -> PeerInfo:
        """This node."""

    @property
    def ready(self) -> bool:
        """Whether the first decision about bootstrap is made: peers reached, or known to be alone."""

    def find_providers(self, key: str, *, timeout_seconds: float) -> AsyncIterator[PeerInfo]:
        """Peers (never this node) that announced `key`, each once, as they are found; ends at the timeout."""

    async def provide(self, keys: Iterable[str]) -> None:
        """Announce that this node holds `keys`, now and until they are withdrawn."""

    def withdraw(self, keys: Iterable[str]) -> None:
        """Announce `keys` no more. Records that peers hold run out by themselves."""

    def zone_of(self, peer_id: PeerId) -> str:
        """The zone that a peer has told, "" where it has told none or was never met."""

    def peers(self) -> list[PeerInfo]:
        """The peers this node knows to be there."""
