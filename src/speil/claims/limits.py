"""How many nodes the claims of an umpire may hold, in all and for each share.

A share is a network that a peer counts against, as elsewhere in the DHT: identities cost nothing, addresses do. Below
the limit of all everybody gets what one share and one peer may hold. At the limit a share that holds more than its
equal part is refused.
"""

from __future__ import annotations

from collections import Counter

from speil.multiformats.peer_id import PeerId

NODES_MAX = 32_768  # in all claims of an umpire: 20 MiB; the layers of an image are spread over all umpires
NODES_PER_SHARE_MAX = 4_096  # a /24 of another network is one share: 250 nodes with sixteen layers each
NODES_PER_PEER_MAX = 1_024  # contents of one node within two minutes; containerd downloads a few at a time
NODES_PER_KEY_MAX = 8_192  # the largest region that is planned for


class Limits:
    """Counts the nodes in claims by share and by peer."""

    def __init__(self) -> None:
        self.total = 0
        self._shares = Counter[str]()
        self._peers = Counter[PeerId]()

    def allows(self, peer_id: PeerId, share: str, in_key: int) -> bool:
        """Whether one more node may be added, to a claim that has `in_key`."""
        held, of_peer = self._shares[share], self._peers[peer_id]
        if in_key >= NODES_PER_KEY_MAX or of_peer >= NODES_PER_PEER_MAX or held >= NODES_PER_SHARE_MAX:
            return False
        equal_part = NODES_MAX // (len(self._shares) + 1)
        return self.total < NODES_MAX - equal_part or (held < equal_part and self.total < NODES_MAX)

    def add(self, peer_id: PeerId, share: str) -> None:
        """Count a node that was added."""
        self.total += 1
        self._shares[share] += 1
        self._peers[peer_id] += 1

    def remove(self, peer_id: PeerId, share: str) -> None:
        """Count a node that was removed."""
        self.total -= 1
        self._shares[share] -= 1
        if not self._shares[share]:
            del self._shares[share]
        self._peers[peer_id] -= 1
        if not self._peers[peer_id]:
            del self._peers[peer_id]
