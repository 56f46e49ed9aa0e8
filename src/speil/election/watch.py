"""What one node has seen of its Lease: the last version, whose it is, and whether its holder still renews it.

When is a holder silent? client-go: when a record did not change for its duration under the eyes of the observer, who
must look often. Here one look gives the record's age by the server's clock: most looks find it fresh, and the next one
can be far away. The lease counts as run out when the age is over the duration *and* two renewals were missed between
looks of this observer. An age can be wrong where servers' clocks differ. Such an age is found out, because a record
that changed between two looks is no older than the time between them.
"""

from __future__ import annotations

from speil.election.config import ElectionConfig
from speil.election.ownership import ABANDONED_SECONDS, GIVEN_UP_SECONDS, Claim, Owner
from speil.election.record import LeaderElectionRecord, Lease

DURATION_SECONDS_MAX = 60  # of a duration that is read: a wrong one must not stop an election for a day
AGE_ERROR_SECONDS = 2.0  # ages are differences of whole seconds; an age that is off by more is wrong


class LeaseWatch:
    """See the module. `lease` is the Lease as last read or written, None before that and where there is none."""

    def __init__(self, config: ElectionConfig, owner: Owner) -> None:
        self._config, self._owner = config, owner
        self.lease: Lease | None = None
        self.own: LeaderElectionRecord | None = None  # the last record that was this region's
        self.claim = Claim.OURS
        self._was_ours = False  # both annotations of a record have named this region and label
        self._changed_at = 0.0  # when this observer first saw the record as it is
        self._read_at: float | None = None  # when the last read was sent
        self._age_bias = 0.0  # by how much the server's ages were found to be too old

    @property
    def foreign(self) -> bool:
        """Whether the Lease is another region's: not believed, and written only as `ownership` allows it."""
        return self.claim is not Claim.OURS

    def read(self, lease: Lease | None, *, sent_at: float, now: float) -> None:
        """A read that was sent at `sent_at` returned this."""
        # when the reads were sent counts: a process that was frozen gets its answers late
        before, last_read_at = self.lease, self._read_at
        self.lease, self._read_at = lease, sent_at
        self.claim = Claim.OURS if lease is None else self._owner.claim(lease.record, was_ours=self._was_ours)
        if lease is not None and not self.foreign:
            self._remember(lease.record)
        changed = before is None or lease is None or lease.record.heartbeat != before.record.heartbeat
        if not changed:
            return
        self._changed_at = now
        if before and lease and lease.age_seconds is not None and last_read_at is not None:
            younger_than = now - last_read_at + AGE_ERROR_SECONDS
            if lease.age_seconds > younger_than:
                self._age_bias = lease.age_seconds - younger_than

    def written(self, lease: Lease, now: float) -> None:
        """This node wrote `lease`, as its region's."""
        self.lease, self._changed_at, self.claim = lease, now, Claim.OURS
        self._remember(lease.record)

    def _remember(self, record: LeaderElectionRecord) -> None:
        self._was_ours = self._was_ours or self._owner.says(record)
        self.own = record

    def whose(self, record: LeaderElectionRecord) -> str:
        """A sentence that names the region or label of a foreign record."""
        if record.region not in (None, self._owner.region):
            return f"the Lease is that of region {record.region!r}"
        return f"the Lease is that of nodes with the label {record.label!r}, this node's is {self._owner.label!r}"

    def age(self, lease: Lease) -> float | None:
        """Seconds since the last renewal; None where the server's clocks make no sense."""
        raw = lease.age_seconds
        if raw is None or raw < -AGE_ERROR_SECONDS:
            return None
        unbiased = raw - self._age_bias
        # a bias that makes it negative was another server's
        return max(unbiased, 0.0) if unbiased >= -AGE_ERROR_SECONDS else raw

    def duration(self, lease: Lease) -> float:
        """For how many seconds after a renewal nobody else takes the Lease."""
        recorded = min(lease.record.lease_duration_seconds, DURATION_SECONDS_MAX)
        return float(max(recorded, self._config.lease_duration_seconds))

    def unchanged(self, now: float) -> float:
        """For how many seconds this observer has seen the record as it is."""
        return now - self._changed_at

    def silent(self, lease: Lease, now: float) -> bool:
        """Whether the holder's lease has run out."""
        unchanged, duration = self.unchanged(now), self.duration(lease)
        if unchanged >= duration:
            return True  # client-go's rule: needs no clock but this node's
        age = self.age(lease)
        return age is not None and age > duration and unchanged >= self._config.missed_renewals_seconds

    def may_lose_its_leader(self, lease: Lease, now: float) -> bool:
        """Whether a renewal was missed, or nearly: the next look has to be soon."""
        missed, age = self._config.missed_renewals_seconds, self.age(lease)
        return self.unchanged(now) >= missed or (age is not None and age > self.duration(lease) - missed)

    def may_write(self, lease: Lease | None, identity: str, now: float) -> bool:
        """Whether `identity` may write itself into the Lease that was read: it is its own, free, or run out."""
        if lease is None:
            return True
        free = not lease.record.holder_identity
        match self.claim:
            case Claim.OURS:
                return free or lease.record.holder_identity == identity or self.silent(lease, now)
            case Claim.TAKE:
                return True
            case Claim.TAKE_WHEN_SILENT:
                return free or self.silent(lease, now)
            case Claim.TAKE_WHEN_GIVEN_UP:
                return self.unchanged(now) >= max(GIVEN_UP_SECONDS, self.duration(lease))
            case Claim.TAKE_WHEN_ABANDONED:
                return self.unchanged(now) >= (GIVEN_UP_SECONDS if free else ABANDONED_SECONDS)
        return False
