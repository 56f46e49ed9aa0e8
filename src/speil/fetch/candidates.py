"""The order in which peers are asked.

First by how well they serve, then by zone: bytes from the same zone are nearer and cheaper. Then by what is proven: for
content that is passed on unverified, a peer that sent right bytes before is a smaller risk than an unknown one. Where
the content is verified first it is the other way round: an unknown peer costs nothing there, and becomes known. So load
spreads over more peers, and wrong bytes are mostly found in a manifest. A peer with several of our requests at once
comes after one with none, and a quicker one before a slower one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum
from typing import NamedTuple

from speil.fetch.peer_health import PeerHealth, Shape
from speil.fetch.trust import Caution, PeerTrust
from speil.multiformats.peer_id import PeerId

CROWDED = 3  # our requests to one peer at once: containerd's slots; above, even an unknown peer is the better choice


class Nearness(IntEnum):
    """Where a peer is, relative to this node. A node without a zone counts every peer as near."""

    SAME_ZONE = 0
    UNKNOWN = 1
    OTHER_ZONE = 2


class Standing(NamedTuple):
    """A sort key, best first."""

    shape: Shape
    nearness: Nearness
    crowded: bool
    second_choice: bool
    in_flight: int
    first_byte_seconds: float


@dataclass(frozen=True, slots=True)
class Judge:
    """Ranks peers for one request.

    `zone` is this node's. `zone_of` returns a peer's zone, "" where it is unknown. `verified`: the content, named
    `key`, is verified before it is passed on.
    """

    health: PeerHealth
    trust: PeerTrust
    caution: Caution
    zone: str
    zone_of: Callable[[PeerId], str]
    verified: bool = False
    key: str = ""

    def standing(self, peer_id: PeerId, now: float) -> Standing | None:
        """The sort key of a peer; None: it is not asked at all."""
        record = self.health.record(peer_id)
        shape = record.shape(now)
        proven = self.trust.is_proven(peer_id)
        if shape is Shape.SHUNNED or self.health.has_broken(peer_id, self.key, now):
            return None
        if self.trust.is_banned(peer_id, now) or not self.caution.allows(peer_id, proven):
            return None
        if self.trust.is_suspect(peer_id, now):
            if self.caution.avoids_suspects and not self.verified:
                return None
            shape = Shape.POOR
        busy = record.in_flight
        seconds = round(record.first_byte_seconds, 3)
        return Standing(shape, self.nearness(peer_id), busy >= CROWDED, proven is self.verified, busy, seconds)

    def nearness(self, peer_id: PeerId) -> Nearness:
        """Where a peer is."""
        if not self.zone:
            return Nearness.SAME_ZONE
        zone = self.zone_of(peer_id)
        if not zone:
            return Nearness.UNKNOWN
        return Nearness.SAME_ZONE if zone == self.zone else Nearness.OTHER_ZONE
