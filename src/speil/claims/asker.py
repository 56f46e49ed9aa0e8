"""What a node does when its containerd asks for content that neither its store nor a known peer has.

It asks the umpire of the key, after ASK_SECONDS_MAX the next closest too. The first answer sends containerd to the
upstream at once, or names a source whose growing copy is passed on. containerd has few download slots, so its request
is held only while a live node is known to fetch: a source gives a sign of life within LIFE_SECONDS_MAX (bytes count, or
the answer to a question that is asked only while no byte comes), and bytes within the share wait. A source that itself
waits for bytes gets as much longer as its own source needs to be replaced: so one node asks the umpire, and not all.

A pull leaves a limited number of sources. Then its containerd goes upstream without a claim. A source that failed is
avoided for a while.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from speil.claims.action import (
    Action,
    AskSource,
    GoUpstream,
    Join,
    Leave,
    SendRelease,
    UseHolders,
)
from speil.claims.message import (
    Alone,
    Answer,
    Defer,
    Ending,
    Fetch,
    Follow,
    Holders,
    Phase,
    Reason,
    Release,
    Status,
    tag,
)
from speil.claims.noted import Noted
from speil.claims.pull import AHEAD_BYTES, CRAWL_SECONDS, LIFE_SECONDS_MAX, QUESTION_SECONDS, Facts, Pull
from speil.claims.questions import Questions, go_alone
from speil.claims.reputation import Reputation
from speil.claims.states import PullEvent, PullState
from speil.multiformats.peer_id import PeerId
from speil.multiformats.peer_info import PeerInfo

SHARE_WAIT_SECONDS = 3.0  # without a byte; slow upstreams send their first byte within two seconds
UMPIRES_KNOWN_MAX = 20  # of those closest to a key: as many as the DHT returns
FAILURES_MAX = 4  # sources of one pull that failed; a slow upstream makes honest ones fail, each after the share wait
MOVES_MAX = 8  # sources of one pull that were left, with those that were only full
HOLD_SECONDS_MAX = 15.0  # without a byte, whatever the sources say
SPOILED_SECONDS = 10 * 60.0
SPOILED_MAX = 1_000
LATE_SECONDS = 0.1  # of a tick; a loop with enough CPU is late by milliseconds
PULLS_MAX = 1_024  # more at a time go upstream without a claim; containerd has three slots for each image


class Asker:
    """The pulls of one node, one for each key. Times are the caller's monotonic seconds."""

    def __init__(self, local: PeerId, share_wait_seconds: float = SHARE_WAIT_SECONDS) -> None:
        self._tag, self._wait_seconds = tag(local), share_wait_seconds
        self._pulls: dict[bytes, Pull] = {}
        self._reputation = Reputation()
        self._questions = Questions(self._reputation)
        self._spoiled = Noted[bytes](SPOILED_SECONDS, SPOILED_MAX)

    def __len__(self) -> int:
        return len(self._pulls)

    def pull(self, key: bytes) -> Pull | None:
        """The pull of a key, to be read only."""
        return self._pulls.get(key)

    # --- containerd and the store -----------------------------------------------------------------------

    def miss(self, key: bytes, umpires: Sequence[PeerInfo], facts: Facts, now: float) -> list[Action]:
        """containerd asks for the content. `umpires`: the nodes closest to the key, closest first, with this node.

        While a pull of the key is under way nothing new is asked; where it goes upstream, that is returned again.
        """
        if pull := self._pulls.get(key):
            pull.change(PullEvent.REPEATED)
            claimed = pull.state is PullState.FETCHING
            return [GoUpstream(key, claimed)] if claimed or pull.state is PullState.ALONE else []
        if self.is_spoiled(key, now) or not self._wait_seconds or not umpires or len(self._pulls) >= PULLS_MAX:
            return [GoUpstream(key, claimed=False)]
        known = umpires[:UMPIRES_KNOWN_MAX]
        mute = [one.peer_id for one in known if self._reputation.mute.count(one.peer_id, now)]
        pull = self._pulls[key] = Pull(
            facts, deque(one for one in known if one.peer_id not in mute), now, dead=mute, byte_at=now
        )
        return self._questions.begin(key, pull, now)

    def received(self, key: bytes, offset: int, now: float) -> None:
        """This node has the content up to `offset`, from its source, from holders or from the upstream.

        For a follower: the bytes that were passed to containerd. Otherwise: what its ingest has grown to.
        """
        pull = self._pulls.get(key)
        if pull is not None and offset > pull.offset:
            pull.change(PullEvent.BYTES)
            if culprit := pull.culprit(now):
                self._reputation.distrusted.note(culprit, now)
            pull.received(offset, now)

    def held_up(self, key: bytes, now: float) -> None:
        """containerd took none of the bytes that are there for it until now: no fault of the source."""
        if (pull := self._pulls.get(key)) and pull.source is not None:
            pull.held_up(now)

    def step_aside(self, key: bytes) -> list[Action]:
        """containerd's request got no byte of its source, is ended, and will be back: then the umpire is asked anew.

        Until then this node is no source: it downloads nothing, and containerd may be back late.
        """
        pull = self._pulls.get(key)
        return self._end(key, Ending.CANCELLED) if pull is not None and pull.state is PullState.JOINING else []

    def delivered(self, key: bytes) -> None:
        """containerd has the last byte, from a source or from holders: it verifies the content now."""
        pull = self._pulls.get(key)
        if pull is not None and pull.state in (PullState.RECEIVING, PullState.WITH_HOLDERS):
            pull.change(PullEvent.DELIVERED)

    def completed(self, key: bytes, now: float) -> None:
        """The content is in the store. Small content is there before a byte of it was reported."""
        if pull := self._pulls.pop(key, None):
            pull.change(PullEvent.COMPLETED)
            if culprit := pull.culprit(now):
                self._reputation.distrusted.note(culprit, now)

    def cancelled(self, key: bytes) -> list[Action]:
        """The download is gone: its ingest has vanished, or containerd has closed its request."""
        return self._end(key, Ending.CANCELLED)

    def spoiled(self, key: bytes, now: float) -> list[Action]:
        """The bytes of the download did not match the digest: the key is not shared in flight for a while.

        Its source may have passed on what its upstream sent. Other content is not taken from it for a while either: one
        that makes wrong bytes itself would fail a pull with each.
        """
        self._spoiled.note(key, now)
        if (pull := self._pulls.get(key)) and pull.source is not None:
            self._reputation.distrusted.note(pull.source.peer_id, now)
        return self._end(key, Ending.SPOILED)

    def is_spoiled(self, key: bytes, now: float) -> bool:
        """Whether bytes of the key did not match its digest lately."""
        return bool(self._spoiled.count(key, now))

    def status(self, key: bytes, *, is_stored: bool) -> Status:
        """The answer to a follower's AskStatus. `is_stored`: the content is in this node's store."""
        if is_stored:
            return Status(Phase.COMPLETE)
        return pull.status if (pull := self._pulls.get(key)) else Status(Phase.NONE)

    # --- umpires ----------------------------------------------------------------------------------------

    def answered(self, key: bytes, umpire: PeerId, answer: Answer, now: float) -> list[Action]:
        """An umpire's answer. The first answer counts, also from one that was slower than the next one was asked."""
        pull = self._asking(key, umpire)
        if pull is None:
            return []
        if pull.names_unwanted(answer):
            return self._unanswered(key, pull, umpire, now)
        self._reputation.mute.forget(umpire)
        if not isinstance(answer, Defer):
            pull.umpire = pull.asked[umpire]
        match answer:
            case Defer(closer):
                return self._questions.deferred(key, pull, umpire, closer, now)
            case Fetch():
                pull.change(PullEvent.FETCH)
                pull.mark(now)
                return [GoUpstream(key, claimed=True)]
            case Follow(source):
                pull.change(PullEvent.FOLLOW)
                pull.join(source, now)
                return [Join(key, source, pull.offset)]
            case Holders(peers):
                pull.change(PullEvent.HOLDERS)
                pull.join(peers[0], now)
                return [UseHolders(key, peers, pull.offset)]
            case Alone():
                return go_alone(key, pull)

    def unanswered(self, key: bytes, umpire: PeerId, now: float) -> list[Action]:
        """An umpire can't be reached, or its answer is of no use."""
        pull = self._asking(key, umpire)
        return [] if pull is None else self._unanswered(key, pull, umpire, now)

    def _unanswered(self, key: bytes, pull: Pull, umpire: PeerId, now: float) -> list[Action]:
        del pull.asked[umpire]
        self._reputation.mute.note(umpire, now)
        return self._questions.no_answer(key, pull, umpire, now)

    # --- the source -------------------------------------------------------------------------------------

    def accepted(self, key: bytes, source: PeerId, now: float) -> None:
        """The head of the source's response came."""
        if pull := self._following(key, source):
            pull.life_at = now

    def refused(self, key: bytes, source: PeerId, reason: Reason, now: float) -> list[Action]:
        """The source, or the last of the holders, refused or broke off: GONE, or FULL where it is busy."""
        pull = self._following(key, source)
        return [] if pull is None else self._leave(key, pull, reason, now)

    def source_said(self, key: bytes, source: PeerId, status: Status, now: float) -> list[Action]:
        """The source's answer to AskStatus."""
        pull = self._following(key, source)
        if pull is None or pull.state is PullState.WITH_HOLDERS:
            return []
        pull.heard(status, now)
        pull.found_fetcher(status.path[-1] if status.path else tag(source), now)
        if self._tag in status.path:
            return self._leave(key, pull, Reason.LOOP, now)
        if status.phase is Phase.NONE:
            return self._leave(key, pull, Reason.GONE, now)
        return self._look(key, pull, now)

    # --- time -------------------------------------------------------------------------------------------

    def next_deadline(self) -> float | None:
        """When to call `tick` next; None while nothing is awaited."""
        known = (pull.next_deadline(self._wait_seconds) for pull in self._pulls.values())
        return min((at for at in known if at is not None), default=None)

    def tick(self, now: float) -> list[Action]:
        """What is due.

        Called late, this node had no CPU, and answers may have come meanwhile: then all waits last longer.
        """
        due_at = self.next_deadline()
        if due_at is not None and now - due_at > LATE_SECONDS:
            for pull in self._pulls.values():
                pull.postpone(now - due_at + LATE_SECONDS)
        deadlines = [(key, pull.next_deadline(self._wait_seconds)) for key, pull in self._pulls.items()]
        due = [key for key, at in deadlines if at is not None and at <= now]
        return [action for key in due for action in self._late(key, self._pulls[key], now)]

    def _late(self, key: bytes, pull: Pull, now: float) -> list[Action]:
        if now >= pull.given_up_at:
            source = pull.source if pull.state not in (PullState.ASKING, PullState.ASKING_AGAIN) else None
            if source is None:
                return go_alone(key, pull)
            if pull.source_phase is Phase.FETCHING:
                pull.left_without_byte(source.peer_id, now, (now - pull.wait_from) / 2)
            return [Leave(key, source, Reason.NO_BYTE), *go_alone(key, pull)]
        if pull.state in (PullState.ASKING, PullState.ASKING_AGAIN):
            if pull.has_asked_all or pull.umpire is None:
                return go_alone(key, pull)
            self._reputation.mute.note(pull.umpire.peer_id, now)
            return self._questions.no_answer(key, pull, pull.umpire.peer_id, now)
        return self._look(key, pull, now)

    def _look(self, key: bytes, pull: Pull, now: float) -> list[Action]:
        """Whether the source is still good enough."""
        if now >= pull.life_at + LIFE_SECONDS_MAX:
            return self._leave(key, pull, Reason.SILENT, now)
        if now >= pull.wait_ends_at(self._wait_seconds):
            return self._leave(key, pull, Reason.NO_BYTE, now)
        is_slow = pull.is_slow(self._usual_rate(pull, now), now)
        if is_slow and pull.source_phase is not None and now < pull.said_at + LIFE_SECONDS_MAX:
            if pull.source_phase is Phase.COMPLETE or pull.source_offset - pull.offset > AHEAD_BYTES:
                return self._leave(key, pull, Reason.SLOW, now)
            may_crawl = pull.source_phase is Phase.FETCHING and not pull.has_crawled
            if may_crawl and pull.source_crawls(self._usual_rate(pull, now)):
                return self._leave(key, pull, Reason.CRAWLING, now)
            if not may_crawl or pull.source_rate is not None:
                pull.mark(now)
        elif not is_slow and now >= pull.mark_at + CRAWL_SECONDS:
            pull.mark(now)
        is_quiet = now >= max(pull.life_at, pull.question_at) + QUESTION_SECONDS
        if pull.source and (is_quiet or (is_slow and now >= pull.question_at + QUESTION_SECONDS)):
            pull.question_at = now
            return [AskSource(key, pull.source)]
        return []

    def _usual_rate(self, pull: Pull, now: float) -> float:
        """What the fastest other pull of this node does, in bytes per second."""
        return max((other.rate(now) for other in self._pulls.values() if other is not pull), default=0.0)

    # --- steps ------------------------------------------------------------------------------------------

    def _asking(self, key: bytes, umpire: PeerId) -> Pull | None:
        pull = self._pulls.get(key)
        if pull is None or umpire not in pull.asked:
            return None
        return pull if pull.state in (PullState.ASKING, PullState.ASKING_AGAIN) else None

    def _following(self, key: bytes, source: PeerId) -> Pull | None:
        pull = self._pulls.get(key)
        if pull is None or pull.source is None or pull.source.peer_id != source:
            return None
        return pull if pull.state in (PullState.JOINING, PullState.RECEIVING, PullState.WITH_HOLDERS) else None

    def _leave(self, key: bytes, pull: Pull, reason: Reason, now: float) -> list[Action]:
        source = pull.source
        assert source is not None
        pull.moves += 1
        waits_itself = reason is Reason.NO_BYTE and pull.source_phase is Phase.FOLLOWING
        if reason.is_failure and reason is not Reason.CRAWLING and not waits_itself:
            pull.failures += 1
        pull.has_crawled = pull.has_crawled or reason is Reason.CRAWLING
        if reason is Reason.SILENT:
            self._reputation.silent.note(source.peer_id, now)
        elif reason is Reason.NO_BYTE and not waits_itself:
            pull.left_without_byte(source.peer_id, now, self._wait_seconds)
        left = Leave(key, source, reason)
        has_waited = now >= pull.byte_at + HOLD_SECONDS_MAX
        if has_waited or pull.failures > FAILURES_MAX or pull.moves > MOVES_MAX:
            return [left, *go_alone(key, pull)]
        pull.change(PullEvent.LEAVE)
        pull.reason, pull.left, pull.source, pull.path = reason, source.peer_id, None, ()
        return [left, *self._questions.begin(key, pull, now)]

    def _end(self, key: bytes, ending: Ending) -> list[Action]:
        pull = self._pulls.pop(key, None)
        if pull is None:
            return []
        pull.change(PullEvent.CANCELLED)
        return [SendRelease(key, umpire, Release(ending)) for umpire in pull.told.values()]
