"""One request's course over several peers: a machine. Facts and `now` in, actions out.

    waiting for a head ──good head──► streaming ──whole──► done
        │  ▲                              │
        │  └────────── broke off ─────────┘   (the next peer goes on at the same offset)
        └── nobody left, or out of time ──► gave up

While no head has come, a second peer is asked when the first is slow (hedging), a third when the second is, up to
`attempts_max` for each stretch of waiting. A peer that failed is not asked again by this request; one that merely lost
the race may be. The first stretch ends `search_seconds` after its start if nobody was found at all, and no stretch
is longer than STRETCH_SECONDS_MAX: containerd's few download slots wait with us.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum, auto

from speil.multiformats.peer_id import PeerId
from speil.multiformats.peer_info import PeerInfo

STRETCH_SECONDS_MAX = 2.0  # one wait for a head; Spegel allows 3 s, a healthy region answers in milliseconds
STALL_SECONDS_MAX = 3.0  # a body without a byte for as long is given up; containerd itself would wait for ever
BREAKS_MAX = 8  # per request; then something else is wrong, and the client's own retry is better


@dataclass(frozen=True, slots=True)
class Ask:
    """Request the content from `offset` on."""

    peer: PeerInfo
    offset: int


@dataclass(frozen=True, slots=True)
class Abandon:
    """Stop waiting for this peer's head: another was quicker, or time is up."""

    peer: PeerInfo


@dataclass(frozen=True, slots=True)
class GiveUp:
    """Nobody can serve it; `reason` is for the log and the error body."""

    reason: str


Action = Ask | Abandon | GiveUp


class _State(Enum):
    WAITING = auto()
    STREAMING = auto()
    ENDED = auto()


class Transfer:
    """See the module. `rank` orders peers, best first (see PeerHealth.rank)."""

    def __init__(self, now: float, *, search_seconds: float, attempts_max: int, hedge_seconds: float) -> None:
        self._state = _State.WAITING
        self._search_deadline: float | None = now + search_seconds
        self._stretch_deadline = now + STRETCH_SECONDS_MAX
        self._attempts_max, self._hedge_seconds = attempts_max, hedge_seconds
        self._candidates: dict[PeerId, PeerInfo] = {}
        self._asked: dict[PeerId, PeerInfo] = {}
        self._spent: set[PeerId] = set()
        self._attempts = 0
        self._breaks = 0
        self._next_hedge = now
        self._search_ended = False
        self.offset = 0
        self.attempts_total = 0

    @property
    def ended(self) -> bool:
        """Whether it gave up or is done."""
        return self._state is _State.ENDED

    @property
    def candidate_ids(self) -> list[PeerId]:
        """Whom the search has named."""
        return list(self._candidates)

    def found(self, peers: Iterable[PeerInfo]) -> None:
        """The search named peers."""
        for peer in peers:
            if peer.peer_id not in self._spent:
                self._candidates.setdefault(peer.peer_id, peer)

    def search_ended(self) -> None:
        """The search will name nobody else."""
        self._search_ended = True

    def decide(self, now: float, rank: dict[PeerId, tuple[bool, int, float]]) -> list[Action]:
        """What to do now; call after each fact and at `next_deadline`."""
        if self._state is not _State.WAITING:
            return []
        if now >= self._stretch_deadline:
            return self._give_up(f"no answer from {len(self._asked)} peers in time")
        if self._search_deadline is not None and now >= self._search_deadline:
            self._search_ended = True
        actions: list[Action] = []
        if (not self._asked or now >= self._next_hedge) and (peer := self._best(rank)):
            actions.append(self._ask(peer, now))
        if not self._asked and not actions and (self._search_ended or self._attempts >= self._attempts_max):
            reason = "all requests to peers failed" if self.attempts_total else "no peer found"
            return self._give_up(reason)
        return actions

    def next_deadline(self) -> float | None:
        """When to call `decide` if nothing happens before."""
        if self._state is not _State.WAITING:
            return None
        times = [self._stretch_deadline]
        if self._search_deadline is not None and not self._search_ended:
            times.append(self._search_deadline)
        if self._asked and self._attempts < self._attempts_max and self._idle():
            times.append(self._next_hedge)
        return min(times)

    def answered(self, peer_id: PeerId) -> list[Action]:
        """A good head: this peer streams, the others are let go (they may be asked again later)."""
        if self._state is not _State.WAITING or peer_id not in self._asked:
            return []
        self._state = _State.STREAMING
        losers = [peer for other, peer in self._asked.items() if other != peer_id]
        self._asked = {peer_id: self._asked[peer_id]}
        return [Abandon(peer) for peer in losers]

    def failed(self, peer_id: PeerId) -> None:
        """A peer gave no good head: it is not asked again."""
        if self._asked.pop(peer_id, None):
            self._spent.add(peer_id)

    def received(self, size: int) -> None:
        """Bytes of the body were passed on."""
        self.offset += size

    def broke(self, now: float) -> list[Action]:
        """The streaming peer broke off or stalled: another one goes on at this offset."""
        assert self._state is _State.STREAMING
        self._breaks += 1
        self._spent.update(self._asked)
        self._asked.clear()
        self._state = _State.WAITING
        if self._breaks >= BREAKS_MAX:
            return self._give_up(f"{self._breaks} peers broke off")
        self._attempts = 0
        self._search_deadline = None
        self._stretch_deadline = now + STRETCH_SECONDS_MAX
        return []

    def finished(self) -> None:
        """The body is whole."""
        self._state = _State.ENDED

    def _idle(self) -> list[PeerInfo]:
        """Candidates that are neither asked nor spent."""
        return [peer for key, peer in self._candidates.items() if key not in self._asked and key not in self._spent]

    def _best(self, rank: dict[PeerId, tuple[bool, int, float]]) -> PeerInfo | None:
        if self._attempts >= self._attempts_max:
            return None
        return min(self._idle(), key=lambda peer: rank.get(peer.peer_id, (False, 0, 0.0)), default=None)

    def _ask(self, peer: PeerInfo, now: float) -> Ask:
        self._asked[peer.peer_id] = peer
        self._attempts += 1
        self.attempts_total += 1
        self._next_hedge = now + self._hedge_seconds
        return Ask(peer, self.offset)

    def _give_up(self, reason: str) -> list[Action]:
        self._state = _State.ENDED
        return [*(Abandon(peer) for peer in self._asked.values()), GiveUp(reason)]
