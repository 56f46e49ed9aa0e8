"""What the shell passes to the umpire with a message of a peer."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from speil.multiformats.peer_id import PeerId
from speil.multiformats.peer_info import PeerInfo


@dataclass(frozen=True, slots=True)
class Sender:
    """Who sent a message: the peer of the connection, with addresses and zone, and the share that it counts against."""

    peer: PeerInfo
    share: str


@dataclass(frozen=True, slots=True)
class Around:
    """Facts about a key that are not in its claim.

    `closer`: peers closer to the key that understand claims, closest first. `holders`: those with a provider record.
    `barred`: peers that must not be named to the asker, because they can't be reached or are another region's.
    """

    closer: Sequence[PeerInfo] = ()
    holders: Sequence[PeerInfo] = ()
    barred: Collection[PeerId] = ()


NOTHING_AROUND = Around()
