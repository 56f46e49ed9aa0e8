"""What past requests taught about peers: who is quick, who is busy, who is better left alone for a while.

A failure puts a peer behind the others for a while; a second one in a row puts it out of sight, for a time that
doubles: three slots of containerd would otherwise wait with us, each time anew. The first may be chance, or our own
overload, and then it would be all peers at once. What costs nothing (a refused connection, a "busy") only ever puts a
peer behind: asked last, it is a round trip. A body that went to its end wipes everything out. Whoever broke off in the
middle of some content is not asked for that content for a while, so that nobody else's failing means the upstream.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from enum import Enum, IntEnum, auto

from speil.fetch.hedge import HedgeDelay
from speil.multiformats.peer_id import PeerId

PEERS_MAX = 1000  # remembered, least recently used go first; a lookup names twenty
PENALTY_SECONDS_MIN, PENALTY_SECONDS_MAX = 2.0, 60.0  # a dead node's records live up to 19 minutes
SILENCE_SECONDS_MAX = 15.0  # a silent peer may be our own overload: then it is tried again soon
SILENT_SECONDS_MIN = 0.5  # waited in vain for less is not silence
BUSY_SECONDS = 1.0  # an upload takes seconds; a second later there may be room
BROKEN_SECONDS = 30.0  # containerd's Range retry comes within milliseconds, and is to go upstream
BROKEN_MAX = 1000
OVERTAKEN_MAX = 2  # in a row; then others are asked first
_SMOOTHING = 0.3


class Shape(IntEnum):
    """How a peer is doing; the order in which they are asked."""

    GOOD = 0
    BUSY = 1
    POOR = 2  # asked last
    SHUNNED = 3  # not asked


class Failure(Enum):
    """How a peer failed to serve."""

    GONE = auto()  # it does not have it (any more): a stale record
    BUSY = auto()
    REFUSED = auto()  # no connection
    SILENT = auto()  # no answer in time
    BROKEN = auto()  # closed, stalled or slow
    WRONG = auto()  # an answer that is none

    @property
    def is_cheap(self) -> bool:
        """Whether it cost a round trip and no more."""
        return self in (Failure.GONE, Failure.BUSY, Failure.REFUSED)

    @property
    def was_quick(self) -> bool:
        """Whether it came as an answer or the end of the connection, and nothing was waited for in vain."""
        return self is not Failure.SILENT


@dataclass(slots=True)
class PeerRecord:
    """What is known of one peer; times are the caller's monotonic seconds."""

    in_flight: int = 0
    failures: int = 0
    failed_at: float = 0.0
    overtaken: int = 0
    busy_until: float = 0.0
    poor_until: float = 0.0
    shunned_until: float = 0.0
    first_byte_seconds: float = 0.0

    def shape(self, now: float) -> Shape:
        """How it is doing."""
        if self.shunned_until > now:
            return Shape.SHUNNED
        if self.poor_until > now:
            return Shape.POOR
        return Shape.BUSY if self.busy_until > now else Shape.GOOD


_UNKNOWN = PeerRecord()


class PeerHealth:
    """The memory; times are the caller's monotonic seconds."""

    def __init__(self) -> None:
        self._peers: OrderedDict[PeerId, PeerRecord] = OrderedDict()
        self._broken: OrderedDict[tuple[PeerId, str], float] = OrderedDict()
        self._hedge = HedgeDelay()

    def record(self, peer_id: PeerId) -> PeerRecord:
        """What is known of a peer; to be read only."""
        return self._peers.get(peer_id, _UNKNOWN)

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
        peer.overtaken = 0
        peer.busy_until = peer.poor_until = peer.shunned_until = 0.0
        self._hedge.add(seconds)

    def delivered(self, peer_id: PeerId) -> None:
        """A body came to its end: past failures are forgiven."""
        self._get(peer_id).failures = 0

    def failed(
        self, peer_id: PeerId, failure: Failure, now: float, *, seconds: float = 0.0, busy_seconds: float = 0.0
    ) -> None:
        """It did not serve, `seconds` after it was asked to.

        What was asked before the last failure is part of that one: three requests that wait for one dead peer are no
        three failures. `busy_seconds`: for how long it said it would be busy, 0 where it did not say.
        """
        peer = self._get(peer_id)
        if failure is Failure.GONE:
            return
        if failure is Failure.BUSY:
            peer.busy_until = now + (busy_seconds or BUSY_SECONDS)
            return
        if peer.failures and now - seconds < peer.failed_at:
            return
        peer.failures += 1
        peer.failed_at = now
        longest = SILENCE_SECONDS_MAX if failure is Failure.SILENT else PENALTY_SECONDS_MAX
        until = now + min(PENALTY_SECONDS_MIN * 2 ** (peer.failures - 1), longest)
        if failure is Failure.REFUSED or peer.failures == 1:
            peer.poor_until = until
        else:
            peer.shunned_until = until

    def broke(self, peer_id: PeerId, key: str, now: float) -> None:
        """It broke off in the middle of some content."""
        self._broken[peer_id, key] = now + BROKEN_SECONDS
        self._broken.move_to_end((peer_id, key))
        if len(self._broken) > BROKEN_MAX:
            self._broken.popitem(last=False)

    def has_broken(self, peer_id: PeerId, key: str, now: float) -> bool:
        """Whether it broke off in the middle of that content a while ago."""
        return self._broken.get((peer_id, key), 0.0) > now

    def abandoned(self, peer_id: PeerId, now: float, seconds: float) -> None:
        """We stopped waiting for its head after `seconds`: it would have taken at least as long."""
        self._hedge.add(seconds)
        if seconds >= SILENT_SECONDS_MIN:
            self.failed(peer_id, Failure.SILENT, now, seconds=seconds)
            return
        peer = self._get(peer_id)
        peer.overtaken += 1
        if peer.overtaken >= OVERTAKEN_MAX:
            peer.poor_until = now + PENALTY_SECONDS_MIN

    @property
    def peer_count(self) -> int:
        """How many peers are remembered."""
        return len(self._peers)

    @property
    def hedge_seconds(self) -> float:
        """How long to wait for a peer's head before a second one is asked as well."""
        return self._hedge.seconds

    def _get(self, peer_id: PeerId) -> PeerRecord:
        peer = self._peers.setdefault(peer_id, PeerRecord())
        self._peers.move_to_end(peer_id)
        if len(self._peers) > PEERS_MAX:
            idle = next((key for key, known in self._peers.items() if not known.in_flight), None)
            if idle is not None and idle != peer_id:
                del self._peers[idle]
        return peer
