"""The elector: client-go's acquire, renew and release. A node never leaves the election, and the load stays bounded.

A candidate reads the Lease. If it is free, its own, or its holder has stopped renewing it, the candidate writes itself
into it, on the version that it read: of many, one succeeds. The leader renews by writes alone. It gives up when it
could not renew for the renew deadline, which is before anybody may take the Lease. Then it is a candidate again.

`state` has the states and the transitions, `watch` what was seen of the Lease, `polling` when to look again, and
`proposal` what is written.

How to drive it: call `start`. Perform each request (Read or Write) that is returned, one at a time, and answer it with
exactly one of `read`, `written`, `conflicted`, `failed`. While no request is under way, call `tick` when
`next_deadline` is reached. Call `stop` last, at any time; a request that is under way then counts as cut off and is not
answered. Any other order raises IllegalInputError. `now` is monotonic seconds.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from speil.election.action import Action, Event, EventKind, Read, Write
from speil.election.config import ElectionConfig
from speil.election.ownership import GIVEN_UP_SECONDS, Claim, Owner
from speil.election.polling import PollSchedule
from speil.election.proposal import Proposal
from speil.election.record import LeaderElectionRecord, Lease
from speil.election.state import LEADS, READS, RELEASES, RENEWS, STOPS, Input, State, check, next_state
from speil.election.watch import LeaseWatch

if TYPE_CHECKING:
    from random import Random

DENIED_SECONDS = 30.0  # between tries that an operator has to make succeed: a Role, a wrong name
UNKNOWN_SECONDS_MAX = 10.0  # between tries of a node that has never seen the Lease
_DOUBLINGS_MAX = 8  # of the retry period: by then the wait is over UNKNOWN_SECONDS_MAX


class Elector:
    """One node's part in the election of its region. See the module."""

    def __init__(self, config: ElectionConfig, identity: str, owner: Owner, rng: Random) -> None:
        self._config, self.identity = config, identity
        self.state = State.NEW
        self._watch = LeaseWatch(config, owner)
        self._schedule = PollSchedule(config, rng)
        self._proposal = Proposal(config, identity, owner)
        self._due = 0.0  # when the next request is sent
        self._sent_at = 0.0  # when the last request was sent
        self._renewed_at = 0.0  # when the last write that succeeded was sent
        self._failures = 0  # in a row
        self._reported_holder = ""

    # --- what is known ----------------------------------------------------------------------------------

    @property
    def leading(self) -> bool:
        """Whether this node leads."""
        return self.state in LEADS

    @property
    def stopped(self) -> bool:
        """Whether the elector has ended: no input is possible any more."""
        return self.state is State.STOPPED

    @property
    def lease(self) -> Lease | None:
        """The Lease as last read or written."""
        return self._watch.lease

    @property
    def own(self) -> LeaderElectionRecord | None:
        """The last record that was this region's."""
        return self._watch.own

    @property
    def foreign(self) -> bool:
        """Whether the Lease is another region's: not believed, and written only as `ownership` allows it."""
        return self._watch.foreign

    @property
    def nodes(self) -> int:
        """The best estimate of the region's size: the leader's or this node's, whichever is higher; 0 is unknown."""
        return self._proposal.nodes(None if self.foreign else self.lease)

    def know(self, nodes: int, peers: tuple[str, ...]) -> None:
        """What the mesh says: an estimate of the region's size (this node included), and live peers."""
        self._proposal.know(nodes, peers)

    def next_deadline(self) -> float:
        """When to call `tick`, while no request is under way."""
        return min(self._due, self._give_up_at) if self.leading else self._due

    def request_deadline(self, now: float) -> float:
        """When a request sent at `now` has failed. A leader's request fails before the leader has to give up."""
        timeout = now + self._config.request_timeout_seconds
        return min(timeout, self._give_up_at) if self.leading else timeout

    # --- inputs -----------------------------------------------------------------------------------------

    def start(self, now: float) -> list[Action]:
        """Take part in the election, as a candidate. The first input, given once."""
        request = self._advance(Input.START, now)
        return [Event(EventKind.CANDIDATE), *request]

    def tick(self, now: float) -> list[Action]:
        """The time may have come for a request, or for a leader to give up."""
        check(self.state, Input.DUE)  # not while a request is under way
        events = self._give_up(now)
        if now < self._due:
            return events
        return [*events, *self._advance(Input.DUE, now)]

    def read(self, lease: Lease | None, now: float) -> list[Action]:
        """The Lease as the store has it; None: there is none."""
        check(self.state, Input.MAY_WRITE)  # only while a read is under way
        self._failures = 0
        events = [*self._observe(lease, now), *self._give_up(now)]
        if self.state in STOPS:
            is_held = lease is not None and lease.record.holder_identity == self.identity and not self.foreign
            return [*events, *self._advance(Input.MAY_WRITE if is_held else Input.MUST_WAIT, now)]
        if lease is None or self._watch.may_write(lease, self.identity, now):
            return [*events, *self._advance(Input.MAY_WRITE, now)]
        self._due = now + self._wait_seconds(lease, now)
        return [*events, *self._advance(Input.MUST_WAIT, now)]

    def written(self, lease: Lease, now: float) -> list[Action]:
        """The write succeeded; `lease` is what the store has now."""
        state, self.state = self.state, next_state(self.state, Input.WRITTEN)
        self._failures = 0
        before, was_foreign = self.lease, self.foreign
        self._watch.written(lease, now)
        if self.stopped:
            return [self._event(EventKind.RELEASED)]
        self._proposal.written(lease, before, now)
        self._renewed_at = self._sent_at
        self._due = self._sent_at + self._config.retry_period_seconds
        kind = EventKind.RENEWED if state in LEADS else EventKind.ACQUIRED
        detail = "the Lease is taken back" if was_foreign else ""
        return [self._event(kind, detail), *self._new_holder()]

    def conflicted(self, now: float) -> list[Action]:
        """Another node wrote first: read again. A leader does so at once; after a second conflict in a row it waits."""
        check(self.state, Input.CONFLICT)
        events = self._give_up(now)
        request = self._advance(Input.CONFLICT, now)
        if not request:
            self._due = now + self._schedule.soon()
        return [*events, *request]

    def failed(self, now: float, *, denied: bool = False) -> list[Action]:
        """The request failed, or its outcome is unknown; `denied`: only an operator can make it succeed."""
        check(self.state, Input.FAILED)
        self._failures += 1
        events = self._give_up(now)
        self._advance(Input.FAILED, now)
        if self.leading:
            self._due = max(self._sent_at + self._config.retry_period_seconds, now)
        elif denied:
            self._due = now + self._schedule.jittered(DENIED_SECONDS)
        elif self.lease is None:
            backoff = self._config.retry_period_seconds * 2 ** min(self._failures - 1, _DOUBLINGS_MAX)
            self._due = now + self._schedule.jittered(min(backoff, UNKNOWN_SECONDS_MAX))
        else:
            self._due = now + self._schedule.poll(self.nodes)
        return events

    def stop(self, now: float) -> list[Action]:
        """Take part no more, and release the Lease if it is held. A write that is under way may have succeeded."""
        return self._advance(Input.STOP, now)

    # --- transitions ------------------------------------------------------------------------------------

    def _advance(self, input: Input, now: float) -> list[Action]:
        """Change the state; the request of the new one."""
        self.state = next_state(self.state, input)
        if self.state in READS:
            self._sent_at = now
            return [Read()]
        if self.state in RENEWS:
            self._sent_at = now
            return [Write(self._proposal.renewal(self.lease, now, is_foreign=self.foreign), self.lease)]
        if self.state in RELEASES:
            assert self.lease is not None, "a Lease that is released was acquired"
            self._sent_at = now
            return [Write(self._proposal.release(self.lease), self.lease)]
        return []

    @property
    def _give_up_at(self) -> float:
        return self._renewed_at + self._config.give_up_seconds

    def _give_up(self, now: float) -> list[Action]:
        if not self.leading or now < self._give_up_at:
            return []
        self._due = now
        return self._lose(f"not renewed for {now - self._renewed_at:.1f} s")

    def _lose(self, why: str) -> list[Action]:
        self.state = next_state(self.state, Input.LOSE)
        self._reported_holder = ""  # the next leader is reported, also if it is this node
        return [self._event(EventKind.LOST, why)]

    # --- what an answer means ---------------------------------------------------------------------------

    def _observe(self, lease: Lease | None, now: float) -> list[Action]:
        before, was_foreign = self.lease, self.foreign
        self._watch.read(lease, sent_at=self._sent_at, now=now)
        events: list[Action] = []
        if self.leading:
            if lease is None:
                self._watch.lease = before  # deleted by hand: its leader writes it again as it was
                return []
            if self.foreign:
                events += self._lose(self._watch.whose(lease.record))
            elif lease.record.holder_identity != self.identity:
                events += self._lose("another holder stands in the Lease")
        if self.foreign and not was_foreign and lease:
            events.append(self._event(EventKind.FOREIGN, self._watch.whose(lease.record)))
        return [*events, *self._new_holder()]

    def _wait_seconds(self, lease: Lease, now: float) -> float:
        """Until the next look at a Lease that this node must not write."""
        if self._watch.claim is Claim.NEVER:
            return self._schedule.jittered(max(DENIED_SECONDS, self._schedule.poll(self.nodes)))
        if self._watch.claim in (Claim.TAKE_WHEN_GIVEN_UP, Claim.TAKE_WHEN_ABANDONED):
            return self._schedule.jittered(max(GIVEN_UP_SECONDS / 3, self._schedule.poll(self.nodes)))
        if self._watch.may_lose_its_leader(lease, now):
            return self._schedule.soon()
        return self._schedule.after_a_fresh_record(self.nodes, has_age=self._watch.age(lease) is not None)

    def _new_holder(self) -> list[Action]:
        holder = self.lease.record.holder_identity if self.lease and not self.foreign else ""
        if not holder or holder == self._reported_holder:
            return []
        self._reported_holder = holder
        return [self._event(EventKind.NEW_LEADER)]

    def _event(self, kind: EventKind, detail: str = "") -> Event:
        record = self.lease.record if self.lease else LeaderElectionRecord()
        return Event(kind, record.holder_identity, record.leader_transitions, detail)
