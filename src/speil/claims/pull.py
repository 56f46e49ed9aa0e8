"""A pull in flight on the node whose containerd asks: its state, and what its source has reported."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

from speil.claims.message import Answer, Follow, Holders, Phase, Reason, Status, tag
from speil.claims.states import FETCHES, HELD, PULL, PullEvent, PullState, after
from speil.multiformats.peer_id import PeerId
from speil.multiformats.peer_info import PeerInfo

ASK_SECONDS_MAX = 0.5  # for an umpire's answer, then the next one is asked too: a busy one takes a while
ASK_ALL_SECONDS_MAX = 2.5  # for the answer of any umpire: thousands of questions at one instant take a while
POSTPONED_SECONDS_MAX = 3.0  # of one pull; a node without CPU for longer can't serve its containerd in time
LIFE_SECONDS_MAX = 1.0
QUESTION_SECONDS = 0.6  # without a byte, until the source is asked whether it is alive
REPLACE_SECONDS = 1.0  # a source without bytes has so much longer: its own source is being replaced
CRAWL_SECONDS = 3.0  # the rate is measured over this time
RATE_SECONDS_MIN = 1.0  # before that a rate says little
CRAWL_FRACTION = 20  # slower than this part of the fastest other pull of this node
CRAWL_BYTES_PER_SECOND_MIN = 64 << 10  # any upstream is faster: the bound for a body of a peer, too
RESTARTS_MAX = 3  # of the wait without a byte; a source could name new fetchers without end
AHEAD_BYTES = 4 << 20  # a source that is further ahead sends slowly; one that is not waits itself


def slow_rate(usual_rate: float) -> float:
    """A download below this is slow, where the others of the node have `usual_rate`; bytes per second."""
    return max(usual_rate / CRAWL_FRACTION, CRAWL_BYTES_PER_SECOND_MIN)


@dataclass(frozen=True, slots=True)
class Facts:
    """What the shell passes when containerd asks; 0 where a value is unknown. Rates are bytes per second.

    rate: at which this node's downloads from upstreams grow, all together, as remembered from the last pull.
    link: the most that this node was seen to send. patience_seconds: how long containerd's request may be held without
    a byte, for content that an upstream sends quickly (manifests); 0 for no other bound than the usual ones.
    """

    size_bytes: int = 0
    rate: int = 0
    link: int = 0
    patience_seconds: float = 0.0


@dataclass(slots=True)
class Pull:
    """One pull; times are the caller's monotonic seconds."""

    facts: Facts
    umpires: deque[PeerInfo]
    started_at: float
    state: PullState = PullState.ASKING
    umpire: PeerInfo | None = None
    asked_at: float = 0.0  # the last umpire
    asking_since: float = 0.0
    asked: dict[PeerId, PeerInfo] = field(default_factory=dict)  # umpires that may still answer
    has_asked_all: bool = False
    told: dict[PeerId, PeerInfo] = field(default_factory=dict)  # umpires that may have placed this node
    dead: list[PeerId] = field(default_factory=list)
    unanswered: int = 0
    deferred: int = 0
    reason: Reason = Reason.MISS
    left: PeerId | None = None  # the source that `reason` is about
    unwanted: frozenset[PeerId] = frozenset()  # sources that the umpires asked now were told not to name
    suspect: PeerId | None = None  # the last source that was left without a byte, until the next byte
    left_at: float = 0.0  # when that was
    suspected_for: float = 0.0  # seconds
    source: PeerInfo | None = None
    source_phase: Phase | None = None  # None: it has not said yet
    source_offset: int = 0
    path: tuple[int, ...] = ()
    source_rate: float | None = None  # between its last two answers, while it fetches
    life_at: float = 0.0  # the source's last sign of life
    question_at: float = 0.0  # the last question to the source
    said_at: float = float("-inf")  # its last answer
    byte_at: float = 0.0  # the last byte, or containerd's request
    wait_from: float = 0.0  # the last byte, or when the source was asked, or when another node began to fetch
    fetcher: int | None = None  # the tag of the node that fetches, as the source says
    restarts: int = 0  # of the wait, with one source
    offset: int = 0
    mark_at: float = 0.0  # since when, and from where, the rate is measured
    mark_offset: int = 0
    failures: int = 0
    has_crawled: bool = False  # it left a source as CRAWLING
    moves: int = 0
    postponed: float = 0.0

    def change(self, event: PullEvent) -> None:
        """The next state. Raises IllegalEventError."""
        self.state = after(PULL, self.state, event)

    def join(self, source: PeerInfo, now: float) -> None:
        """Follow `source` from now on."""
        self.source, self.source_phase, self.source_offset, self.path, self.source_rate = source, None, 0, (), None
        self.said_at = float("-inf")
        self.life_at = self.wait_from = self.question_at = self.mark_at = now
        self.fetcher, self.restarts = None, 0
        self.mark_offset = self.offset

    def received(self, offset: int, now: float) -> None:
        """Bytes up to `offset` came."""
        self.offset = offset
        self.byte_at = self.wait_from = self.life_at = now
        self.restarts = 0

    def heard(self, status: Status, now: float) -> None:
        """The source's answer."""
        seconds, fetches = now - self.said_at, self.source_phase is status.phase is Phase.FETCHING
        self.source_rate = (status.offset - self.source_offset) / seconds if fetches and seconds else None
        self.life_at = self.said_at = now
        self.source_phase, self.source_offset, self.path = status.phase, status.offset, status.path

    def found_fetcher(self, fetcher: int, now: float) -> None:
        """The source says who fetches. Where that is another node than before, it has just begun: wait anew."""
        if self.fetcher is not None and fetcher != self.fetcher and self.restarts < RESTARTS_MAX:
            self.restarts += 1
            self.wait_from = now
        self.fetcher = fetcher

    def names_unwanted(self, answer: Answer) -> bool:
        """Whether an umpire names nobody but sources that it was told not to name: it lies, or is at fault."""
        match answer:
            case Follow(source):
                return source.peer_id in self.unwanted
            case Holders(peers):
                return all(peer.peer_id in self.unwanted for peer in peers)
            case _:
                return False

    def left_without_byte(self, source: PeerId, now: float, seconds: float) -> None:
        """It left a source that sent no byte. Where bytes come from elsewhere within `seconds`, the source is at fault.

        Otherwise the upstream is slow.
        """
        self.suspect, self.left_at, self.suspected_for = source, now, seconds

    def culprit(self, now: float) -> PeerId | None:
        """Bytes come. The source that is at fault for having sent none, if there is one."""
        suspect, self.suspect = self.suspect, None
        return suspect if suspect is not None and now < self.left_at + self.suspected_for else None

    def held_up(self, now: float) -> None:
        """containerd took no bytes until now, though bytes are there for it."""
        self.wait_from = self.life_at = now
        self.mark(now)

    @property
    def status(self) -> Status:
        """The answer to a follower's AskStatus."""
        if self.state is PullState.DELIVERED:
            return Status(Phase.COMPLETE)
        if self.state in FETCHES:
            return Status(Phase.FETCHING, self.offset)
        return Status(Phase.FOLLOWING, self.offset, (tag(self.source.peer_id), *self.path) if self.source else ())

    @property
    def given_up_at(self) -> float:
        """When a pull without any byte is given up: content that an upstream sends quickly."""
        patience = self.facts.patience_seconds
        return self.started_at + patience if patience and not self.offset else float("inf")

    def wait_ends_at(self, wait_seconds: float) -> float:
        """When a pull without bytes leaves its source; `wait_seconds` is the share wait."""
        waits_itself = self.source_phase is Phase.FOLLOWING
        return self.wait_from + wait_seconds + (REPLACE_SECONDS if waits_itself else 0)

    def next_deadline(self, wait_seconds: float) -> float | None:
        """When something is due; None while nothing is awaited."""
        if self.state not in HELD:
            return None
        if self.state in (PullState.ASKING, PullState.ASKING_AGAIN):
            next_at = self.asked_at + ASK_SECONDS_MAX
            return min(self.asking_since + ASK_ALL_SECONDS_MAX if self.has_asked_all else next_at, self.given_up_at)
        question_at = max(self.life_at, self.question_at) + QUESTION_SECONDS
        slow_at = max(self.mark_at + CRAWL_SECONDS, self.question_at + QUESTION_SECONDS)
        life_at = self.life_at + LIFE_SECONDS_MAX
        return min(question_at, slow_at, life_at, self.wait_ends_at(wait_seconds), self.given_up_at)

    def postpone(self, seconds: float) -> None:
        """Wait so much longer, up to POSTPONED_SECONDS_MAX in all: this node was late itself."""
        seconds = min(seconds, POSTPONED_SECONDS_MAX - self.postponed)
        self.postponed += seconds
        self.started_at += seconds
        self.asked_at += seconds
        self.asking_since += seconds
        self.life_at += seconds
        self.question_at += seconds
        self.wait_from += seconds
        self.mark_at += seconds

    def rate(self, now: float) -> float:
        """Bytes per second since the mark; 0 where it is too early to say."""
        seconds = now - self.mark_at
        return (self.offset - self.mark_offset) / seconds if seconds >= RATE_SECONDS_MIN else 0.0

    def source_crawls(self, usual_rate: float) -> bool:
        """Whether the source fetches as slowly; not known before its second answer: it may have begun just now."""
        return self.source_rate is not None and self.source_rate < slow_rate(usual_rate)

    def is_slow(self, usual_rate: float, now: float) -> bool:
        """Whether bytes come much more slowly than at `usual_rate`, measured over at least CRAWL_SECONDS.

        A pull without any byte is not slow: the wait for the next byte has a bound of its own.
        """
        if now < self.mark_at + CRAWL_SECONDS or self.offset == self.mark_offset:
            return False
        return self.rate(now) < slow_rate(usual_rate)

    def mark(self, now: float) -> None:
        """Measure the rate from here on."""
        self.mark_at, self.mark_offset = now, self.offset
