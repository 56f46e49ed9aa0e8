"""A peer and where it can be reached (go-libp2p's `peer.AddrInfo`)."""

from __future__ import annotations

from dataclasses import dataclass, field

from speil.multiformats.multiaddr import Multiaddr
from speil.multiformats.peer_id import PeerId


@dataclass(frozen=True, slots=True)
class PeerInfo:
    """A peer id with its addresses, best first, without `/p2p`. `zone` is what peers say, "" if unknown."""

    peer_id: PeerId
    addresses: tuple[Multiaddr, ...] = ()
    zone: str = field(default="", compare=False)

    @property
    def hosts(self) -> tuple[str, ...]:
        """The distinct hosts of its TCP addresses, in order."""
        return tuple(dict.fromkeys(tcp[0] for address in self.addresses if (tcp := address.tcp)))
