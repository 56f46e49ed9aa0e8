"""`static`: the peers that the operator names."""

from __future__ import annotations

from collections.abc import Callable

from speil.multiformats.multiaddr import Multiaddr
from speil.multiformats.peer_info import PeerInfo


class StaticBootstrapper:
    """Gives the same multiaddrs each time."""

    kind = "static"

    def __init__(self, peers: tuple[Multiaddr, ...]) -> None:
        self._peers = peers

    async def find(self, local: PeerInfo) -> list[Multiaddr]:
        """See Bootstrapper."""
        return list(self._peers)

    async def run(self, local: Callable[[], PeerInfo]) -> None:
        """See Bootstrapper."""
