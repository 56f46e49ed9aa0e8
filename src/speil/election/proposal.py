"""The records that this node writes into the Lease: to lead, to renew, and to release."""

from __future__ import annotations

import dataclasses

from speil.election.config import ElectionConfig
from speil.election.ownership import Owner
from speil.election.polling import NODES_MAX
from speil.election.record import LeaderElectionRecord, Lease

ANNOTATE_SECONDS = 60.0  # peers and nodes are written no more often than this, unless the region has doubled


class Proposal:
    """Makes the records of the node `identity`."""

    def __init__(self, config: ElectionConfig, identity: str, owner: Owner) -> None:
        self._config, self.identity, self._owner = config, identity, owner
        self._nodes = 0
        self._peers: tuple[str, ...] = ()
        self._annotated_at: float | None = None

    def know(self, nodes: int, peers: tuple[str, ...]) -> None:
        """This node's estimate of the region's size (0: unknown) and multiaddrs of live peers."""
        self._nodes, self._peers = nodes, peers

    def nodes(self, believed: Lease | None) -> int:
        """The best estimate of the region's size: the leader's or this node's, whichever is higher; 0 is unknown."""
        return min(max(believed.record.nodes if believed else 0, self._nodes), NODES_MAX)

    def renewal(self, base: Lease | None, now: float, *, is_foreign: bool) -> LeaderElectionRecord:
        """Renew, or acquire: they differ in the acquire time and the transitions alone."""
        held = base is not None and base.record.holder_identity == self.identity
        old = base.record if base else LeaderElectionRecord()
        if is_foreign:
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
            label=self._owner.label or old.label,  # a leader without a label keeps the one that its region's nodes have
        )
        differs = (self._nodes, self._peers) != (old.nodes, old.peers)
        if self._nodes and differs and self._may_annotate(old, now):
            record = dataclasses.replace(record, nodes=self._nodes, peers=self._peers or old.peers)
        return record

    def release(self, base: Lease) -> LeaderElectionRecord:
        """As client-go: no holder, a duration of a second, times of now."""
        return dataclasses.replace(
            base.record,
            holder_identity="",
            lease_duration_seconds=1,
            acquire_time=None,
            region=self._owner.region,
        )

    def written(self, lease: Lease, before: Lease | None, now: float) -> None:
        """`lease` was written over `before`."""
        old = before.record if before else None
        if old is None or (lease.record.peers, lease.record.nodes) != (old.peers, old.nodes):
            self._annotated_at = now

    def _may_annotate(self, old: LeaderElectionRecord, now: float) -> bool:
        if self._annotated_at is None or self._nodes >= 2 * old.nodes:
            return True
        return now - self._annotated_at >= ANNOTATE_SECONDS
