"""What an elector asks its driver to do."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from speil.election.record import LeaderElectionRecord, Lease


@dataclass(frozen=True, slots=True)
class Read:
    """Read the Lease; answer with `Elector.read` or `Elector.failed`."""


@dataclass(frozen=True, slots=True)
class Write:
    """Write `record`, stamped with the wall clock, over the version `base` (None: where there is no Lease).

    Answer with `Elector.written`, `conflicted` or `failed`.
    """

    record: LeaderElectionRecord
    base: Lease | None


class EventKind(Enum):
    """What happened in the election. The lower-case name is the label of `speil_election_events_total`."""

    CANDIDATE = "candidate"  # the node takes part
    ACQUIRED = "acquired"
    RENEWED = "renewed"
    LOST = "lost"
    NEW_LEADER = "new leader"  # the Lease names a holder that was not reported before
    RELEASED = "released"
    FOREIGN = "foreign region"  # the Lease is another region's


@dataclass(frozen=True, slots=True)
class Event:
    """Log and count this. `holder` and `transitions` are the record's; `detail` gives the reason, "" where plain."""

    kind: EventKind
    holder: str = ""
    transitions: int = 0
    detail: str = ""


Action = Read | Write | Event
