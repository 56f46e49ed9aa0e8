"""Which holders of a tag to ask, and how long to wait for their answers: a machine. Facts and `now` in, decisions out.

Some holders are asked at once. For each one that does not answer soon one more is asked. It ends when enough answers
are there, when nobody is left to ask, or when waiting longer is not worth it.
"""

from __future__ import annotations

from speil.fetch.tag_answers import HOLDERS_ASKED_MAX, HolderAnswer, Scope
from speil.fetch.transfer import FIRST_BYTE_SECONDS_MAX
from speil.multiformats.peer_id import PeerId
from speil.multiformats.peer_info import PeerInfo


class TagPoll:
    """One tag's poll; times are the caller's monotonic seconds. `asked` counts the requests."""

    def __init__(self, scope: Scope, now: float, search_seconds: float) -> None:
        """`search_seconds`: how long to wait for a first holder, and again after one that failed."""
        self._scope, self._search_seconds = scope, search_seconds
        self.answers: list[HolderAnswer] = []
        self.asked = 0
        self._candidates: dict[PeerId, PeerInfo] = {}
        self._open: dict[PeerId, float] = {}  # when each was asked
        self._seen: set[PeerId] = set()
        self._searching = True
        self._first_found_at: float | None = None
        self._first_answer_at: float | None = None
        self._end = now + FIRST_BYTE_SECONDS_MAX
        self._patience_deadline = now + search_seconds

    # --- facts ------------------------------------------------------------------------------------------

    def found(self, peer: PeerInfo, now: float) -> None:
        """The search named a holder."""
        if peer.peer_id in self._seen:
            return
        self._seen.add(peer.peer_id)
        self._candidates[peer.peer_id] = peer
        if self._first_found_at is None:
            self._first_found_at = now

    def search_ended(self) -> None:
        """The search names nobody else."""
        self._searching = False

    def answered(self, answer: HolderAnswer, now: float) -> None:
        """A holder answered."""
        self._open.pop(answer.peer.peer_id, None)
        self.answers.append(answer)
        if self._first_answer_at is None:
            self._first_answer_at = now

    def failed(self, peer_id: PeerId, now: float) -> None:
        """A holder did not answer, or its answer can't be used."""
        self._open.pop(peer_id, None)
        self._patience_deadline = max(self._patience_deadline, now + self._search_seconds)

    # --- decisions --------------------------------------------------------------------------------------

    def asks(self, now: float) -> list[PeerInfo]:
        """Whom to ask now."""
        found: list[PeerInfo] = []
        while self._candidates and len(self.answers) + self._expected_soon(now) < self._scope.answers_max:
            if self.asked >= HOLDERS_ASKED_MAX:
                self._candidates.clear()
                break
            peer = self._candidates.pop(next(iter(self._candidates)))
            self._open[peer.peer_id] = now
            self.asked += 1
            found.append(peer)
        return found

    def next_deadline(self, now: float) -> float:
        """When to look again if nothing happens before; not after `now` where the poll has ended."""
        return min(self._wait_until(now), self._end)

    def _wait_until(self, now: float) -> float:
        if len(self.answers) >= self._scope.answers_max:
            return now
        if not self._open and not self._candidates:
            if not self._searching or self.asked >= HOLDERS_ASKED_MAX:
                return now
            if self.answers and self._first_found_at is not None:
                return self._first_found_at + self._scope.more_holders_seconds
            return self._patience_deadline
        if self._first_answer_at is not None:
            return self._first_answer_at + self._scope.more_answers_seconds
        wakes = [asked + self._scope.more_answers_seconds for asked in self._open.values()]
        return min((wake for wake in wakes if wake > now), default=now + FIRST_BYTE_SECONDS_MAX)

    def _expected_soon(self, now: float) -> int:
        """How many may be expected to answer soon."""
        return sum(now < asked + self._scope.more_answers_seconds for asked in self._open.values())
