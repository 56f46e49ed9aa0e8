"""The elector: client-go's acquire, renew and release, with no way out of the election and a load that stays.

A candidate reads the Lease. Is it free, its own, or has its leader fallen silent, the candidate writes itself into it,
on the version that it read: of many, one succeeds. The leader renews by writes alone and gives up when it could not
for the renew deadline, which is before anybody may follow it. Then it is a candidate like the others.

When is a leader silent? client-go: when a record did not change for its duration under the eyes of the observer, who
must look often. Here one look tells the record's age by the server's clock: most looks find it fresh, and the next one
is as far away as `pace` says. An age that means missed renewals brings the next looks close together; the lease is
taken when the age is over the duration *and* two renewals were missed under this observer's eyes. An age that can't
be right (servers whose clocks differ) is found out, because a record that changed between two looks is no older than
the time between them.

The contract: `start`, then one request at a time (Read or Write, each answered by exactly one of `read`, `written`,
`conflicted`, `failed`), `tick` when `next_deadline` is reached, `stop` last. `now` is monotonic seconds.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING

from speil.election.config import ElectionConfig
from speil.election.ownership import ABANDONED_SECONDS, GIVEN_UP_SECONDS, Claim, Owner
from speil.election.pace import NODES_MAX, poll_wait_seconds
from speil.election.record import LeaderElectionRecord, Lease

if TYPE_CHECKING:
    from random import Random

DURATION_SECONDS_MAX = 60  # a record's own duration counts up to here: nobody can take a region out for a day
DENIED_SECONDS = 30.0  # between tries that an operator has to make succeed: a Role, a wrong name
UNKNOWN_SECONDS_MAX = 10.0  # between tries of a node that has never seen the Lease
ANNOTATE_SECONDS = 60.0  # peers and nodes are written no more often than this, unless the region has doubled
AGE_ERROR_SECONDS = 2.0  # ages are differences of whole seconds; beyond this an age is wrong


@dataclass(frozen=True, slots=True)
class Read:
    """Action: read the Lease."""


@dataclass(frozen=True, slots=True)
class Write:
    """Action: write `record`, stamped with the wall clock, over `base`; None: where there is no Lease."""

    record: LeaderElectionRecord
    base: Lease | None


class EventKind(Enum):
    """What happened in the election, for logs and metrics."""

    CANDIDATE = "candidate"
    ACQUIRED = "acquired"
    RENEWED = "renewed"
    LOST = "lost"
    NEW_LEADER = "new leader"
    RELEASED = "released"
    FOREIGN = "foreign region"


@dataclass(frozen=True, slots=True)
class Event:
    """Action: tell it. `holder` and `transitions` are the record's; `detail` says why, where that is not plain."""

    kind: EventKind
    holder: str = ""
    transitions: int = 0
    detail: str = ""


Action = Read | Write | Event


class Elector:
    """One node's part in the election of its region. See the module."""

    def __init__(self, config: ElectionConfig, identity: str, owner: Owner, rng: Random) -> None:
        self._config, self.identity, self._owner, self._rng = config, identity, owner, rng
        self.lease: Lease | None = None  # as last read or written
        self.own: LeaderElectionRecord | None = None  # the last record that was this region's
        self.leading = False
        self._claim = Claim.OURS
        self._was_ours = False
        self.stopped = False
        self._stopping = False
        self._nodes = 0
        self._peers: tuple[str, ...] = ()
        self._due = 0.0
        self._sent_at = 0.0
        self._renewed_at = 0.0  # when the last write that succeeded was sent
        self._observed_at = 0.0  # when this observer first saw the record as it is
        self._read_at: float | None = None
        self._age_bias = 0.0  # how much too old the server's ages were seen to be
        self._confirming = False
        self._following = False  # whether the region's pace has been taken up
        self._conflicts = self._failures = 0
        self._reported_holder = ""
        self._annotated_at: float | None = None

    @property
    def foreign(self) -> bool:
        """Whether the Lease is another region's: not believed, and written only as `ownership` has it."""
        return self._claim is not Claim.OURS

    # --- inputs -----------------------------------------------------------------------------------------

    def know(self, nodes: int, peers: tuple[str, ...]) -> None:
        """What the mesh says: an estimate of the region's size (this node included), and live peers."""
        self._nodes, self._peers = nodes, peers

    def start(self, now: float) -> list[Action]:
        """Take part."""
        return [Event(EventKind.CANDIDATE), *self._read(now)]

    def next_deadline(self) -> float:
        """When to call `tick`, while no request is under way."""
        return min(self._due, self._give_up_at) if self.leading else self._due

    def request_deadline(self, now: float) -> float:
        """When a request sent at `now` is given up: a leader does not lead for as long as it waits for an answer."""
        timeout = now + self._config.request_timeout_seconds
        return min(timeout, self._give_up_at) if self.leading else timeout

    def tick(self, now: float) -> list[Action]:
        """A deadline has come."""
        events = self._give_up(now)
        if now < self._due:
            return events
        if self.leading and not self._conflicts:
            return [*events, *self._write(now)]
        return [*events, *self._read(now)]

    def read(self, lease: Lease | None, now: float) -> list[Action]:
        """The Lease as the store has it; None: there is none."""
        self._failures = 0
        events = [*self._observe(lease, now), *self._give_up(now)]
        held = lease is not None and lease.record.holder_identity == self.identity
        if self._stopping:
            return events + (self._release(now) if held and not self.foreign else self._end())
        if self.foreign and lease is not None:
            if self._may_take_back(lease, now):
                return [*events, *self._write(now)]
            if self._claim is Claim.TAKE_WHEN_SILENT:
                self._wait_for_news(lease, now)
            else:
                least = DENIED_SECONDS if self._claim is Claim.NEVER else GIVEN_UP_SECONDS / 3
                self._wait(now, max(least, poll_wait_seconds(self.nodes, self._config, self._rng)))
            return events
        if lease is None or held or not lease.record.holder_identity or self._silent(lease, now):
            return [*events, *self._write(now)]
        self._conflicts = 0
        self._wait_for_news(lease, now)
        return events

    def written(self, lease: Lease, now: float) -> list[Action]:
        """The write succeeded; `lease` is what stands there now."""
        self._failures = self._conflicts = 0
        previous, self.lease, self._observed_at = self.lease, lease, now
        if self._stopping:
            return [self._event(EventKind.RELEASED), *self._end()]
        kind = EventKind.RENEWED if self.leading else EventKind.ACQUIRED
        detail = "the Lease is taken back" if self.foreign else ""
        self._claim = Claim.OURS
        self._remember(lease.record)
        self.leading, self._renewed_at = True, self._sent_at
        self._due = self._sent_at + self._config.retry_period_seconds
        before = previous.record if previous else None
        if before is None or (lease.record.peers, lease.record.nodes) != (before.peers, before.nodes):
            self._annotated_at = now
        return [self._event(kind, detail), *self._new_holder()]

    def conflicted(self, now: float) -> list[Action]:
        """Somebody else wrote first: look again. At once, but no faster than `retry` when it goes on."""
        self._conflicts += 1
        if self._stopping and self._conflicts > 1:
            return self._end()  # a race to release is no race worth winning
        events = self._give_up(now)
        if self._stopping or (self.leading and self._conflicts == 1):
            return [*events, *self._read(now)]
        self._wait(now, self._config.retry_period_seconds / 2)
        return events

    def failed(self, now: float, *, denied: bool = False) -> list[Action]:
        """The request had no answer, or one that says nothing of the Lease; `denied`: an operator has to act."""
        self._failures += 1
        if self._stopping:
            return self._end()
        events = self._give_up(now)
        if self.leading:
            self._due = max(self._sent_at + self._config.retry_period_seconds, now)
        elif denied:
            self._wait(now, DENIED_SECONDS)
        elif self.lease is None:
            backoff = self._config.retry_period_seconds * 2 ** min(self._failures - 1, 8)
            self._wait(now, min(backoff, UNKNOWN_SECONDS_MAX))
        else:
            self._due = now + poll_wait_seconds(self.nodes, self._config, self._rng)
        return events

    def stop(self, now: float, *, in_doubt: bool) -> list[Action]:
        """Take part no more, and release what is held. `in_doubt`: a write was cut off, its outcome is unknown."""
        self._stopping, self._conflicts = True, 0
        if in_doubt:
            return self._read(now)
        return self._release(now) if self.leading else self._end()

    @property
    def nodes(self) -> int:
        """The best estimate of the region's size: the leader's or this node's, whichever is higher; 0 is unknown."""
        told = self.lease.record.nodes if self.lease and not self.foreign else 0
        return min(max(told, self._nodes), NODES_MAX)

    # --- requests ---------------------------------------------------------------------------------------

    def _read(self, now: float) -> list[Action]:
        self._sent_at = now
        return [Read()]

    def _write(self, now: float) -> list[Action]:
        """Renew, or acquire: the difference is in acquire time and transitions alone."""
        self._sent_at = now
        base = self.lease
        held = base is not None and base.record.holder_identity == self.identity
        old = base.record if base else LeaderElectionRecord()
        if self.foreign:
            # peers, size and label are another region's
            old = dataclasses.replace(old, nodes=0, peers=(), label="")
            self._annotated_at = None
        record = dataclasses.replace(
            old,
            holder_identity=self.identity,
            lease_duration_seconds=self._config.lease_duration_seconds,
            acquire_time=old.acquire_time if held else None,
            leader_transitions=old.leader_transitions + (base is not None and not held),
            region=self._owner.region,
            label=self._owner.label or old.label,  # a leader without one leaves what its region's nodes have
        )
        news = (self._nodes, self._peers) != (old.nodes, old.peers)
        if self._nodes and news and self._may_annotate(old, now):
            record = dataclasses.replace(record, nodes=self._nodes, peers=self._peers or old.peers)
        return [Write(record, base)]

    def _may_annotate(self, old: LeaderElectionRecord, now: float) -> bool:
        if self._annotated_at is None or self._nodes >= 2 * old.nodes:
            return True
        return now - self._annotated_at >= ANNOTATE_SECONDS

    def _release(self, now: float) -> list[Action]:
        assert self.lease is not None, "what is released was acquired"
        self._sent_at = now
        self.leading = False
        # as client-go: no holder, a duration of a second, times of now
        record = dataclasses.replace(
            self.lease.record,
            holder_identity="",
            lease_duration_seconds=1,
            acquire_time=None,
            region=self._owner.region,
        )
        return [Write(record, self.lease)]

    def _end(self) -> list[Action]:
        self.stopped, self.leading = True, False
        return []

    # --- what an answer means ---------------------------------------------------------------------------

    def _observe(self, lease: Lease | None, now: float) -> list[Action]:
        # when they were sent: a process that was frozen reads answers late
        before, last_read_at = self.lease, self._read_at
        self.lease, self._read_at = lease, self._sent_at
        before_claim, self._claim = self._claim, self._claim_of(lease)
        if lease is not None and not self.foreign:
            self._remember(lease.record)
        changed = before is None or lease is None or lease.record.heartbeat != before.record.heartbeat
        if changed:
            self._observed_at = now
        if changed and before and lease and lease.age_seconds is not None and last_read_at is not None:
            younger_than = now - last_read_at + AGE_ERROR_SECONDS
            if lease.age_seconds > younger_than:
                self._age_bias = lease.age_seconds - younger_than
        events: list[Action] = []
        if self.leading and (lease is None or lease.record.holder_identity != self.identity or self.foreign):
            if lease is None and not self._stopping:
                self.lease = before  # deleted by hand: written again as it was, by the one who leads
                return []
            why = "the Lease was deleted" if lease is None else "another holder stands in the Lease"
            events += self._lose(self._whose(lease.record) if lease and self.foreign else why)
        if self.foreign and before_claim is Claim.OURS and lease:
            events.append(self._event(EventKind.FOREIGN, self._whose(lease.record)))
        return [*events, *self._new_holder()]

    def _claim_of(self, lease: Lease | None) -> Claim:
        return Claim.OURS if lease is None else self._owner.claim(lease.record, was_ours=self._was_ours)

    def _remember(self, record: LeaderElectionRecord) -> None:
        self._was_ours = self._was_ours or self._owner.says(record)
        self.own = record

    def _whose(self, record: LeaderElectionRecord) -> str:
        if record.region not in (None, self._owner.region):
            return f"the Lease is that of region {record.region!r}"
        return f"the Lease is that of nodes with the label {record.label!r}, this node's is {self._owner.label!r}"

    def _may_take_back(self, lease: Lease, now: float) -> bool:
        """Whether a foreign Lease may be written now."""
        free, unchanged = not lease.record.holder_identity, now - self._observed_at
        match self._claim:
            case Claim.TAKE:
                return True
            case Claim.TAKE_WHEN_SILENT:
                return free or self._silent(lease, now)
            case Claim.TAKE_WHEN_GIVEN_UP:
                return unchanged >= max(GIVEN_UP_SECONDS, self._duration(lease))
            case Claim.TAKE_WHEN_ABANDONED:
                return unchanged >= (GIVEN_UP_SECONDS if free else ABANDONED_SECONDS)
        return False

    def _new_holder(self) -> list[Action]:
        holder = self.lease.record.holder_identity if self.lease and not self.foreign else ""
        if not holder or holder == self._reported_holder:
            return []
        self._reported_holder = holder
        return [self._event(EventKind.NEW_LEADER)]

    def _age(self, lease: Lease) -> float | None:
        """Seconds since the last renewal; None where the server's clocks make no sense."""
        raw = lease.age_seconds
        if raw is None or raw < -AGE_ERROR_SECONDS:
            return None
        unbiased = raw - self._age_bias
        # a bias that makes it negative was another server's
        return max(unbiased, 0.0) if unbiased >= -AGE_ERROR_SECONDS else raw

    def _duration(self, lease: Lease) -> float:
        told = min(lease.record.lease_duration_seconds, DURATION_SECONDS_MAX)
        return float(max(told, self._config.lease_duration_seconds))

    def _silent(self, lease: Lease, now: float) -> bool:
        """Whether the leader's lease has run out."""
        unchanged, duration = now - self._observed_at, self._duration(lease)
        if unchanged >= duration:
            return True  # client-go's rule: needs nobody's clock
        age = self._age(lease)
        return age is not None and age > duration and unchanged >= self._config.missed_renewals_seconds

    def _wait_for_news(self, lease: Lease, now: float) -> None:
        """Plan the next look: soon at a record that may have lost its leader, else at the region's pace."""
        missed = self._config.missed_renewals_seconds
        age = self._age(lease)
        if now - self._observed_at >= missed or (age is not None and age > self._duration(lease) - missed):
            self._wait(now, self._config.retry_period_seconds / 2)
            return
        pace = poll_wait_seconds(self.nodes, self._config, self._rng)
        if not self._following:
            # nodes that started together, by a roll-out, part ways with their first wait
            self._following = True
            pace = max(pace * self._rng.random(), self._config.retry_period_seconds)
        # without an age, a second look must tell whether the record changes
        self._confirming = age is None and not self._confirming
        self._due = now + (min(pace, missed * 1.25) if self._confirming else pace)

    def _wait(self, now: float, seconds: float) -> None:
        self._due = now + seconds * (1 + 0.2 * self._rng.random())

    # --- losing -----------------------------------------------------------------------------------------

    @property
    def _give_up_at(self) -> float:
        return self._renewed_at + self._config.give_up_seconds

    def _give_up(self, now: float) -> list[Action]:
        if not self.leading or now < self._give_up_at:
            return []
        self._due = now
        return self._lose(f"not renewed for {now - self._renewed_at:.1f} s")

    def _lose(self, why: str) -> list[Action]:
        self.leading = False
        self._reported_holder = ""  # whoever leads next is news, this node too
        return [self._event(EventKind.LOST, why)]

    def _event(self, kind: EventKind, detail: str = "") -> Event:
        record = self.lease.record if self.lease else LeaderElectionRecord()
        return Event(kind, record.holder_identity, record.leader_transitions, detail)
