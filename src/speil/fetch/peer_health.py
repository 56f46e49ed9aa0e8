"""How peers answered past requests: which are quick, which are busy, which are not asked for a while.

After a failure a peer is asked last for a while. After a second one in a row it is not asked at all, for a time that
doubles: otherwise containerd's three download slots would wait for it again and again. The first failure may be chance,
or our own overload, which would put all peers aside at once. After a failure that costs a round trip alone (a refused
connection, a "busy") a peer is only asked last. A body that came to its end clears its failures. A peer that broke off
in the middle of some content is not asked for that content for a while: then the client can go upstream instead.
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
    """How well a peer serves; lower values are asked first."""

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
    WRONG = auto()  # not a valid response

    @property
    def was_quick(self) -> bool:
        """Whether it came as a response or as the end of the connection, and not as a timeout."""
        return self is not Failure.SILENT


@dataclass(slots=True)
class PeerRecord:
    """What past requests showed of one peer; times are the caller's monotonic seconds."""

    in_flight: int = 0
    failures: int = 0
    failed_at: float = 0.0
    overtaken: int = 0
    busy_until: float = 0.0
    poor_until: float = 0.0
    shunned_until: float = 0.0
    first_byte_seconds: float = 0.0

    def shape(self, now: float) -> Shape:
        if self.shunned_until > now:
            return Shape.SHUNNED
        if self.poor_until > now:
            return Shape.POOR
        return Shape.BUSY if self.busy_until > now else Shape.GOOD


_UNKNOWN = PeerRecord()


class PeerHealth:
    """Records of PEERS_MAX peers; times are the caller's monotonic seconds."""

    def __init__(self) -> None:
        self._peers: OrderedDict[PeerId, PeerRecord] = OrderedDict()
        self._broken: OrderedDict[tuple[PeerId, str], float] = OrderedDict()
        self._hedge = HedgeDelay()

    def record(self, peer_id: PeerId) -> PeerRecord:
        """The record of a peer, to be read only; an empty one for an unknown peer."""
        return self._peers.get(peer_id, _UNKNOWN)

    def started(self, peer_id: PeerId) -> None:
        """A request to the peer begins; call `ended` once for each."""
        self._get(peer_id).in_flight += 1

    def ended(self, peer_id: PeerId) -> None:
        """A request to the peer is over, with success or not."""
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
        """A body came to its end: past failures are cleared."""
        self._get(peer_id).failures = 0

    def failed(
        self, peer_id: PeerId, failure: Failure, now: float, *, seconds: float = 0.0, busy_seconds: float = 0.0
    ) -> None:
        """A request failed, `seconds` after it began.

        A request that began before the last failure counts with that one: three requests that wait for one dead peer
        are one failure. `busy_seconds`: how long the peer said it is busy, 0 where it did not say.
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
        """It broke off in the middle of the content named `key`."""
        self._broken[peer_id, key] = now + BROKEN_SECONDS
        self._broken.move_to_end((peer_id, key))
        if len(self._broken) > BROKEN_MAX:
            self._broken.popitem(last=False)

    def has_broken(self, peer_id: PeerId, key: str, now: float) -> bool:
        """Whether it broke off in the middle of that content a while ago."""
        return self._broken.get((peer_id, key), 0.0) > now

    def abandoned(self, peer_id: PeerId, now: float, seconds: float) -> None:
        """A request was cancelled after `seconds` without a response: the peer would have taken at least as long."""
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
