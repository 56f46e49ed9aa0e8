"""Which umpire a pull asks: the first one, and another one where it did not answer or named a closer node."""

from __future__ import annotations

from speil.claims.action import Action, AskUmpire, GoUpstream
from speil.claims.message import DEAD_MAX, Ask, Reason
from speil.claims.pull import Pull
from speil.claims.reputation import Reputation
from speil.claims.states import PullEvent
from speil.multiformats.peer_id import PeerId
from speil.multiformats.peer_info import PeerInfo

UMPIRES_ASKED_MAX = 4  # of one pull, without an answer; more are down only where the pull goes upstream soon anyway
DEFERS_MAX = 4  # each names a node closer to the key; honest views differ by one or two


def go_alone(key: bytes, pull: Pull) -> list[Action]:
    """The pull goes upstream without a claim."""
    pull.change(PullEvent.ALONE)
    return [GoUpstream(key, claimed=False)]


class Questions:
    """The questions of a node's pulls to umpires. The state of each pull is in its Pull."""

    def __init__(self, reputation: Reputation) -> None:
        self._reputation = reputation

    def begin(self, key: bytes, pull: Pull, now: float) -> list[Action]:
        """Ask the first umpire: at the start of a pull, and each time it has left a source."""
        pull.asked, pull.asking_since, pull.has_asked_all, pull.deferred = {}, now, False, 0
        return self._next(key, pull, now)

    def no_answer(self, key: bytes, pull: Pull, umpire: PeerId, now: float) -> list[Action]:
        """The umpire failed or is late: ask the next one. An answer that comes later still counts."""
        if umpire not in pull.dead:
            pull.dead.append(umpire)
            pull.unanswered += 1
        pull.change(PullEvent.UNANSWERED)
        return self._next(key, pull, now)

    def deferred(self, key: bytes, pull: Pull, umpire: PeerId, closer: PeerInfo, now: float) -> list[Action]:
        """The umpire named a node that is closer to the key: ask that one, up to DEFERS_MAX times in a row."""
        pull.deferred += 1
        del pull.asked[umpire], pull.told[umpire]
        if pull.deferred > DEFERS_MAX or closer.peer_id in pull.dead:
            return self.no_answer(key, pull, umpire, now)
        pull.change(PullEvent.DEFERRED)
        if closer.peer_id in pull.asked:
            return []
        pull.umpires.appendleft(closer)
        return self._next(key, pull, now)

    def _next(self, key: bytes, pull: Pull, now: float) -> list[Action]:
        """Ask the first umpire that is left; its entry stays, so that it is asked again after a move."""
        while pull.umpires and pull.umpires[0].peer_id in pull.dead:
            pull.umpires.popleft()
        if not pull.umpires or pull.unanswered >= UMPIRES_ASKED_MAX:
            pull.has_asked_all = True
            return [] if pull.asked else go_alone(key, pull)
        umpire = pull.umpire = pull.umpires[0]
        pull.asked_at, pull.asked[umpire.peer_id] = now, umpire
        pull.told[umpire.peer_id] = umpire
        facts, avoided = pull.facts, self._reputation.avoided(now)
        has_failed = pull.reason in (Reason.SILENT, Reason.NO_BYTE, Reason.GONE)
        pull.unwanted = frozenset((*avoided, pull.left) if pull.left and has_failed else avoided)
        ask = Ask(
            pull.reason,
            pull.left,
            facts.size_bytes,
            facts.rate,
            facts.link,
            avoided=avoided,
            dead=tuple(pull.dead[-DEAD_MAX:]),
        )
        return [AskUmpire(key, umpire, ask)]
