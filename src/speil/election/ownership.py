"""Whose Lease is it, and may this node write it?

A Lease says whose it is by its names (`region.naming` reads them, here it only counts whether they are this region's),
by the annotation of the region, and by the annotation of its nodes' topology label. Where an annotation is another's,
the record is foreign: it is not believed, and not written, but for the cases in which the Lease can be taken back
without two regions ever writing it in turn:

- Its names are this region's, its annotation names another region. By its names nobody else may write it, so whoever
  did was mistaken. It is taken back when the holder has fallen silent (client-go's rule), and not before.
- The region's names were copied into another region: same names, another label. Names and label that are the same word
  are at home, names that differ from their label are guests. Home takes the Lease from a guest at once, and a guest
  never takes it from home: one change of hands, whoever was first. A guest that renewed it meets a conflict and stops.
- Both are guests: nothing tells whose the names are. Who has it keeps it, and has time to follow its own leader: the
  Lease is taken when it was given up (released, and none of its owners took it), or abandoned for long. A node that
  knows it as its own region's takes it back sooner: an edited annotation is mended by those whose Lease it was.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from speil.election.record import LeaderElectionRecord

GIVEN_UP_SECONDS = (
    30.0  # owners that are there follow a leader that stopped within 3 s, one that was killed within 14 s
)
ABANDONED_SECONDS = 600.0  # silent for as long: its owners are gone, and not only cut off from the API


class Claim(Enum):
    """What this node may do with a Lease as it stands."""

    OURS = "ours"  # follow it, and campaign on it
    TAKE = "take"  # foreign: write over it
    TAKE_WHEN_SILENT = "take when silent"  # foreign: write over it when its holder does not renew it any more
    TAKE_WHEN_GIVEN_UP = "take when given up"  # foreign: when its owners had time to follow their leader and did not
    TAKE_WHEN_ABANDONED = "take when abandoned"  # foreign: when nobody has wanted it for long
    NEVER = "never"  # foreign


@dataclass(frozen=True, slots=True)
class Owner:
    """A node's side. `label` is its topology label, "" where it takes no part; `names_are_ours`: see the module."""

    region: str
    label: str = ""
    names_are_ours: bool = False

    def claim(self, record: LeaderElectionRecord, *, was_ours: bool) -> Claim:
        """What to do with `record`; `was_ours`: this node has seen this Lease as its own region's before."""
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
        """Whether `record` says outright that it is this node's own: what `was_ours` is made of."""
        return record.region == self.region and (not self.label or record.label == self.label)

    def _at_home(self, label: str) -> bool:
        return self.names_are_ours and label == self.region
