"""Whose Lease is it, and may this node write it?

Three things say which region a Lease belongs to: its names (read by `region.naming`; here only whether they name this
region counts), the annotation of the region, and the annotation of its nodes' topology label. If an annotation names
another region or label, the record is foreign. A foreign record is not believed. It is written only where that can't
make two regions write the Lease in turn:

- The names are this region's, the annotation names another region. The names allow nobody else to write it, so the
  writer was misconfigured. The Lease is taken back when its holder stops renewing (client-go's rule), not before.
- The region's names were copied into another region: same names, another label. A side whose label is the region's
  name is at home. Any other side is a guest. Home takes the Lease from a guest at once, and a guest never takes it from
  home, so the holder changes at most once. A guest that renews then meets a conflict and stops.
- Both sides are guests, and nothing shows whose the names are. The side that has the Lease keeps it, and has time to
  elect its next leader. The other side takes it when it was released and not taken again (given up), or was silent for
  long (abandoned). A node that has seen the Lease as its own region's takes it back sooner, so that an edited
  annotation is corrected by the region whose Lease it was.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from speil.election.record import LeaderElectionRecord

# a region elects its next leader within 3 s after the last one stopped, within 14 s after it was killed
GIVEN_UP_SECONDS = 30.0
ABANDONED_SECONDS = 600.0  # silent for so long: its owners are gone, and not only unable to reach the API


class Claim(Enum):
    """What this node may do with a Lease as it stands."""

    OURS = "ours"  # follow it, and campaign on it
    TAKE = "take"  # foreign: write over it
    TAKE_WHEN_SILENT = "take when silent"  # foreign: write over it when its holder no longer renews it
    TAKE_WHEN_GIVEN_UP = (
        "take when given up"  # foreign: when its owners had time to elect their next leader and did not
    )
    TAKE_WHEN_ABANDONED = "take when abandoned"  # foreign: when it was released or silent for long
    NEVER = "never"  # foreign: do not write it


@dataclass(frozen=True, slots=True)
class Owner:
    """For whom a node writes the Lease. `label` is its topology label, "" where it does not count.

    `names_are_ours`: the names of the Lease name this region and no other.
    """

    region: str
    label: str = ""
    names_are_ours: bool = False

    def claim(self, record: LeaderElectionRecord, *, was_ours: bool) -> Claim:
        """What this node may do with `record`. `was_ours`: it has seen this Lease as its own region's before."""
        if record.region not in (None, self.region):
            if self.names_are_ours:
                return Claim.TAKE_WHEN_SILENT
            return Claim.TAKE_WHEN_GIVEN_UP if was_ours else Claim.NEVER
        if not (self.label and record.label) or self.label == record.label:
            return Claim.OURS
        if self._at_home(self.label):
            return Claim.TAKE
        if self._at_home(record.label):
            return Claim.NEVER
        return Claim.TAKE_WHEN_GIVEN_UP if was_ours else Claim.TAKE_WHEN_ABANDONED

    def says(self, record: LeaderElectionRecord) -> bool:
        """Whether both annotations of `record` name this node's region and label; `was_ours` comes from this."""
        return record.region == self.region and (not self.label or record.label == self.label)

    def _at_home(self, label: str) -> bool:
        return self.names_are_ours and label == self.region
