"""What past requests taught about peers: whom to ask first, and how long to wait before asking a second one.

A failure puts a peer behind the others for a while that doubles with each further one; a success wipes it out. The
hedge delay is a high percentile of the time to the first byte, failures counted with the time they took, and kept
between two bounds: neither an overloaded start nor a quiet one can teach the node to give up on every peer, or to
wait for a dead one.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from dataclasses import dataclass

from speil.multiformats.peer_id import PeerId

PEERS_MAX = 1000  # remembered, least recently used go first; a lookup names twenty
PENALTY_SECONDS_MIN, PENALTY_SECONDS_MAX = 2.0, 60.0  # a dead node's records live up to 19 minutes
HEDGE_SECONDS_MIN, HEDGE_SECONDS_MAX = 0.03, 0.3
SAMPLES_MAX = 100
PERCENTILE = 0.9
_SMOOTHING = 0.3


@dataclass(slots=True)
class _Peer:
    in_flight: int = 0
    failures: int = 0
    penalty_until: float = 0.0
    first_byte_seconds: float = 0.0


class PeerHealth:
    """The memory; times are the caller's monotonic seconds."""

    def __init__(self) -> None:
        self._peers: OrderedDict[PeerId, _Peer] = OrderedDict()
        self._samples: deque[float] = deque(maxlen=SAMPLES_MAX)

    def rank(self, peer_id: PeerId, now: float) -> tuple[bool, int, float]:
        """A sort key, best first: not in disgrace, least busy, quickest."""
        peer = self._peers.get(peer_id)
        if peer is None:
            return (False, 0, 0.0)
        return (peer.penalty_until > now, peer.in_flight, round(peer.first_byte_seconds, 3))

    def started(self, peer_id: PeerId) -> None:
        """A request goes out."""
        self._get(peer_id).in_flight += 1

    def ended(self, peer_id: PeerId) -> None:
        """It is over, whichever way."""
        peer = self._get(peer_id)
        peer.in_flight = max(peer.in_flight - 1, 0)

    def answered(self, peer_id: PeerId, seconds: float) -> None:
        """A good head came after `seconds`."""
        peer = self._get(peer_id)
        known = peer.first_byte_seconds
        peer.first_byte_seconds = known + _SMOOTHING * (seconds - known) if known else seconds
        peer.failures, peer.penalty_until = 0, 0.0
        self._samples.append(seconds)

    def failed(self, peer_id: PeerId, now: float, seconds: float | None = None) -> None:
        """It could not be reached, broke off, or answered nonsense; `seconds` where it never answered."""
        peer = self._get(peer_id)
        peer.failures += 1
        peer.penalty_until = now + min(PENALTY_SECONDS_MIN * 2 ** (peer.failures - 1), PENALTY_SECONDS_MAX)
        if seconds is not None:
            self._samples.append(seconds)

    def abandoned(self, seconds: float) -> None:
        """We stopped waiting after `seconds`: it would have taken at least as long."""
        self._samples.append(seconds)

    @property
    def peer_count(self) -> int:
        """How many peers are remembered."""
        return len(self._peers)

    @property
    def hedge_seconds(self) -> float:
        """How long to wait for a peer's head before a second one is asked as well."""
        if not self._samples:
            return HEDGE_SECONDS_MIN
        ordered = sorted(self._samples)
        found = ordered[min(int(len(ordered) * PERCENTILE), len(ordered) - 1)]
        return min(max(found, HEDGE_SECONDS_MIN), HEDGE_SECONDS_MAX)

    def _get(self, peer_id: PeerId) -> _Peer:
        peer = self._peers.setdefault(peer_id, _Peer())
        self._peers.move_to_end(peer_id)
        if len(self._peers) > PEERS_MAX:
            idle = next((key for key, known in self._peers.items() if not known.in_flight), None)
            if idle is not None and idle != peer_id:
                del self._peers[idle]
        return peer
