"""What this node knows of the peer at the other end of a connection."""

from __future__ import annotations

from dataclasses import dataclass

from speil.multiformats.multiaddr import Multiaddr
from speil.multiformats.peer_id import PeerId
from speil.multiformats.peer_info import PeerInfo


@dataclass(slots=True, eq=False)
class RemotePeer:
    """One for each connection. `peer_id` is proved by the handshake; identify fills in the last three."""

    peer_id: PeerId
    address: Multiaddr  # where its packets come from
    share: str  # the address or prefix whose limits its costs count against (`neighbourhood`)
    info: PeerInfo  # the addresses that the peer listens on, without those that this node does not dial
    protocols: frozenset[str] = frozenset()
    agent_version: str = ""

    @property
    def host(self) -> str:
        """The IP address that its packets come from."""
        return self.address.host
