"""One request's course over several peers: a machine. Facts and `now` in, actions out.

    waiting for a head ──good head──► streaming ──whole──► done
        │  ▲                              │
        │  └────────── broke off ─────────┘   (the next peer goes on at the same offset)
        └── nobody left, or out of time ──► gave up

While no head has come, a second peer is asked when the first is slow (hedging), a third when the second is, up to
`attempts_max`. Only those that are waited for count: one that has nothing, is busy or answers nonsense costs a round
trip. A peer that failed is not asked again by this request; one that merely lost the race may be.

Waiting is bounded three times, for containerd's few download slots wait with us: FIRST_BYTE_SECONDS_MAX for one stretch
of waiting, `search_seconds` for as long as nobody is known who might answer, HOLD_SECONDS_MAX until anything at all is
passed on (content that is verified first may break more than one stretch).

Peers of our own zone are asked at once, others when the search is over or NEAR_SECONDS after the first was found;
and another zone's peer is asked beside one of ours only when that one is very slow.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from enum import Enum, auto

from speil.fetch.candidates import Nearness, Standing
from speil.fetch.resume import Answer, Extent, Wanted, WrongAnswerError
from speil.multiformats.peer_id import PeerId
from speil.multiformats.peer_info import PeerInfo

FIRST_BYTE_SECONDS_MAX = 0.8  # a healthy region answers in milliseconds, the upstream in a few hundred
HOLD_SECONDS_MAX = 3.0
NEAR_SECONDS = 0.005  # a lookup that is going to find a nearer peer mostly has by then
CROSS_ZONE_HEDGE_SECONDS = 0.3  # so long a peer of our own zone may take before another zone's is asked too
AGAIN_SEARCH_SECONDS = 0.2  # after a break; the alternative is the upstream, and somebody did have it
BREAKS_MAX = 8  # per request; then something else is wrong, and the client's own retry is better
PEERS_ASKED_MAX = 64  # per request: fifty stale records are fifty round trips


@dataclass(frozen=True, slots=True)
class Search:
    """Look for providers (again)."""


@dataclass(frozen=True, slots=True)
class Ask:
    """Request the content from a peer, with this Range header."""

    peer: PeerInfo
    range_header: str


@dataclass(frozen=True, slots=True)
class Stream:
    """This peer's answer is good: its body goes on where we are."""

    peer: PeerInfo


@dataclass(frozen=True, slots=True)
class Refuse:
    """This peer's answer is wrong, or contradicts somebody else's."""

    peer: PeerInfo
    error: WrongAnswerError


@dataclass(frozen=True, slots=True)
class Abandon:
    """Another was quicker, or time is up: wait for this peer no longer."""

    peer: PeerInfo


@dataclass(frozen=True, slots=True)
class GiveUp:
    """Nobody can serve it; `reason` is for the log and the error body."""

    reason: str


Action = Search | Ask | Stream | Refuse | Abandon | GiveUp
Standings = Callable[[PeerId], Standing | None]


class _State(Enum):
    WAITING = auto()
    STREAMING = auto()
    ENDED = auto()


class Transfer:
    """See the module. Call `decide` after each fact and at `next_deadline`."""

    def __init__(
        self, wanted: Wanted, now: float, *, search_seconds: float, attempts_max: int, hedge_seconds: float
    ) -> None:
        self.wanted = wanted
        self.promised: Extent | None = None
        self.offset = 0  # of what was promised, passed on
        self.attempts_total = 0
        self._search_seconds, self._attempts_max, self._hedge_seconds = search_seconds, attempts_max, hedge_seconds
        self._told = False
        self._state = _State.WAITING
        self._candidates: dict[PeerId, PeerInfo] = {}
        self._asked: dict[PeerId, PeerInfo] = {}
        self._asked_near = False
        self._spent: set[PeerId] = set()
        self._attempts = self._breaks = 0
        self._searching, self._search_due = False, True
        self._first_found_at: float | None = None
        self._asked_at = self._wake = now
        self._hold_deadline = now + HOLD_SECONDS_MAX
        self._stretch_deadline = now + FIRST_BYTE_SECONDS_MAX
        self._patience_deadline = now + search_seconds

    @property
    def ended(self) -> bool:
        """Whether it gave up or is done."""
        return self._state is _State.ENDED

    @property
    def left(self) -> int:
        """Bytes of what was promised that are still to be passed on."""
        return self.promised.length - self.offset if self.promised else 0

    # --- facts ------------------------------------------------------------------------------------------

    def found(self, peers: Iterable[PeerInfo], now: float) -> None:
        """The search named peers."""
        for peer in peers:
            if peer.peer_id not in self._spent:
                self._candidates.setdefault(peer.peer_id, peer)
                self._first_found_at = now if self._first_found_at is None else self._first_found_at

    def search_ended(self) -> None:
        """The search will name nobody else."""
        self._searching = False

    def answered(self, peer_id: PeerId, answer: Answer) -> list[Action]:
        """A head came. A good one starts the stream, and the others are let go (they may be asked again later)."""
        if self._state is not _State.WAITING or (peer := self._asked.get(peer_id)) is None:
            return []
        try:
            found = self.wanted.check(answer, self.promised, self.offset)
        except WrongAnswerError as error:
            return [Refuse(peer, error)]
        self.promised = self.promised or found
        self._state = _State.STREAMING
        losers = [Abandon(other) for key, other in self._asked.items() if key != peer_id]
        self._asked = {peer_id: peer}
        return [Stream(peer), *losers]

    def failed(self, peer_id: PeerId, now: float, *, cheap: bool = False, erred: bool = False) -> None:
        """A peer gave no good head: it is not asked again.

        `cheap`: it cost no more than a round trip. `erred`: it answered nonsense, or closed the connection; then the
        search may take longer, or whoever is found first and answers nonsense would hide the others.
        """
        if self._asked.pop(peer_id, None) is None:
            return
        self._spent.add(peer_id)
        self._attempts -= cheap
        patience = max(self._search_seconds, AGAIN_SEARCH_SECONDS) if erred else self._search_seconds
        self._patience_deadline = max(self._patience_deadline, now + patience)

    def received(self, size: int) -> None:
        """Bytes of the body were passed on."""
        self.offset += size

    def broke(self, now: float) -> None:
        """The streaming peer broke off or stalled, or its bytes are wrong: another one goes on at this offset."""
        assert self._state is _State.STREAMING
        self._breaks += 1
        self._spent.update(self._asked)
        self._begin_stretch(now)
        self._search_due = not self._searching  # those that the first search named may all be spent
        if not self._told:
            self.promised = None

    def start_over(self, now: float) -> None:
        """Nothing has been passed on: ask anew, and for all of it, as content that is to be verified has to be."""
        assert not self._told
        self.wanted = replace(self.wanted, range_header="")
        self.promised = None
        self._begin_stretch(now)

    def told(self) -> None:
        """The client gets the head: what was promised holds."""
        self._told = True

    def finished(self) -> None:
        """The body is whole."""
        self._state = _State.ENDED

    # --- decisions --------------------------------------------------------------------------------------

    def decide(self, now: float, standing: Standings) -> list[Action]:
        """What to do now."""
        if self._state is not _State.WAITING:
            return []
        deadline = self._stretch_deadline if self._told else min(self._stretch_deadline, self._hold_deadline)
        if now >= deadline:
            return self._give_up(f"no answer from {len(self._asked)} peers in time")
        if self._breaks >= BREAKS_MAX:
            return self._give_up(f"{self._breaks} peers broke off")
        actions: list[Action] = []
        self._wake = deadline
        if self._search_due:
            self._search_due, self._searching = False, True
            actions.append(Search())
        if best := self._best(standing):
            rank, peer = best
            at = self._ask_at(rank)
            if now >= at:
                actions.append(self._ask(peer, rank, now))
                best = self._best(standing)
                at = self._ask_at(best[0]) if best else deadline
            self._wake = min(self._wake, at)
        if not self._asked and not best:
            if not self._searching or now >= self._patience_deadline or not self._may_ask_more():
                return [*actions, *self._give_up(self._why_nobody())]
            self._wake = min(self._wake, self._patience_deadline)
        return actions

    def next_deadline(self) -> float | None:
        """When to call `decide` if nothing happens before."""
        return self._wake if self._state is _State.WAITING else None

    def _best(self, standing: Standings) -> tuple[Standing, PeerInfo] | None:
        """The best candidate that may be asked and is not; None too when enough have been."""
        if not self._may_ask_more():
            return None
        idle = [peer for key, peer in self._candidates.items() if key not in self._asked and key not in self._spent]
        ranked = [(rank, peer) for peer in idle if (rank := standing(peer.peer_id)) is not None]
        return min(ranked, key=lambda item: item[0], default=None)

    def _may_ask_more(self) -> bool:
        return self._attempts < self._attempts_max and self.attempts_total < PEERS_ASKED_MAX

    def _ask_at(self, rank: Standing) -> float:
        """From when on a peer of that standing may be asked."""
        near = rank.nearness is Nearness.SAME_ZONE
        if self._asked:
            wait = self._hedge_seconds
            if self._asked_near and not near:
                wait = max(wait, CROSS_ZONE_HEDGE_SECONDS)
            return self._asked_at + wait
        if near or not self._searching or self._first_found_at is None:
            return 0.0
        return self._first_found_at + NEAR_SECONDS

    def _ask(self, peer: PeerInfo, rank: Standing, now: float) -> Ask:
        near = rank.nearness is Nearness.SAME_ZONE
        self._asked_near = near or (self._asked_near and bool(self._asked))
        self._asked[peer.peer_id] = peer
        self._attempts += 1
        self.attempts_total += 1
        self._asked_at = now
        return Ask(peer, self.wanted.range_at(self.promised, self.offset))

    def _begin_stretch(self, now: float) -> None:
        self._asked.clear()
        self._state = _State.WAITING
        self._attempts = 0
        self._stretch_deadline = now + FIRST_BYTE_SECONDS_MAX
        self._patience_deadline = now + max(self._search_seconds, AGAIN_SEARCH_SECONDS)

    def _why_nobody(self) -> str:
        if self.attempts_total:
            return "all requests to peers failed"
        return "no peer may be asked" if self._candidates else "no peer found"

    def _give_up(self, reason: str) -> list[Action]:
        self._state = _State.ENDED
        return [*(Abandon(peer) for peer in self._asked.values()), GiveUp(reason)]
