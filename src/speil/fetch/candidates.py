"""In which order peers are asked.

First how they are doing, then the zone: bytes from the same zone are nearer and cheaper. Then what they have shown: for
content that is passed on unverified, a peer that proved right before is less of a risk than one nobody knows. Where the
content is verified first it is the other way round: there a stranger risks nothing, and becomes known. So load spreads
over ever more peers, and liars are mostly found out on a manifest. A peer with several of our requests at once comes
after one with none, and the quicker one before the slower.
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
    """Where a peer is, seen from here. Without a zone of our own everyone is near."""

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
    """Tells a peer's standing in the eyes of one request.

    `verified`: its content, named `key`, is verified before it is passed on.
    """

    health: PeerHealth
    trust: PeerTrust
    caution: Caution
    zone: str
    zone_of: Callable[[PeerId], str]
    verified: bool = False
    key: str = ""

    def standing(self, peer_id: PeerId, now: float) -> Standing | None:
        """None: it is not asked at all."""
        record = self.health.record(peer_id)
        shape = record.shape(now)
        proven = self.trust.is_proven(peer_id)
        if shape is Shape.SHUNNED or self.health.has_broken(peer_id, self.key, now):
            return None
        if self.trust.is_banned(peer_id, now) or not self.caution.allows(peer_id, proven):
            return None
        if self.trust.is_suspect(peer_id, now):
            shape = Shape.POOR
        busy = record.in_flight
        seconds = round(record.first_byte_seconds, 3)
        return Standing(shape, self.nearness(peer_id), busy >= CROWDED, proven is self.verified, busy, seconds)

    def nearness(self, peer_id: PeerId) -> Nearness:
        """Where it is."""
        if not self.zone:
            return Nearness.SAME_ZONE
        told = self.zone_of(peer_id)
        if not told:
            return Nearness.UNKNOWN
        return Nearness.SAME_ZONE if told == self.zone else Nearness.OTHER_ZONE
