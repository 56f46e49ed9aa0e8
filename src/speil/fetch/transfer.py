"""The steps of one request over several peers: a state machine. Facts and `now` in, actions out.

    waiting for a head ──good head──► streaming ──whole──► done
        │  ▲                              │
        │  └────────── broke off ─────────┘   (the next peer goes on at the same offset)
        └── no peer left, or out of time ──► gave up

While no head has come, a second peer is asked when the first is slow (hedging), a third when the second is slow, up to
`attempts_max`. Only peers that are waited for count: a peer that does not have the content, is busy or sends an invalid
response costs a round trip. A peer that failed is not asked again by this request; one that was only slower may be.

Three bounds hold for waiting, because one of containerd's few download slots is blocked meanwhile:
FIRST_BYTE_SECONDS_MAX for one stretch of waiting, `search_seconds` while no peer is known, HOLD_SECONDS_MAX until the
first byte is passed on (with content that is verified first, several peers may break off one after the other).

Peers of this node's zone are asked at once. Others are asked when the search is over, or NEAR_SECONDS after the first
peer was found. While a peer of this zone is waited for, one of another zone is asked only if that one is very slow.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from enum import Enum, auto

from speil.fetch.candidates import Nearness, Standing
from speil.fetch.resume import Answer, Extent, Wanted, WrongAnswerError
from speil.multiformats.peer_id import PeerId
from speil.multiformats.peer_info import PeerInfo

FIRST_BYTE_SECONDS_MAX = 0.8  # a healthy region answers in milliseconds, the upstream in some hundred milliseconds
HOLD_SECONDS_MAX = 3.0
NEAR_SECONDS = 0.005  # a lookup that finds a nearer peer mostly has found it by then
CROSS_ZONE_HEDGE_SECONDS = 0.3  # how long a peer of this zone may take before one of another zone is asked too
AGAIN_SEARCH_SECONDS = 0.2  # after a break; the alternative is the upstream, and a peer did have the content
BREAKS_MAX = 8  # per request; after more, something else is wrong, and the client's own retry is better
PEERS_ASKED_MAX = 64  # per request: fifty stale records are fifty round trips


@dataclass(frozen=True, slots=True)
class Search:
    """Search for providers (again)."""


@dataclass(frozen=True, slots=True)
class Ask:
    """Request the content from a peer, with this Range header ("" for none)."""

    peer: PeerInfo
    range_header: str


@dataclass(frozen=True, slots=True)
class Stream:
    """This peer's response is good: its body continues at the current offset."""

    peer: PeerInfo


@dataclass(frozen=True, slots=True)
class Refuse:
    """This peer's response is wrong, or contradicts an earlier one."""

    peer: PeerInfo
    error: WrongAnswerError


@dataclass(frozen=True, slots=True)
class Abandon:
    """Cancel the request to this peer: another was quicker, or time is up."""

    peer: PeerInfo


@dataclass(frozen=True, slots=True)
class GiveUp:
    """No peer can serve it; `reason` is for the log and the error body."""

    reason: str


Action = Search | Ask | Stream | Refuse | Abandon | GiveUp
Standings = Callable[[PeerId], Standing | None]


class _State(Enum):
    WAITING = auto()
    STREAMING = auto()
    ENDED = auto()


class Transfer:
    """Call `decide` after each fact and at `next_deadline`. Times are the caller's monotonic seconds."""

    def __init__(
        self, wanted: Wanted, now: float, *, search_seconds: float, attempts_max: int, hedge_seconds: float
    ) -> None:
        """`search_seconds`: how long to wait while no peer is known. `attempts_max`: peers waited for at once.

        `hedge_seconds`: how long to wait for one peer's head before the next one is asked too.
        """
        self.wanted = wanted
        self.promised: Extent | None = None
        self.offset = 0  # of what was promised, passed on
        self.attempts_total = 0
        self._search_seconds, self._attempts_max, self._hedge_seconds = search_seconds, attempts_max, hedge_seconds
        self._is_committed = False
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
        """Whether it gave up, or the body is complete."""
        return self._state is _State.ENDED

    @property
    def left(self) -> int:
        """Promised bytes that were not passed on yet."""
        return self.promised.length - self.offset if self.promised else 0

    @property
    def candidates(self) -> list[PeerInfo]:
        """The peers that were found and not asked in vain."""
        return [peer for key, peer in self._candidates.items() if key not in self._spent]

    # --- facts ------------------------------------------------------------------------------------------

    def found(self, peers: Iterable[PeerInfo], now: float) -> None:
        """The search found peers."""
        for peer in peers:
            if peer.peer_id not in self._spent:
                self._candidates.setdefault(peer.peer_id, peer)
                self._first_found_at = now if self._first_found_at is None else self._first_found_at

    def search_ended(self) -> None:
        """The search finds no more peers."""
        self._searching = False

    def answered(self, peer_id: PeerId, answer: Answer) -> list[Action]:
        """A head came. A good one starts the stream; requests to others are cancelled, and may be repeated later.

        Nobody else is needed then: the caller may end the search, too.
        """
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

        `cheap`: it cost no more than a round trip. `erred`: its response was invalid, or it closed the connection; the
        search may then take longer: otherwise a faulty peer that is found first would hide the others.
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
        """The streaming peer broke off or stalled, or its bytes are wrong: another one continues at this offset."""
        assert self._state is _State.STREAMING
        self._breaks += 1
        self._spent.update(self._asked)
        self._begin_stretch(now)
        if not self._is_committed:
            self.promised = None

    def start_over(self, now: float) -> None:
        """Nothing was passed on: ask again, and for all of the content, because only that can be verified."""
        assert not self._is_committed
        self.wanted = replace(self.wanted, range_header="")
        self.promised = None
        self._begin_stretch(now)

    def committed(self) -> None:
        """The client gets the head: later responses must fit what was promised."""
        self._is_committed = True

    def finished(self) -> None:
        """The body is complete."""
        self._state = _State.ENDED

    # --- decisions --------------------------------------------------------------------------------------

    def decide(self, now: float, standing: Standings) -> list[Action]:
        """The actions to carry out now."""
        if self._state is not _State.WAITING:
            return []
        deadline = self._stretch_deadline if self._is_committed else min(self._stretch_deadline, self._hold_deadline)
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
        """When to call `decide` if no fact comes before; None while a body streams, and at the end."""
        return self._wake if self._state is _State.WAITING else None

    def _best(self, standing: Standings) -> tuple[Standing, PeerInfo] | None:
        """The best candidate that may be asked and was not; None also when enough were asked."""
        if not self._may_ask_more():
            return None
        idle = [peer for peer in self.candidates if peer.peer_id not in self._asked]
        ranked = [(rank, peer) for peer in idle if (rank := standing(peer.peer_id)) is not None]
        return min(ranked, key=lambda item: item[0], default=None)

    def _may_ask_more(self) -> bool:
        return self._attempts < self._attempts_max and self.attempts_total < PEERS_ASKED_MAX

    def _ask_at(self, rank: Standing) -> float:
        """The time from which a peer of that standing may be asked."""
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
        self._search_due = not self._searching  # it may have ended with the first good head
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
